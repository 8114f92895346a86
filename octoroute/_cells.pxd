"""The shared table of label sets and of the cells that each process has for them: layout, and who holds what.

Inline C for `_counters.pyx` alone. Plain data without pointers, in memory that several processes see. Every
step under the lock leaves the table readable, so what a dead holder left is taken as it is.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from octoroute._robust cimport load32, lock, pthread_mutex_t, store32, unlock

cdef extern from *:
    """
    #include <pthread.h>
    #include <stdint.h>
    #define OCTO_KEY_BYTES 500
    typedef struct { pthread_mutex_t mutex; uint32_t entries, cells; } octo_table;
    typedef struct { uint32_t first, width, length; char key[OCTO_KEY_BYTES]; } octo_entry;
    """
    enum: KEY_BYTES "OCTO_KEY_BYTES"
    ctypedef struct Table "octo_table":
        pthread_mutex_t mutex
        uint32_t entries             # slots ever used
        uint32_t cells               # cells of a row given out
    ctypedef struct Entry "octo_entry":
        uint32_t first               # its first cell in each row
        uint32_t width               # cells
        uint32_t length              # bytes of key
        char *key


cdef struct Grid:
    Table *table
    uint64_t *digests                # apart from the entries, so that a look-up scans 8 bytes a label set
    Entry *entries
    uint32_t *held                   # [row][slot]: handles that the row's process has on the slot
    double *cells                    # [row][cell]
    uint32_t rows
    uint32_t capacity
    size_t held_stride               # elements from row to row
    size_t stride


cdef inline size_t lines(size_t size) noexcept:
    return (size + 63) & ~<size_t>63     # whole cache lines


cdef inline size_t bytes_of(Grid *grid) noexcept:
    """What it takes, and from here on its strides. Rows and capacity are known.

    Untouched pages cost nothing: the table has room for the worst case, one cell a label set.
    """
    grid.held_stride = lines(grid.capacity * sizeof(uint32_t)) // sizeof(uint32_t)
    grid.stride = lines(grid.capacity * sizeof(double)) // sizeof(double)
    return (
        lines(sizeof(Table)) + lines(grid.capacity * sizeof(uint64_t)) + lines(grid.capacity * sizeof(Entry))
        + grid.rows * (grid.held_stride * sizeof(uint32_t) + grid.stride * sizeof(double))
    )


cdef inline void lay_out(Grid *grid, void *at) noexcept:
    """`at` is where it begins."""
    grid.table = <Table *>at
    grid.digests = <uint64_t *>(<char *>at + lines(sizeof(Table)))
    grid.entries = <Entry *>(<char *>grid.digests + lines(grid.capacity * sizeof(uint64_t)))
    grid.held = <uint32_t *>(<char *>grid.entries + lines(grid.capacity * sizeof(Entry)))
    grid.cells = <double *>(grid.held + grid.rows * grid.held_stride)


cdef inline uint64_t digest_of(const char *key, size_t length) noexcept:
    """FNV-1a; never 0, which marks a free slot. A collision costs a memcmp, nothing else."""
    cdef uint64_t value = 0xcbf29ce484222325ULL
    cdef size_t at
    for at in range(length):
        value = (value ^ <unsigned char>key[at]) * 0x100000001b3ULL
    return value or 1


cdef inline bint is_held(const Grid *grid, uint32_t slot) noexcept:
    cdef uint32_t row
    for row in range(grid.rows):
        if load32(grid.held + row * grid.held_stride + slot):
            return True
    return False


cdef inline int64_t new_slot(Grid *grid, uint32_t width) noexcept:
    """A slot of `width` zeroed cells, its digest still 0, or -1. One that no process holds is used again
    only when the table is full: till then the counts of an endpoint that was removed stay.
    """
    cdef uint32_t slot, row, first = grid.table.cells
    if grid.capacity - first >= width:
        slot = grid.table.entries
        grid.table.cells = first + width     # first: who dies after this loses cells, but never shares them
        grid.entries[slot].first = first
        grid.entries[slot].width = width
        store32(&grid.table.entries, slot + 1)
        return slot
    for slot in range(grid.table.entries):
        if grid.entries[slot].width == width and not is_held(grid, slot):
            grid.digests[slot] = 0
            for row in range(grid.rows):
                memset(grid.cells + row * grid.stride + grid.entries[slot].first, 0, width * sizeof(double))
            return slot
    return -1


cdef inline int64_t claim(Grid *grid, uint32_t row, const char *key, size_t length, uint32_t width) noexcept:
    """The slot of `key`, now held once more by the process of `row`, or -1 when there is no room."""
    cdef uint64_t digest = digest_of(key, length)
    cdef int64_t slot, found = -1
    if length > KEY_BYTES:
        return -1
    lock(&grid.table.mutex)
    for slot in range(grid.table.entries):
        if (
            grid.digests[slot] == digest and grid.entries[slot].length == length
            and grid.entries[slot].width == width and memcmp(grid.entries[slot].key, key, length) == 0
        ):
            found = slot
            break
    if found < 0:
        found = new_slot(grid, width)
        if found >= 0:
            memcpy(grid.entries[found].key, key, length)
            grid.entries[found].length = <uint32_t>length
            grid.digests[found] = digest     # last: a slot without a digest is nobody's
    if found >= 0:
        grid.held[row * grid.held_stride + found] += 1
    unlock(&grid.table.mutex)
    return found
