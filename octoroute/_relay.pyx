"""The asyncio protocol that carries one answer from a model server to a client, byte for byte.

Owns the reading side of a connection: takes the head off, holds the beginning of the body until somebody
decides that it goes out, then hands every read to the client's transport untouched. It decides nothing:
`on_*` methods are overridden by the package's Python (upstream/connection.py), and none of them is called per
read once bytes flow.

Times are nanoseconds of CLOCK_MONOTONIC, the clock of time.monotonic_ns().
"""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from octoroute._delivered cimport Delivered
from octoroute._framing cimport Framing
from octoroute._gaps cimport Gaps
from octoroute._http1 cimport CHUNKED, UNTIL_CLOSE, HeadReader
from octoroute._sse cimport last_event_end, names
from octoroute._transport cimport SocketTransport
from octoroute._turning cimport TurningPoints
from octoroute._usage_event cimport UsageFilter

from octoroute._http1 import Malformed

cdef Py_ssize_t MAX_HELD = 65536           # of an incomplete event; what is larger flows as it comes
cdef bytes ERROR = b'"error"'
cdef bytes USAGE = b'"usage"'
cdef Py_ssize_t TINY = 24                  # a read without a usage: [DONE], a last chunk, a comment

cdef inline long long clock_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <long long> now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef bytes unframed(list pieces):
    """The payload of the beginning of a chunked body."""
    cdef Framing again = Framing(CHUNKED)
    cdef list payload = []
    cdef Py_ssize_t settled
    cdef bytes piece
    for piece in pieces:
        again.advance(piece, len(piece), &settled, payload)
    return b"".join(payload)


cdef class Relay(TurningPoints):
    def __cinit__(self):
        self.framing = Framing()
        self.gaps = Gaps()
        self.held = []
        self.heads = HeadReader()
        self.phase = IDLE
        self.reusable = True

    cpdef begin(self):
        """A request is about to be written: expect an answer."""
        self.phase = HEAD
        self.head = None
        self.heads.reset()
        self.delivered = None
        self.held.clear()
        self.held_bytes = self.held_settled = 0
        self.clean = True
        self.first_ns = 0
        self.last_ns = self.out_ns = clock_ns()
        self.bytes_out = 0
        self.tail = self.tail_before = None
        self.writing_paused = False
        self.usage = None
        self.reframes = False
        self.gaps.reset()

    cpdef leave_out_usage(self):
        """Of this answer, if it is an event stream: events that hold a usage and no choice. After begin()."""
        self.usage = UsageFilter()

    cpdef pass_on(self, write, bytes prefix):
        """Verbatim: `prefix` (a head for the client), what was held and all that follows goes to `write`."""
        cdef bytes held = b"".join(self.held)
        cdef Py_ssize_t ready = len(held)
        if self.usage is not None and self.must_reframe(held, self.held_settled, ready):
            if prefix:
                write(prefix)
            self.reframes = True
            self.recode(write)
            return
        self.flow(write, PASS)
        if self.phase == PASS and self.head.event_stream:
            ready = self.held_settled
        self.forget_held()
        if ready < len(held):
            self.held.append(held[ready:])
            self.held_bytes = len(held) - ready
        self.out_ns = clock_ns()
        self.bytes_out += ready
        held = held[:ready]
        if self.delivered is not None:
            self.delivered.add(held)
        write(prefix + held)

    cpdef recode(self, write_payload):
        """Only the payload goes to `write_payload`, in pieces that end where an event ends."""
        cdef bytes payload = self.held_payload()
        self.flow(write_payload, RECODE)
        self.forget_held()
        if self.usage is not None:
            self.show([payload], clock_ns())
        elif payload:
            self.emit(payload, self.framing.between_events(), clock_ns())

    cdef flow(self, write, int phase):
        self.write = write
        self.phase = SPENT if self.framing.done else phase
        self.gaps.skip(self.framing.chunks - 1)

    cpdef held_payload(self):
        """The held bytes without their framing."""
        return unframed(self.held) if self.framing.kind == CHUNKED else b"".join(self.held)

    cpdef finish(self):
        """No more of this answer is wanted; the connection is fit for another if `reusable`, `complete`."""
        self.phase = SPENT
        self.write = None
        self.delivered = None
        self.forget_held()

    cpdef rest(self):
        """Between requests: what comes now was not asked for."""
        self.phase = IDLE
        self.head = None
        self.watch_ns = 0
        self.tail = self.tail_before = None

    @property
    def complete(self):
        return self.head is not None and self.framing.done

    @property
    def flowing(self):
        """Whether bytes of the answer went to the client, so that no other can take its place."""
        return self.phase == PASS or self.phase == RECODE

    @property
    def passes_framing(self):
        """Whether the answer flows with the framing that it came in."""
        return self.phase == PASS or self.reframes

    cpdef spoke(self):
        """The client was written something that is not the server's."""
        self.out_ns = clock_ns()

    cdef void forget_held(self):
        self.held.clear()
        self.held_bytes = self.held_settled = 0

    cdef emit(self, bytes data, bint clean, long long now):
        cdef Delivered delivered = self.delivered
        if delivered is not None:
            if not self.clean or not delivered.add_alike(data, self.phase == PASS or self.reframes):
                if names(data, ERROR) and self.on_error_word(data):
                    return
                delivered.add(data)
            if delivered.much():
                self.on_delivered()
        self.bytes_out += len(data)
        self.out_ns = now
        self.clean = clean
        if type(self.write) is SocketTransport:
            (<SocketTransport>self.write).put(data)
        else:
            self.write(data)

    cdef bint must_reframe(self, bytes data, Py_ssize_t settled, Py_ssize_t used):
        """Whether `data` may hold the usage event or a part of it, so that it can't go out as it came."""
        return settled < used or self.framing.events_cut or names(data, USAGE)

    cdef show(self, list payload, long long now):
        """Passes on the events that are complete, without those that the client did not ask for."""
        cdef bytes data = self.usage.advance(payload, self.framing.done)
        if self.reframes:
            if data:
                data = b"%x\r\n%b\r\n" % (len(data), data)
            if self.framing.done:
                data += b"0\r\n\r\n"
        if data:
            self.emit(data, not self.usage.inside, now)

    def connection_made(self, transport):
        self.transport = transport

    cpdef data_received(self, bytes data):
        cdef Py_ssize_t n = len(data), used, settled = 0
        cdef long long now = clock_ns(), before
        cdef list payload
        cdef bint apart
        if self.phase == PASS or self.phase == RECODE:
            before = self.framing.chunks
            apart = self.framing.at_boundary and not self.framing.events_cut
            payload = None if self.phase == PASS else []
            try:
                used = self.framing.advance(data, n, &settled, payload)
            except Malformed as error:
                self.fail(f"malformed: {error}")
                return
            self.gaps.note((now - self.last_ns) * 1e-9, self.framing.chunks - before)
            self.last_ns = now
            if n > TINY or not apart:
                self.tail_before, self.tail = self.tail, data
            if used < n:
                self.reusable = False
                data = data[:used]
            if self.usage is not None and (payload is not None or self.must_reframe(data, settled, used)):
                if payload is None:
                    # This read began where a chunk and an event did: from here in chunks of our own.
                    payload = [unframed([data])]
                    self.phase = RECODE
                    self.reframes = True
                self.show(payload, now)
                used = 0
            elif payload is not None:
                data = b"".join(self.held + payload)
                self.forget_held()
                used = len(data)
                settled = last_event_end(data)
            if not self.head.event_stream or self.framing.done:
                settled = used
            if settled < used:
                self.hold_partial(data, used, settled)
            elif used:
                if self.held_bytes:
                    self.held.append(data)
                    data = b"".join(self.held)
                    self.forget_held()
                self.emit(data, True, now)
            if self.framing.done and (self.phase == PASS or self.phase == RECODE):
                self.phase = SPENT
                self.on_end()
        elif self.phase == HEAD:
            self.last_ns = now
            self.take_head(data)
        elif self.phase == HOLD:
            self.last_ns = now
            self.hold(data)
        else:
            # Bytes that nobody asked for: whose they are, nobody can say.
            self.reusable = False
            self.transport.abort()

    cdef hold_partial(self, bytes data, Py_ssize_t used, Py_ssize_t settled):
        """Passes on what is settled and keeps the beginning of an incomplete event until its rest comes."""
        if settled:
            self.held.append(data[:settled])
            self.held_bytes += settled
            self.flush(True)
            data = data[settled:]
        self.held.append(data)
        self.held_bytes += len(data)
        if self.held_bytes > MAX_HELD:
            self.flush(False)

    cdef flush(self, bint clean):
        """Passes on what is held; not `clean`: though its last event is incomplete."""
        ready = b"".join(self.held)
        self.forget_held()
        self.emit(ready, clean, clock_ns())

    cdef take_head(self, bytes data):
        try:
            self.head, data = self.heads.read(data)
        except Malformed as error:
            self.fail(f"malformed: {error}")
            return
        if self.head is None:
            return
        self.framing.reset(self.head.framing, self.head.length)
        if not self.head.event_stream:
            self.usage = None
        if not self.head.keep_alive:
            self.reusable = False
        self.phase = HOLD
        if data or self.framing.done:
            self.hold(data)
            if self.phase != HOLD or not self.head.event_stream:
                return
        self.on_head()

    cdef hold(self, bytes data):
        cdef Py_ssize_t used, settled = 0
        try:
            used = self.framing.advance(data, len(data), &settled, None)
        except Malformed as error:
            self.fail(f"malformed: {error}")
            return
        if used < len(data):
            self.reusable = False
            data = data[:used]
        if used:
            if settled:
                self.held_settled = self.held_bytes + settled
            self.held.append(data)
            self.held_bytes += used
            self.tail_before, self.tail = self.tail, data
            if not self.first_ns:
                self.first_ns = self.last_ns
        self.on_held()

    cdef fail(self, str reason):
        self.reusable = False
        self.on_failure(reason)

    def eof_received(self):
        return False

    def connection_lost(self, exc):
        self.closed = True
        self.reusable = False
        if self.phase == IDLE:
            self.on_idle_lost()
        elif self.phase != SPENT:
            if exc is None and self.head is not None and self.head.framing == UNTIL_CLOSE:
                self.framing.done = True
                if self.phase == HOLD:
                    self.on_held()
                else:
                    if self.usage is not None:
                        self.show([], clock_ns())
                    elif self.held_bytes:
                        self.flush(False)
                    self.phase = SPENT
                    self.on_end()
            else:
                self.fail("closed" if exc is None else "reset")
        self.transport = None
