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
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>
    #include <sys/mman.h>
    #include <unistd.h>

    #define OCTO_KEY_BYTES 500
    #define OCTO_BOUNDS 32
    typedef struct { pthread_mutex_t lock; uint32_t entries, cells; } octo_head;
    typedef struct { uint32_t first, width, length; char key[OCTO_KEY_BYTES]; } octo_entry;
    static void *octo_map(size_t size) {
        void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        return at == MAP_FAILED ? NULL : at;
    }

    /* Robust, rather than the holder's pid: a dead worker that nobody reaped still answers kill(pid, 0). */
    static int octo_lock_init(octo_head *head) {
        pthread_mutexattr_t how;
        int bad = pthread_mutexattr_init(&how);
        if (!bad) bad = pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
        if (!bad) bad = pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
        return bad ? bad : pthread_mutex_init(&head->lock, &how);
    }
    static void octo_lock(octo_head *head) {
        /* Every step under the lock leaves the table readable, so a dead holder's state is taken as it is. */
        if (pthread_mutex_lock(&head->lock) == EOWNERDEAD) pthread_mutex_consistent(&head->lock);
    }
    static void octo_unlock(octo_head *head) { pthread_mutex_unlock(&head->lock); }

    /* Readers are in other processes: relaxed atomics, so that none sees half of a double. */
    static inline void octo_add(double *cell, double x) {
        x += *cell; __atomic_store(cell, &x, __ATOMIC_RELAXED);
    }
    static inline double octo_get(double *cell) {
        double x; __atomic_load(cell, &x, __ATOMIC_RELAXED); return x;
    }
    static inline uint32_t octo_peek(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
    static inline void octo_put(uint32_t *word, uint32_t x) { __atomic_store_n(word, x, __ATOMIC_RELEASE); }
    """
    enum: OCTO_KEY_BYTES
    enum: OCTO_BOUNDS
    ctypedef struct octo_head:
        uint32_t entries  # table slots ever used
        uint32_t cells  # cells of a row given out
    ctypedef struct octo_entry:
        uint32_t first  # its first cell in each row
        uint32_t width  # cells
        uint32_t length  # bytes of key
        char *key
    void *octo_map(size_t size)
    int munmap(void *at, size_t size)
    int getpid()
    int octo_lock_init(octo_head *head)
    void octo_lock(octo_head *head)
    void octo_unlock(octo_head *head)
    void octo_add(double *cell, double x)
    double octo_get(double *cell)
    uint32_t octo_peek(const uint32_t *word)
    void octo_put(uint32_t *word, uint32_t x)

KEY_BYTES = OCTO_KEY_BYTES


cdef inline size_t _lines(size_t size) noexcept:
    return (size + 63) & ~<size_t>63  # whole cache lines


cdef uint64_t _digest(const char *key, size_t length) noexcept:
    """FNV-1a; never 0, which marks a free slot. A collision costs a memcmp, nothing else."""
    cdef uint64_t value = 0xcbf29ce484222325ULL
    cdef size_t at
    for at in range(length):
        value = (value ^ <unsigned char>key[at]) * 0x100000001b3ULL
    return value or 1


cdef class Cells:
    """`capacity` cells for each of `workers` processes, and one row more for the process that made it."""

    cdef void *at
    cdef size_t size
    cdef octo_head *head
    cdef uint64_t *digests  # apart from the entries, so that a look-up scans 8 bytes a label set
    cdef octo_entry *entries
    cdef uint32_t *held  # [row][slot]: handles that the row's process has on the slot
    cdef double *cells  # [row][cell]
    cdef double *mine  # this process's row of cells
    cdef uint32_t *my_held  # and of holds
    cdef uint32_t row, rows
    cdef size_t stride, held_stride  # elements from row to row
    cdef int pid  # of the process that `row` belongs to
    cdef readonly uint32_t capacity, workers

    def __cinit__(self, uint32_t capacity, uint32_t workers):
        if not 1 <= capacity <= 1 << 24 or not 1 <= workers <= 4096:
            raise ValueError(f"capacity {capacity} must be 1..{1 << 24}, workers {workers} 1..4096")
        cdef size_t head = _lines(sizeof(octo_head))
        cdef size_t digests = _lines(capacity * sizeof(uint64_t))
        cdef size_t entries = _lines(capacity * sizeof(octo_entry))
        self.held_stride = _lines(capacity * sizeof(uint32_t)) // sizeof(uint32_t)
        self.stride = _lines(capacity * sizeof(double)) // sizeof(double)
        self.capacity = capacity
        self.workers = workers
        self.rows = workers + 1
        # Untouched pages cost nothing: the table has room for the worst case, one cell a label set.
        self.size = head + digests + entries + self.rows * (self.held_stride * 4 + self.stride * 8)
        self.at = octo_map(self.size)
        if self.at == NULL:
            raise MemoryError(f"no {self.size} bytes of shared memory for metrics")
        self.head = <octo_head *>self.at
        if octo_lock_init(self.head):
            raise OSError("this system has no robust mutex for shared memory")
        self.digests = <uint64_t *>(<char *>self.at + head)
        self.entries = <octo_entry *>(<char *>self.digests + digests)
        self.held = <uint32_t *>(<char *>self.entries + entries)
        self.cells = <double *>(self.held + self.rows * self.held_stride)
        self._take(workers)  # the last row, for who does not bind

    def __dealloc__(self):
        if self.at != NULL:
            munmap(self.at, self.size)

    cdef void _take(self, uint32_t row) noexcept:
        self.row = row
        self.mine = self.cells + row * self.stride
        self.my_held = self.held + row * self.held_stride
        self.pid = getpid()

    def bind(self, uint32_t worker):
        """From now on this process writes row `worker`; what the row's dead predecessor held is free.
        Handles made before the fork stay good."""
        if worker >= self.workers:
            raise ValueError(f"worker {worker} must be 0..{self.workers - 1}")
        octo_lock(self.head)
        if worker != self.row:
            memcpy(self.held + worker * self.held_stride, self.my_held, self.held_stride * sizeof(uint32_t))
        octo_unlock(self.head)
        self._take(worker)

    cdef bint _free(self, uint32_t slot) noexcept:
        cdef uint32_t row
        for row in range(self.rows):
            if octo_peek(self.held + row * self.held_stride + slot):
                return False
        return True

    cdef int64_t _new(self, uint32_t width) noexcept:
        """A slot of `width` zeroed cells, its digest still 0, or -1. One that no process holds is used again
        only when the table is full: till then the counts of an endpoint that was removed stay."""
        cdef uint32_t slot, row, first = self.head.cells
        if self.capacity - first >= width:
            slot = self.head.entries
            self.head.cells = first + width  # first: who dies after this loses cells, but never shares them
            self.entries[slot].first = first
            self.entries[slot].width = width
            octo_put(&self.head.entries, slot + 1)
            return slot
        for slot in range(self.head.entries):
            if self.entries[slot].width == width and self._free(slot):
                self.digests[slot] = 0
                for row in range(self.rows):
                    memset(self.cells + row * self.stride + self.entries[slot].first, 0, width * 8)
                return slot
        return -1

    cdef int64_t _claim(self, const char *key, size_t length, uint32_t width) noexcept:
        """The slot of `key`, now held once more by this process, or -1 when there is no room."""
        cdef uint64_t digest = _digest(key, length)
        cdef int64_t slot, found = -1
        if length > OCTO_KEY_BYTES:
            return -1
        octo_lock(self.head)
        for slot in range(self.head.entries):
            if (
                self.digests[slot] == digest and self.entries[slot].length == length
                and self.entries[slot].width == width and memcmp(self.entries[slot].key, key, length) == 0
            ):
                found = slot
                break
        if found < 0:
            found = self._new(width)
            if found >= 0:
                memcpy(self.entries[found].key, key, length)
                self.entries[found].length = <uint32_t>length
                self.digests[found] = digest  # last: a slot without a digest is nobody's
        if found >= 0:
            self.my_held[found] += 1
        octo_unlock(self.head)
        return found

    cdef void _release(self, int64_t slot) noexcept:
        # No lock: the word is this process's own. A fork that did not `bind` has no say in its parent's.
        if getpid() == self.pid and self.my_held[slot]:
            octo_put(self.my_held + slot, self.my_held[slot] - 1)

    cdef double _sum(self, uint32_t cell) noexcept:
        cdef double total = 0.0
        cdef uint32_t row
        for row in range(self.rows):
            total += octo_get(self.cells + row * self.stride + cell)
        return total

    def counter(self, bytes key not None):
        """The counter of `key`, or None: the table is full, or the key longer than KEY_BYTES."""
        cdef Counter handle = Counter.__new__(Counter)
        return handle if handle._bind(self, key, 1) else None

    def histogram(self, bytes key not None, tuple bounds not None):
        """The histogram of `key` with rising upper `bounds` (inclusive, then +Inf), or None likewise."""
        if not 1 <= len(bounds) <= OCTO_BOUNDS:
            raise ValueError(f"{len(bounds)} bounds; allowed: 1..{OCTO_BOUNDS}")
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
        cdef char key[OCTO_KEY_BYTES]
        cdef double sums[OCTO_BOUNDS + 2]
        cdef uint32_t slot, length, width, at
        for slot in range(octo_peek(&self.head.entries)):
            # One slot at a time: a slot may be given to another key between two, never within one.
            octo_lock(self.head)
            if self.digests[slot] == 0:
                octo_unlock(self.head)
                continue
            length = self.entries[slot].length
            width = self.entries[slot].width
            memcpy(key, self.entries[slot].key, length)
            for at in range(width):
                sums[at] = self._sum(self.entries[slot].first + at)
            octo_unlock(self.head)
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
        self.slot = cells._claim(key, len(key), width)
        if self.slot < 0:
            return False
        self.cells = cells
        self.first = cells.entries[self.slot].first
        return True


@final
@no_gc
cdef class Counter(_Handle):
    """A number that only rises. Made by `Cells.counter`."""

    def inc(self):
        octo_add(self.cells.mine + self.first, 1.0)

    def add(self, double amount):
        """Adds `amount`; one that is negative or not a number is left out, since a counter never falls."""
        if amount > 0.0 and isfinite(amount):
            octo_add(self.cells.mine + self.first, amount)

    def total(self):
        """The sum over all workers, dead ones included."""
        return self.cells._sum(self.first)


@final
@no_gc
cdef class Histogram(_Handle):
    """Counts of observations by upper bound, and their sum. Made by `Cells.histogram`."""

    cdef uint32_t buckets  # the +Inf bucket included
    cdef double limits[OCTO_BOUNDS]

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
        octo_add(cell + low, 1.0)
        octo_add(cell + self.buckets, value)

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
                    octo_add(cell + at, <double>count[at])
            if isfinite(total):
                octo_add(cell + self.buckets, total)
        finally:
            PyBuffer_Release(&view)
