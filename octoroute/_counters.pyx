"""Metric cells in anonymous shared memory: each worker writes its own row, any worker reads the sum of all.

Map `Cells` before the workers fork; each child then calls `bind(worker)` once. An increment is a load and a
store in the process's own row: no lock. A row outlives its process: a killed worker's counts stay, and its
successor adds to them. One live process per row; threads of a process are kept apart by the GIL.
A label set is a byte string (the key). The table from key to cells is shared, so that labels seen later get
the same cells in every worker; its lock is freed when the holder dies. What a key means is not known here.
"""

from cython cimport final, no_gc
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.math cimport isfinite
from libc.stdint cimport int64_t, uint32_t
from libc.string cimport memcpy

from octoroute._cells cimport KEY_BYTES as LONGEST_KEY, Grid, bytes_of, claim, lay_out
from octoroute._robust cimport init_mutex, load32, lock, store32, unlock

cdef extern from *:
    """
    #include <sys/mman.h>
    #include <unistd.h>

    #define OCTO_BOUNDS 32
    static void *octo_map(size_t size) {
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        return at == MAP_FAILED ? NULL : at;
    }

    /* Readers are in other processes: relaxed atomics, so that none sees half of a double. */
    static inline void octo_add(double *cell, double x) {
        x += *cell; __atomic_store(cell, &x, __ATOMIC_RELAXED);
    }
    static inline double octo_get(double *cell) {
        double x; __atomic_load(cell, &x, __ATOMIC_RELAXED); return x;
    }
    """
    enum: MOST_BOUNDS "OCTO_BOUNDS"
    void *map "octo_map"(size_t size)
    int munmap(void *at, size_t size)
    int getpid()
    void add "octo_add"(double *cell, double x)
    double get "octo_get"(double *cell)

KEY_BYTES = LONGEST_KEY


cdef class Cells:
    """`capacity` cells for each of `workers` processes, and one row more for the process that made it."""

    cdef void *at
    cdef size_t size
    cdef Grid grid
    cdef double *mine            # this process's row of cells
    cdef uint32_t row
    cdef int pid                 # of the process that `row` belongs to
    cdef readonly uint32_t capacity, workers

    def __cinit__(self, uint32_t capacity, uint32_t workers):
        if not 1 <= capacity <= 1 << 24 or not 1 <= workers <= 4096:
            raise ValueError(f"capacity {capacity} must be 1..{1 << 24}, workers {workers} 1..4096")
        self.capacity = self.grid.capacity = capacity
        self.workers = workers
        self.grid.rows = workers + 1
        self.size = bytes_of(&self.grid)
        self.at = map(self.size)
        if self.at == NULL:
            raise MemoryError(f"no {self.size} bytes of shared memory for metrics")
        lay_out(&self.grid, self.at)
        if init_mutex(&self.grid.table.mutex):
            raise OSError("this system has no robust process-shared mutexes")
        self._take(workers)      # the last row, for who does not bind

    def __dealloc__(self):
        if self.at != NULL:
            munmap(self.at, self.size)

    cdef void _take(self, uint32_t row) noexcept:
        self.row = row
        self.mine = self.grid.cells + row * self.grid.stride
        self.pid = getpid()

    cdef uint32_t *_held(self, uint32_t row) noexcept:
        return self.grid.held + row * self.grid.held_stride

    def bind(self, uint32_t worker):
        """From now on this process writes row `worker`; what the row's dead predecessor held is free.
        Handles made before the fork stay good."""
        if worker >= self.workers:
            raise ValueError(f"worker {worker} must be 0..{self.workers - 1}")
        lock(&self.grid.table.mutex)
        if worker != self.row:
            memcpy(self._held(worker), self._held(self.row), self.grid.held_stride * sizeof(uint32_t))
        unlock(&self.grid.table.mutex)
        self._take(worker)

    cdef void _release(self, int64_t slot) noexcept:
        # No lock: the word is this process's own. A fork that did not `bind` has no say in its parent's.
        cdef uint32_t *held = self._held(self.row) + slot
        if getpid() == self.pid and held[0]:
            store32(held, held[0] - 1)

    cdef double _sum(self, uint32_t cell) noexcept:
        cdef double total = 0.0
        cdef uint32_t row
        for row in range(self.grid.rows):
            total += get(self.grid.cells + row * self.grid.stride + cell)
        return total

    def counter(self, bytes key not None):
        """The counter of `key`, or None: the table is full, or the key longer than KEY_BYTES."""
        cdef Counter handle = Counter.__new__(Counter)
        return handle if handle._bind(self, key, 1) else None

    def histogram(self, bytes key not None, tuple bounds not None):
        """The histogram of `key` with rising upper `bounds` (inclusive, then +Inf), or None likewise."""
        if not 1 <= len(bounds) <= MOST_BOUNDS:
            raise ValueError(f"{len(bounds)} bounds; allowed: 1..{MOST_BOUNDS}")
        cdef Histogram handle = Histogram.__new__(Histogram)
        cdef uint32_t at
        for at in range(len(bounds)):
            handle.limits[at] = bounds[at]
            if not isfinite(handle.limits[at]) or (at and handle.limits[at] <= handle.limits[at - 1]):
                raise ValueError(f"bounds {bounds} must be finite and rise")
        handle.buckets = len(bounds) + 1
        return handle if handle._bind(self, key, handle.buckets + 1) else None

    def read(self):
        """[(key, cells summed over rows)] in order of first use. A histogram has a count for each
        bucket, not cumulative, then the sum of what was observed."""
        cdef list found = []
        cdef char key[LONGEST_KEY]
        cdef double sums[MOST_BOUNDS + 2]
        cdef uint32_t slot, length, width, at
        for slot in range(load32(&self.grid.table.entries)):
            # One slot at a time: a slot may be given to another key between two, never within one.
            lock(&self.grid.table.mutex)
            if self.grid.digests[slot] == 0:
                unlock(&self.grid.table.mutex)
                continue
            length = self.grid.entries[slot].length
            width = self.grid.entries[slot].width
            memcpy(key, self.grid.entries[slot].key, length)
            for at in range(width):
                sums[at] = self._sum(self.grid.entries[slot].first + at)
            unlock(&self.grid.table.mutex)
            found.append((PyBytes_FromStringAndSize(key, length), [sums[at] for at in range(width)]))
        return found


@no_gc  # it refers to the cells only, which refer to nothing
cdef class _Handle:
    """One process's hold on one slot: as long as it lives, the slot belongs to its key."""

    cdef Cells cells
    cdef int64_t slot
    cdef uint32_t first

    def __init__(self):
        raise TypeError("Cells makes them")

    def __dealloc__(self):
        if self.cells is not None:
            self.cells._release(self.slot)

    cdef bint _bind(self, Cells cells, bytes key, uint32_t width) noexcept:
        self.slot = claim(&cells.grid, cells.row, key, len(key), width)
        if self.slot < 0:
            return False
        self.cells = cells
        self.first = cells.grid.entries[self.slot].first
        return True


@final
@no_gc
cdef class Counter(_Handle):
    """A number that only rises. Made by `Cells.counter`."""

    def inc(self):
        add(self.cells.mine + self.first, 1.0)

    def add(self, double amount):
        """Adds `amount`; one that is negative or not a number is left out, since a counter never falls."""
        if amount > 0.0 and isfinite(amount):
            add(self.cells.mine + self.first, amount)

    def total(self):
        """The sum over all workers, dead ones included."""
        return self.cells._sum(self.first)


@final
@no_gc
cdef class Histogram(_Handle):
    """Counts of observations by upper bound, and their sum. Made by `Cells.histogram`."""

    cdef uint32_t buckets  # the +Inf bucket included
    cdef double limits[MOST_BOUNDS]

    @property
    def bounds(self):
        return tuple([self.limits[at] for at in range(self.buckets - 1)])

    def observe(self, double value):
        """Counts `value` in the first bucket whose bound is not below it. NaN and infinities are left out."""
        cdef uint32_t low = 0, high = self.buckets - 1, middle
        cdef double *cell = self.cells.mine + self.first
        if not isfinite(value):
            return
        while low < high:
            middle = (low + high) >> 1
            if value <= self.limits[middle]:
                high = middle
            else:
                low = middle + 1
        add(cell + low, 1.0)
        add(cell + self.buckets, value)

    def merge(self, counts, double total):
        """Adds a local histogram: `counts` is a contiguous buffer of native uint32, one for each bound and
        one for +Inf (as `observe` would choose them), `total` the sum of what they count."""
        cdef Py_buffer view
        cdef const uint32_t *count
        cdef uint32_t at
        cdef double *cell = self.cells.mine + self.first
        PyObject_GetBuffer(counts, &view, PyBUF_SIMPLE)
        try:
            if view.len != <Py_ssize_t>(self.buckets * sizeof(uint32_t)):
                raise ValueError(f"{view.len} bytes of counts; this histogram has {self.buckets} of 4 bytes")
            count = <const uint32_t *>view.buf
            for at in range(self.buckets):
                if count[at]:
                    add(cell + at, <double>count[at])
            if isfinite(total):
                add(cell + self.buckets, total)
        finally:
            PyBuffer_Release(&view)
