"""What each tenant used in the last minute and has in flight, in shared memory mapped before the fork.

Owns: the table of slots (one per tenant), their moving windows of requests and tokens, the counts in flight.
Must not: know what a limit is for, or keep one: limits are arguments, so that a reload changes them at once.

A slot changes under its robust mutex: the kernel frees it when its holder dies, the next to lock it repairs.
A worker's own column of counts is the truth; the total follows from the columns.
"""

from mmap import mmap

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from octoroute._columns cimport (
    Columns, Place, bytes_of, change, claims_of, find, in_flight_of, lay_out, recount as recount_place,
)
from octoroute._robust cimport init_mutex, load8, lock, pthread_mutex_t, store8, unlock
from octoroute._windows cimport Window, advance, correct, free_in, recount, take

cdef extern from *:
    """
    typedef struct {
        octo_place place;
        pthread_mutex_t mutex;
        octo_window requests, tokens;
        uint64_t changes;
    } __attribute__((aligned(64))) octo_tenant;
    typedef struct { pthread_mutex_t mutex; } __attribute__((aligned(64))) octo_tenants;
    """
    ctypedef struct Slot "octo_tenant":
        Place place
        pthread_mutex_t mutex
        Window requests, tokens
        uint64_t changes             # of those in flight
    ctypedef struct Table "octo_tenants":
        pthread_mutex_t mutex


cdef inline double _until(int64_t head, int64_t seconds, double now) noexcept:
    return <double>seconds if seconds <= 0 else <double>(head + seconds) - now


ADMITTED = 0
REQUESTS = 1
IN_FLIGHT = 2


@cython.final
@cython.no_gc                    # it refers to names and memory only, which refer to nothing
cdef class LimitTable:
    """A table of `slots` tenants for `workers` processes. `worker` says which column this process writes.

    Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share. A limit is 1 or more.
    A slot that was never claimed raises IndexError.
    """

    cdef readonly int32_t slots
    cdef readonly int32_t workers
    cdef int32_t _worker
    cdef Py_buffer _view
    cdef Table *_table
    cdef Slot *_slot
    cdef Columns _columns

    def __cinit__(self, slots=16384, workers=1):
        if slots < 1 or workers < 1:
            raise ValueError("a table of limits needs at least one slot and one worker")
        columns_at = sizeof(Table) + slots * sizeof(Slot)
        memory = mmap(-1, columns_at + bytes_of(slots, workers))
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self.slots = self._columns.slots = slots
        self.workers = self._columns.workers = workers
        self._table = <Table *>self._view.buf
        self._slot = <Slot *>(self._table + 1)
        lay_out(&self._columns, self._slot, sizeof(Slot), <uint8_t *>self._view.buf + <size_t>columns_at)
        if init_mutex(&self._table.mutex) != 0:
            raise OSError("this system has no robust process-shared mutexes")

    def __dealloc__(self):
        if self._view.buf != NULL:
            PyBuffer_Release(&self._view)

    @property
    def worker(self):
        return self._worker

    @worker.setter
    def worker(self, int worker):
        if not 0 <= worker < self.workers:
            raise ValueError(f"worker {worker} of {self.workers}")
        self._worker = worker

    cdef Slot *_at(self, int32_t slot) except NULL:
        if not 0 <= slot < self.slots or not load8(&self._slot[slot].place.used):
            raise IndexError(f"slot {slot} is not in use")
        return &self._slot[slot]

    cdef Slot *_enter(self, int32_t slot) noexcept:
        """Lock a slot; where its last holder died inside, make sums and total agree with their parts."""
        cdef Slot *entry = &self._slot[slot]
        if lock(&entry.mutex):
            recount_place(&self._columns, slot)
            entry.changes += 1
            recount(&entry.requests)
            recount(&entry.tokens)
        return entry

    cdef void _take(self, int32_t slot, const uint8_t *digest) noexcept:
        cdef Slot *entry = &self._slot[slot]
        if not entry.place.used:
            init_mutex(&entry.mutex)
        if not entry.place.used or memcmp(entry.place.digest, digest, 16) != 0:
            self._enter(slot)
            memset(&entry.requests, 0, sizeof(Window))
            memset(&entry.tokens, 0, sizeof(Window))
            memcpy(entry.place.digest, digest, 16)
            unlock(&entry.mutex)
            store8(&entry.place.used, 1)
        claims_of(&self._columns, self._worker, slot)[0] += 1

    def claim(self, bytes digest):
        """The slot of a 16-byte identity: the one that has it, with what it used, else a fresh one.

        MemoryError when the table is full. Each claim of a process is given back by one `release_slot` in it.
        """
        cdef const uint8_t *key = digest
        cdef int32_t found
        if len(digest) != 16:
            raise ValueError(f"a digest has 16 bytes, not {len(digest)}")
        begin = int.from_bytes(digest, "little") % self.slots
        lock(&self._table.mutex)       # nothing to repair: what a dead one left half-made has no owner
        found = find(&self._columns, key, begin)
        if found >= 0:
            self._take(found, key)
        unlock(&self._table.mutex)
        if found < 0:
            raise MemoryError(f"all {self.slots} slots for tenants are in use")
        return found

    def release_slot(self, int32_t slot):
        """Give back one claim of this process. Unclaimed and idle, a slot is free for the next new tenant."""
        cdef uint32_t *claims
        self._at(slot)
        claims = claims_of(&self._columns, self._worker, slot)
        lock(&self._table.mutex)
        claims[0] -= claims[0] > 0
        unlock(&self._table.mutex)

    def reclaim(self, int32_t worker):
        """After a worker's end, before another has its number: give its claims and requests back (count)."""
        cdef Slot *entry
        cdef int32_t slot, had
        cdef uint64_t reclaimed = 0
        if not 0 <= worker < self.workers:
            raise ValueError(f"worker {worker} of {self.workers}")
        lock(&self._table.mutex)
        for slot in range(self.slots):
            # Not the slot itself: looking at one that was never used would give it memory.
            if in_flight_of(&self._columns, worker, slot)[0] or claims_of(&self._columns, worker, slot)[0]:
                entry = self._enter(slot)
                had = in_flight_of(&self._columns, worker, slot)[0]
                reclaimed += had
                change(&self._columns, slot, worker, -had)
                entry.changes += 1
                unlock(&entry.mutex)
                claims_of(&self._columns, worker, slot)[0] = 0
        unlock(&self._table.mutex)
        return reclaimed

    def in_flight(self, int32_t slot):
        """(changes, requests in flight), both of one moment: of two, the one with more changes is newer."""
        cdef Slot *entry
        cdef uint64_t changes
        cdef uint32_t count
        self._at(slot)
        entry = self._enter(slot)
        changes, count = entry.changes, entry.place.in_flight
        unlock(&entry.mutex)
        return changes, count

    def requests(self, int32_t slot, double now, int64_t limit, int64_t amount=1):
        """(used, seconds until `amount` more is free, seconds until all is); a wait of -1 is for ever."""
        self._at(slot)
        return self._look(slot, &self._slot[slot].requests, now, limit, amount)

    def tokens(self, int32_t slot, double now, int64_t limit, int64_t amount=1):
        """The same for tokens. What is owed counts as used."""
        self._at(slot)
        return self._look(slot, &self._slot[slot].tokens, now, limit, amount)

    cdef tuple _look(self, int32_t slot, Window *window, double now, int64_t limit, int64_t amount):
        cdef Slot *entry
        cdef int64_t head, used, some, all
        if limit < 1:
            raise ValueError(f"a limit of {limit}")
        entry = self._enter(slot)
        advance(window, <int64_t>now, limit)
        head, used = window.head, window.sum + window.debt
        some, all = free_in(window, amount, limit), free_in(window, limit, limit)
        unlock(&entry.mutex)
        return used, _until(head, some, now), _until(head, all, now)

    cdef void _end(self, int32_t slot, int32_t worker) noexcept:
        cdef Slot *entry = self._enter(slot)
        if in_flight_of(&self._columns, worker, slot)[0] > 0:
            change(&self._columns, slot, worker, -1)
            entry.changes += 1
        unlock(&entry.mutex)


@cython.final
@cython.auto_pickle(False)
@cython.no_gc                    # the table refers to nothing
cdef class Pass:
    """One request's place among those of its tenant, given back by `end`, else with the last reference."""

    cdef readonly int64_t reserved   # tokens
    cdef LimitTable _table
    cdef int32_t _slot
    cdef int32_t _worker
    cdef bint _held, _counted
    cdef int64_t _second, _token_second

    def __init__(self, LimitTable table not None, int32_t slot):
        table._at(slot)
        self._table = table
        self._slot = slot
        self._worker = table._worker

    def begin(self, double now, int64_t max_requests, int64_t max_in_flight):
        """Count one request, now and in flight. ADMITTED, or the limit that has no room: then nothing counts.

        0 is no limit.
        """
        cdef Slot *entry
        cdef int verdict = 0
        if self._held:
            raise ValueError("a pass is good for one request")
        entry = self._table._enter(self._slot)
        if max_in_flight > 0 and entry.place.in_flight >= max_in_flight:
            verdict = 2
        elif max_requests > 0:
            advance(&entry.requests, <int64_t>now, max_requests)
            self._second = entry.requests.head
            self._counted = take(&entry.requests, 1, max_requests)
            verdict = not self._counted
        if verdict == 0:
            self._held = True
            change(&self._table._columns, self._slot, self._worker, 1)
            entry.changes += 1
        unlock(&entry.mutex)
        return verdict

    def reserve(self, double now, int64_t tokens, int64_t limit):
        """Count tokens that are expected, or nothing where the limit has no room for all of them: False."""
        cdef Slot *entry
        cdef bint taken
        if tokens < 0 or limit < 1 or self.reserved:
            raise ValueError(f"{tokens} tokens of {limit}, with {self.reserved} reserved")
        entry = self._table._enter(self._slot)
        advance(&entry.tokens, <int64_t>now, limit)
        self._token_second = entry.tokens.head
        taken = take(&entry.tokens, tokens, limit)
        unlock(&entry.mutex)
        if taken:
            self.reserved = tokens
        return taken

    def settle(self, double now, int64_t used, int64_t limit):
        """Replace what was reserved by what was used. What that is more than the limit leaves is owed."""
        cdef Slot *entry
        if used < 0 or limit < 1:
            raise ValueError(f"{used} tokens of {limit}")
        entry = self._table._enter(self._slot)
        advance(&entry.tokens, <int64_t>now, limit)
        correct(&entry.tokens, self._token_second, self.reserved, used, limit)
        unlock(&entry.mutex)
        self.reserved = used

    def withdraw(self):
        """The request was refused after all: it counts as neither request nor tokens."""
        cdef Slot *entry = self._table._enter(self._slot)
        if self._counted:
            correct(&entry.requests, self._second, 1, 0, entry.requests.sum)
        if self.reserved:
            correct(&entry.tokens, self._token_second, self.reserved, 0, entry.tokens.sum)
        unlock(&entry.mutex)
        self._counted = False
        self.reserved = 0
        self.end()

    def end(self):
        """The request is no longer in flight; a second call does nothing."""
        if self._held:
            self._held = False
            self._table._end(self._slot, self._worker)

    def __dealloc__(self):
        # A pass that crossed a fork is still its first process's to give back.
        if self._held and self._table._worker == self._worker:
            self._table._end(self._slot, self._worker)
