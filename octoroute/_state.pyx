"""Live state of every endpoint, in anonymous shared memory that is mapped before the workers fork.

Owns: the tables of slots (one per endpoint identity) and of their servers, and the counts of requests in
flight. Must not: decide anything about health or selection. It makes each change whole,
whatever process dies when.

A slot changes under its server's robust mutex: the kernel frees it when its holder dies, the next to lock it
repairs. A worker's own column of counts is the truth; totals and gates follow from the columns. No Python
object is made under a mutex: that may start a garbage collection, which may release a lease on the same slot.
"""

from mmap import mmap

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from octoroute._bells cimport Bells
from octoroute._columns cimport bytes_of, claims_of, find, has_owner, in_flight_of, lay_out
from octoroute._robust cimport (
    bump, init_mutex, load8, load32, load64, load_double, lock, store8, store32, store_double, unlock,
)
from octoroute._slots cimport (
    SERVERS, Seen, Server, Slot, Table, book_load, count, enter, fail, forget, is_available, is_full, leave,
    measure, server_gate, set_gates, succeed, switch_flag, take,
)


@cython.final
@cython.no_gc                    # it refers to names and memory only, which refer to nothing
cdef class FleetState:
    """A table of `slots` endpoints for `workers` processes. `worker` says which column this process writes.

    Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share; -inf is "never".
    A slot that was never claimed raises IndexError.
    """

    def __cinit__(self, slots=4096, workers=1):
        cdef uint8_t *columns
        if slots < 1 or workers < 1:
            raise ValueError("a fleet needs at least one slot and one worker")
        gates_at = sizeof(Table) + slots * (sizeof(Slot) + sizeof(Server))
        columns_at = gates_at + (2 * slots + 63) // 64 * 64
        memory = mmap(-1, columns_at + bytes_of(slots, workers))
        PyObject_GetBuffer(memory, &self._view, PyBUF_WRITABLE)
        self.slots = self._fleet.columns.slots = slots
        self.workers = self._fleet.columns.workers = workers
        self._fleet.table = <Table *>self._view.buf
        self._fleet.slot = <Slot *>(self._fleet.table + 1)
        self._fleet.server = <Server *>(self._fleet.slot + <size_t>slots)
        self._fleet.full = <uint8_t *>self._view.buf + <size_t>gates_at
        columns = <uint8_t *>self._view.buf + <size_t>columns_at
        lay_out(&self._fleet.columns, self._fleet.slot, sizeof(Slot), columns)
        self.bells = Bells(workers)
        self.gates = memoryview(memory)[gates_at:gates_at + 2 * slots].toreadonly()
        if init_mutex(&self._fleet.table.mutex) != 0:
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

    @property
    def generation(self):
        """Grows whenever an endpoint's health, sleep, drain flag or weight changed: rebuild tables then."""
        return load64(&self._fleet.table.generation)

    cdef Slot *_at(self, int32_t slot) except NULL:
        if not 0 <= slot < self.slots or not load8(&self._fleet.slot[slot].place.used):
            raise IndexError(f"slot {slot} is not in use")
        return &self._fleet.slot[slot]

    def claim(self, bytes digest, bytes server=b""):
        """The slot of a 16-byte identity: the one that has it, with its state, else a fresh one (healthy).

        Slots of one `server`, 16 bytes too, are full together; without it a slot is a server of its own.
        MemoryError when the table is full. Each claim of a process is given back by one `release_slot` in it.
        """
        server = server or digest
        cdef const uint8_t *key = digest
        cdef int32_t found
        if len(digest) != 16 or len(server) != 16:
            raise ValueError(f"a digest has 16 bytes, not {len(digest)} or {len(server)}")
        begin = int.from_bytes(digest, "little") % self.slots
        row = int.from_bytes(server, "little") % self.slots
        lock(&self._fleet.table.mutex)     # nothing to repair: what a dead one left half-made has no owner
        found = find(&self._fleet.columns, key, begin)
        if found >= 0:
            take(&self._fleet, found, key, server, row, self._worker)
        unlock(&self._fleet.table.mutex)
        if found < 0:
            raise MemoryError(f"all {self.slots} slots for endpoints are in use")
        return found

    def release_slot(self, int32_t slot):
        """Give back one claim of this process. Unclaimed, a slot forgets its health and is free once idle."""
        cdef uint32_t *claims
        self._at(slot)
        claims = claims_of(&self._fleet.columns, self._worker, slot)
        lock(&self._fleet.table.mutex)
        claims[0] -= claims[0] > 0
        if not has_owner(&self._fleet.columns, slot):
            forget(&self._fleet, slot)
        unlock(&self._fleet.table.mutex)

    def reclaim(self, int32_t worker):
        """After a worker's end, before another has its number: give its claims and requests back (count)."""
        cdef int32_t slot, had
        cdef int opened = 0
        cdef uint64_t reclaimed = 0
        if not 0 <= worker < self.workers:
            raise ValueError(f"worker {worker} of {self.workers}")
        lock(&self._fleet.table.mutex)
        for slot in range(self.slots):
            if self._fleet.slot[slot].place.used:
                enter(&self._fleet, slot)
                had = in_flight_of(&self._fleet.columns, worker, slot)[0]
                reclaimed += had
                opened |= count(&self._fleet, slot, worker, -had)
                leave(&self._fleet, slot)
                claims_of(&self._fleet.columns, worker, slot)[0] = 0
        if self._fleet.table.prober == worker:
            self._fleet.table.prober_until = -INFINITY
        unlock(&self._fleet.table.mutex)
        self.bells.reclaim(worker)
        if opened:
            self.bells.ring(-1)
        return reclaimed

    def may_probe(self, double now, double lease_s):
        """Whether it is this process that probes in the next `lease_s`: one does, until it stops asking."""
        cdef bint mine
        lock(&self._fleet.table.mutex)
        mine = self._fleet.table.prober == self._worker or now >= self._fleet.table.prober_until
        if mine:
            self._fleet.table.prober = self._worker
            self._fleet.table.prober_until = now + lease_s
        unlock(&self._fleet.table.mutex)
        return mine

    def acquire(self, int32_t slot):
        """Count one more request of this worker; False, and no count, where the slot is at its capacity."""
        self._at(slot)
        return self._acquire(slot)

    def release(self, int32_t slot):
        """Count one request of this worker less; False where it has none: no count falls below zero."""
        self._at(slot)
        return self._release(slot, self._worker)

    cdef bint _acquire(self, int32_t slot) noexcept:
        cdef bint vacant
        enter(&self._fleet, slot)
        vacant = not is_full(&self._fleet, slot)
        if vacant:
            count(&self._fleet, slot, self._worker, 1)
        leave(&self._fleet, slot)
        return vacant

    cdef bint _release(self, int32_t slot, int32_t worker) noexcept:
        cdef bint held
        cdef int opened = 0
        enter(&self._fleet, slot)
        held = in_flight_of(&self._fleet.columns, worker, slot)[0] > 0
        if held:
            opened = count(&self._fleet, slot, worker, -1)
        leave(&self._fleet, slot)
        if opened and self.bells.anybody():
            # This worker knows, but not of all the endpoints that have room now.
            self.bells.ring(-1 if opened & SERVERS else self._worker)
        return held

    def in_flight(self, int32_t slot):
        return load32(&self._at(slot).place.in_flight)

    def capacity(self, int32_t slot):
        """How many may be in flight: as configured, else as learnt from the server; 0 = any number."""
        cdef Slot *entry = self._at(slot)
        return load32(&entry.configured_capacity) or load32(&entry.learnt_capacity)

    def set_capacity(self, int32_t slot, int64_t configured=-1, int64_t learnt=-1):
        cdef Slot *entry = self._at(slot)
        cdef int opened
        if (configured < 0 or configured == load32(&entry.configured_capacity)) and (
            learnt < 0 or learnt == load32(&entry.learnt_capacity)
        ):
            return                             # as almost every look at a server's load finds it
        enter(&self._fleet, slot)
        if configured >= 0:
            store32(&entry.configured_capacity, <uint32_t>configured)
        if learnt >= 0:
            store32(&entry.learnt_capacity, <uint32_t>learnt)
        measure(&self._fleet, entry.server)
        opened = set_gates(&self._fleet, slot)
        leave(&self._fleet, slot)
        if opened:
            self.bells.ring(-1)

    def full(self, int32_t slot):
        """Whether it, or its server under all its names, has as many in flight as it may."""
        self._at(slot)
        return is_full(&self._fleet, slot)

    def server_gate(self, int32_t slot):
        """Where in `gates` its server's is, the same for as long as it is claimed."""
        self._at(slot)
        return server_gate(&self._fleet, slot)

    def available(self, slots):
        """One byte per slot of `slots`: 1 where it is healthy, not draining and not asleep."""
        return bytes([is_available(self._at(slot)) for slot in slots])

    def count_failure(self, int32_t slot, uint32_t threshold):
        """One more failure in a row; at `threshold` the slot becomes unhealthy. True where it just did."""
        self._at(slot)
        return fail(&self._fleet, slot, threshold)

    def count_success(self, int32_t slot, uint32_t needed, double now):
        """A success: no failures in a row any more; the `needed`th in a row heals. True where it just did."""
        cdef Slot *entry = self._at(slot)
        if load8(&entry.healthy) and load32(&entry.seen.failures) == 0:
            return False                       # as almost every request finds it: nothing to write
        return succeed(&self._fleet, slot, needed, now)

    def set_draining(self, int32_t slot, bint draining):
        switch_flag(&self._fleet, &self._at(slot).draining, draining)

    def set_asleep(self, int32_t slot, bint asleep):
        """Whether the server says it sleeps: a request would only hang there. True where that is new."""
        return switch_flag(&self._fleet, &self._at(slot).asleep, asleep)

    def set_kind(self, int32_t slot, uint8_t kind):
        """Which software the server is, for all workers, by the caller's own numbers; 0: not known."""
        store8(&self._at(slot).kind, kind)

    def kind(self, int32_t slot):
        return load8(&self._at(slot).kind)

    def set_weight(self, int32_t slot, double weight):
        """Replace the configured weight, for all workers; 0 puts it back."""
        if not (isfinite(weight) and weight >= 0.0):
            raise ValueError(f"weight {weight} is not finite and positive, nor 0")
        store_double(&self._at(slot).weight, weight)
        bump(&self._fleet.table.generation)

    def weight(self, int32_t slot):
        return load_double(&self._at(slot).weight)

    def healthy(self, int32_t slot):
        return bool(load8(&self._at(slot).healthy))

    def draining(self, int32_t slot):
        return bool(load8(&self._at(slot).draining))

    def asleep(self, int32_t slot):
        return bool(load8(&self._at(slot).asleep))

    def healthy_since(self, int32_t slot):
        """When it last recovered; -inf where it never fell."""
        return load_double(&self._at(slot).seen.healthy_since)

    def note_check(self, int32_t slot, double now):
        store_double(&self._at(slot).seen.last_check, now)

    def note_activity(self, int32_t slot, double now):
        store_double(&self._at(slot).seen.last_activity, now)

    def note_ttft(self, int32_t slot, double seconds):
        """Average in a time to first token. A sample counts 1/8, as in RFC 6298's smoothed round trip."""
        cdef Slot *entry = self._at(slot)
        enter(&self._fleet, slot)
        entry.seen.ttft_s += (seconds - entry.seen.ttft_s) / (8.0 if entry.seen.ttft_s >= 0.0 else 1.0)
        leave(&self._fleet, slot)

    def note_load(
        self, int32_t slot, uint32_t running, uint32_t waiting, double kv_use, double now, uint32_t own=0
    ):
        """What the server says of its load. `own`: our requests there when it was asked."""
        self._at(slot)
        book_load(&self._fleet, slot, running, waiting, kv_use, now, own)

    def report(self, int32_t slot):
        """What was seen of it, all at one moment. Before the first sample `ttft_s` is -1, a time -inf."""
        cdef Slot *entry = self._at(slot)
        cdef Seen seen
        enter(&self._fleet, slot)
        seen = entry.seen
        leave(&self._fleet, slot)
        return seen
