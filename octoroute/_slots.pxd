"""The shared table of endpoints: layout, repair of a slot, what is in more than one step.

Inline C: `_state.pyx` changes the table, `_pick.pyx` reads loads. Plain data without pointers: several
processes see this memory.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from octoroute._columns cimport Columns, Place, claims_of, recount
from octoroute._robust cimport (
    bump, init_mutex, load8, load32, load_double, lock, pthread_mutex_t, store8, store32, store_double,
    unlock,
)

cdef extern from *:
    """
    typedef struct {
        double healthy_since, last_check, last_activity, ttft_s, load_at, kv_use;
        uint32_t failures, successes, running, waiting;
    } octo_seen;

    typedef struct {
        octo_place place;
        pthread_mutex_t mutex;
        double weight;
        octo_seen seen;
        uint32_t others, configured_capacity, learnt_capacity;
        uint8_t healthy, draining, asleep, kind;
    } __attribute__((aligned(64))) octo_slot;

    typedef struct {
        pthread_mutex_t mutex;
        uint64_t generation;
        double prober_until;
        int32_t prober;
    } __attribute__((aligned(64))) octo_table;
    """
    ctypedef struct Seen "octo_seen":
        double healthy_since, last_check, last_activity, ttft_s, load_at, kv_use
        uint32_t failures, successes, running, waiting
    ctypedef struct Slot "octo_slot":
        Place place
        pthread_mutex_t mutex
        double weight                # in place of the configured one; 0 = none
        Seen seen
        uint32_t configured_capacity, learnt_capacity
        uint32_t others              # that are not ours, when the server was last asked
        uint8_t healthy, draining, asleep, kind
    ctypedef struct Table "octo_table":
        pthread_mutex_t mutex
        uint64_t generation
        double prober_until
        int32_t prober


cdef struct Fleet:
    Table *table
    Slot *slot
    uint8_t *full                # the gates
    Columns columns


cdef inline bint set_gate(Fleet *fleet, int32_t slot) noexcept:
    """Close or open a gate, as count and capacity have it. True where that opened it."""
    cdef Slot *entry = &fleet.slot[slot]
    cdef uint32_t capacity = entry.configured_capacity or entry.learnt_capacity
    cdef bint full = capacity > 0 and entry.place.in_flight >= capacity, before = fleet.full[slot]
    store8(&fleet.full[slot], full)
    return before and not full


cdef inline void enter(Fleet *fleet, int32_t slot) noexcept:
    """Lock a slot; where its last holder died inside, make total and gate agree with the columns again."""
    if lock(&fleet.slot[slot].mutex):
        recount(&fleet.columns, slot)
        set_gate(fleet, slot)
        bump(&fleet.table.generation)          # it may have changed a flag and not told


cdef inline void leave(Fleet *fleet, int32_t slot) noexcept:
    unlock(&fleet.slot[slot].mutex)


cdef inline void forget(Fleet *fleet, int32_t slot) noexcept:
    """Make a slot as that of a server never seen; only its requests in flight stay."""
    cdef Slot *entry = &fleet.slot[slot]
    enter(fleet, slot)
    entry.configured_capacity = entry.learnt_capacity = 0
    entry.weight = 0.0
    entry.seen = Seen(
        healthy_since=-INFINITY, last_check=-INFINITY, last_activity=-INFINITY, load_at=-INFINITY,
        ttft_s=-1.0, kv_use=0.0, failures=0, successes=0, running=0, waiting=0,
    )
    entry.others = 0
    entry.draining = entry.asleep = entry.kind = 0
    entry.healthy = 1
    set_gate(fleet, slot)
    leave(fleet, slot)


cdef inline void take(Fleet *fleet, int32_t slot, const uint8_t *digest, int32_t worker) noexcept:
    """Count one more owner, first making the slot `digest`'s own. The table is locked."""
    cdef Slot *entry = &fleet.slot[slot]
    if not entry.place.used:
        init_mutex(&entry.mutex)
    if not entry.place.used or memcmp(entry.place.digest, digest, 16) != 0:
        forget(fleet, slot)
        memcpy(entry.place.digest, digest, 16)
        store8(&entry.place.used, 1)
    claims_of(&fleet.columns, worker, slot)[0] += 1


cdef inline bint switch_flag(Fleet *fleet, uint8_t *flag, bint on) noexcept:
    """Set a flag that tables depend on. True where that changed it."""
    if load8(flag) == on:
        return False
    store8(flag, on)
    bump(&fleet.table.generation)
    return True


cdef inline void book_load(
    Fleet *fleet, int32_t slot, uint32_t running, uint32_t waiting, double kv_use, double now, uint32_t own
) noexcept:
    """Of what the server has, what is beyond ours is others': our own are known better, and at each moment.

    One of ours that ended since it was asked counts as ours, else it would be a ghost until the next look.
    """
    cdef Slot *entry = &fleet.slot[slot]
    enter(fleet, slot)
    own = max(own, entry.place.in_flight)
    store32(&entry.others, running + waiting - own if running + waiting > own else 0)
    entry.seen.running = running
    store32(&entry.seen.waiting, waiting)
    store_double(&entry.seen.kv_use, kv_use)
    store_double(&entry.seen.load_at, now)
    leave(fleet, slot)


cdef inline bint is_available(const Slot *entry) noexcept:
    return load8(&entry.healthy) and not load8(&entry.draining) and not load8(&entry.asleep)


cdef inline double requests_at(const Fleet *fleet, int32_t slot, double fresh_since) noexcept:
    """Requests at a server: ours as of now, and others' unless the last look at it is older than that."""
    cdef const Slot *entry = &fleet.slot[slot]
    cdef uint32_t others = load32(&entry.others)
    if others > 0 and load_double(&entry.seen.load_at) < fresh_since:
        others = 0
    return <double>load32(&entry.place.in_flight) + others


cdef inline double pressure_at(const Fleet *fleet, int32_t slot, double fresh_since) noexcept:
    """What one more request would find there. Whoever waits counts twice: it is work, and a full server.

    A full KV cache doubles the whole: vLLM then drops requests that run, and computes their prompts again.
    """
    cdef const Slot *entry = &fleet.slot[slot]
    cdef double pressure = requests_at(fleet, slot, fresh_since) + 1.0, kv_use
    if load_double(&entry.seen.load_at) >= fresh_since:
        kv_use = load_double(&entry.seen.kv_use)
        pressure = (pressure + load32(&entry.seen.waiting)) * (1.0 + kv_use * kv_use)
    return pressure
