from octoroute._delivered cimport Delivered
from octoroute._framing cimport Framing
from octoroute._gaps cimport Gaps
from octoroute._http1 cimport Head, HeadReader
from octoroute._turning cimport TurningPoints
from octoroute._usage_event cimport UsageFilter


cdef enum:
    IDLE = 0      # no request under way
    HEAD = 1      # asked, no complete head yet
    HOLD = 2      # the body is kept back
    PASS = 3      # verbatim, framing included
    RECODE = 4    # the payload only; the client's side frames it anew
    SPENT = 5     # complete, or given up


cdef class Relay(TurningPoints):
    # What the sweep looks at comes first: these are one or two lines of the cache.
    cdef int phase
    cdef public bint writing_paused       # the client doesn't read: silence is not the server's fault
    cdef readonly Py_ssize_t held_bytes
    # A stream's writes to its client, if somebody wants them: set before it flows. Events are then held until
    # they are complete, however long that takes.
    cdef public Delivered delivered
    cdef readonly long long last_ns       # last read of an answer
    cdef readonly long long out_ns        # last write to the client; the caller's begin() before that
    cdef public long long idle_ns         # PASS and RECODE: longest silence
    cdef public long long ping_ns         # silence towards the client, then on_quiet(); 0: never
    cdef public long long watch_ns        # silence of the server, then on_silence(); 0: never
    cdef public long long deadline_ns     # HEAD and HOLD: when the attempt is over
    cdef readonly object transport
    cdef readonly Framing framing
    cdef readonly Head head
    cdef readonly HeadReader heads
    cdef object write                     # PASS: to the client's transport; RECODE: payload to its framing
    cdef list held
    cdef Py_ssize_t held_settled          # of them, up to the end of a complete event
    cdef readonly bint reusable           # nothing was seen that forbids another request on this connection
    cdef readonly bint closed
    cdef readonly long long first_ns      # first body byte, 0: none
    cdef readonly long long bytes_out
    cdef readonly bytes tail              # the last read and the one before it (tiny ones don't count): usage
    cdef readonly bytes tail_before
    cdef readonly bint clean              # what the client got ends with a complete event
    cdef long long watched_ns             # when that was last
    cdef readonly Gaps gaps
    cdef object __weakref__
    cdef UsageFilter usage                # leaves out what only the gateway asked for; None: nothing is
    cdef bint reframes                    # RECODE begun by the relay itself, in chunks of its own

    cpdef begin(self)
    cpdef leave_out_usage(self)
    cpdef pass_on(self, write, bytes prefix)
    cpdef recode(self, write_payload)
    cpdef held_payload(self)
    cpdef finish(self)
    cpdef rest(self)
    cpdef spoke(self)
    cdef flow(self, write, int phase)
    cdef void forget_held(self)
    cdef emit(self, bytes data, bint clean, long long now)
    cdef bint must_reframe(self, bytes data, Py_ssize_t settled, Py_ssize_t used)
    cdef show(self, list payload, long long now)
    cdef hold_partial(self, bytes data, Py_ssize_t used, Py_ssize_t settled)
    cdef flush(self, bint clean)
    cdef take_head(self, bytes data)
    cdef hold(self, bytes data)
    cdef fail(self, str reason)
