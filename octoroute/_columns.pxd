"""Who has which place in a table that the workers share, and what each worker has there: a column for each.

A place is had by an identity of 16 bytes, for as long as any process claims it or has requests there. Each
worker writes its own columns; they are the truth, the total of a place follows from them.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memcmp

from octoroute._robust cimport load32, store32

cdef extern from *:
    """
    typedef struct {
        unsigned char digest[16];
        uint32_t in_flight;
        uint8_t used;
    } octo_place;
    """
    ctypedef struct Place "octo_place":
        uint8_t digest[16]
        uint32_t in_flight           # of all workers
        uint8_t used


cdef struct Columns:
    int32_t slots
    int32_t workers
    uint8_t *places                  # the first of them; each begins a larger record
    size_t stride                    # of those records
    uint32_t *in_flight              # [worker][slot]
    uint32_t *claims                 # [worker][slot]: how many owners the slot has in that process


cdef inline size_t bytes_of(int32_t slots, int32_t workers) noexcept:
    """What the columns take, beside the places."""
    return 2 * sizeof(uint32_t) * <size_t>workers * <size_t>slots


cdef inline void lay_out(Columns *columns, void *places, size_t stride, void *at) noexcept:
    """`at` is where the columns begin. Slots and workers are known."""
    columns.places = <uint8_t *>places
    columns.stride = stride
    columns.in_flight = <uint32_t *>at
    columns.claims = columns.in_flight + <size_t>columns.workers * <size_t>columns.slots


cdef inline Place *place_at(const Columns *columns, int32_t slot) noexcept:
    return <Place *>(columns.places + <size_t>slot * columns.stride)


cdef inline uint32_t *in_flight_of(const Columns *columns, int32_t worker, int32_t slot) noexcept:
    return &columns.in_flight[<size_t>worker * <size_t>columns.slots + slot]


cdef inline uint32_t *claims_of(const Columns *columns, int32_t worker, int32_t slot) noexcept:
    return &columns.claims[<size_t>worker * <size_t>columns.slots + slot]


cdef inline bint has_owner(const Columns *columns, int32_t slot) noexcept:
    cdef int32_t worker
    for worker in range(columns.workers):
        if load32(claims_of(columns, worker, slot)):
            return True
    return False


cdef inline int32_t find(const Columns *columns, const uint8_t *digest, int32_t slot) noexcept:
    """The slot of an identity, looked for from `slot` on, else one that is free for it; -1 where none is."""
    cdef int32_t found = -1
    cdef Place *place
    for _ in range(columns.slots):
        place = place_at(columns, slot)
        if place.used and memcmp(place.digest, digest, 16) == 0:
            return slot
        if found < 0 and place.in_flight == 0 and not has_owner(columns, slot):
            found = slot
        if not place.used:
            break
        slot = (slot + 1) % columns.slots
    return found


cdef inline void change(const Columns *columns, int32_t slot, int32_t worker, int32_t by) noexcept:
    """Count requests of a worker at a place, which is locked."""
    cdef Place *place = place_at(columns, slot)
    in_flight_of(columns, worker, slot)[0] += by
    store32(&place.in_flight, place.in_flight + by)


cdef inline void recount(const Columns *columns, int32_t slot) noexcept:
    """Make the total of a place agree with its columns again."""
    cdef int32_t worker
    cdef uint32_t total = 0
    for worker in range(columns.workers):
        total += in_flight_of(columns, worker, slot)[0]
    store32(&place_at(columns, slot).in_flight, total)
