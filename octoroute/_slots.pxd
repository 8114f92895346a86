"""The shared table of endpoints: layout, robust mutexes, atomic reads and writes, repair of a slot.

Inline C: `_state.pyx` changes the table, `_pick.pyx` reads loads, `_limits.pyx` has its mutexes and
atomics from here. Plain data without pointers: several processes see this memory.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <stdint.h>

    typedef struct {
        double healthy_since, last_check, last_activity, ttft_s, load_at, kv_use;
        uint32_t failures, successes, running, waiting;
    } octo_seen;

    typedef struct {
        pthread_mutex_t mutex;
        unsigned char digest[16];
        double weight;
        octo_seen seen;
        uint32_t in_flight, others, configured_capacity, learnt_capacity;
        uint8_t used, healthy, draining, asleep, kind;
    } __attribute__((aligned(64))) octo_slot;

    typedef struct {
        pthread_mutex_t mutex;
        uint64_t generation;
        double prober_until;
        int32_t prober;
    } __attribute__((aligned(64))) octo_table;

    static int octo_mutex_init(pthread_mutex_t *mutex) {
        pthread_mutexattr_t attributes;
        int failed = pthread_mutexattr_init(&attributes);
        if (failed)
            return failed;
        failed = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
        if (!failed)
            failed = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        if (!failed)
            failed = pthread_mutex_init(mutex, &attributes);
        pthread_mutexattr_destroy(&attributes);
        return failed;
    }

    /* 1 where the last holder died inside: the caller repairs what the mutex guards. */
    static inline int octo_lock(pthread_mutex_t *mutex) {
        if (__builtin_expect(pthread_mutex_lock(mutex) == EOWNERDEAD, 0)) {
            pthread_mutex_consistent(mutex);
            return 1;
        }
        return 0;
    }

    static inline double octo_load_double(const double *from) {
        double value;
        __atomic_load(from, &value, __ATOMIC_ACQUIRE);
        return value;
    }

    static inline void octo_store_double(double *to, double value) {
        __atomic_store(to, &value, __ATOMIC_RELEASE);
    }

    #define octo_load(from) __atomic_load_n((from), __ATOMIC_ACQUIRE)
    #define octo_store(to, value) __atomic_store_n((to), (value), __ATOMIC_RELEASE)
    #define octo_bump(to) __atomic_add_fetch((to), 1, __ATOMIC_ACQ_REL)
    """
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct Seen "octo_seen":
        double healthy_since, last_check, last_activity, ttft_s, load_at, kv_use
        uint32_t failures, successes, running, waiting
    ctypedef struct Slot "octo_slot":
        pthread_mutex_t mutex
        uint8_t digest[16]
        double weight                # in place of the configured one; 0 = none
        Seen seen
        uint32_t in_flight, configured_capacity, learnt_capacity
        uint32_t others              # that are not ours, when the server was last asked
        uint8_t used, healthy, draining, asleep, kind
    ctypedef struct Table "octo_table":
        pthread_mutex_t mutex
        uint64_t generation
        double prober_until
        int32_t prober
    int init_mutex "octo_mutex_init"(pthread_mutex_t *mutex) noexcept
    int lock "octo_lock"(pthread_mutex_t *mutex) noexcept
    int unlock "pthread_mutex_unlock"(pthread_mutex_t *mutex) noexcept
    uint8_t load8 "octo_load"(const uint8_t *value) noexcept
    uint32_t load32 "octo_load"(const uint32_t *value) noexcept
    uint64_t load64 "octo_load"(const uint64_t *value) noexcept
    void store8 "octo_store"(uint8_t *to, uint8_t value) noexcept
    void store32 "octo_store"(uint32_t *to, uint32_t value) noexcept
    double load_double "octo_load_double"(const double *value) noexcept
    void store_double "octo_store_double"(double *to, double value) noexcept
    uint64_t bump "octo_bump"(uint64_t *value) noexcept


cdef struct Fleet:
    int32_t slots
    int32_t workers
    Table *table
    Slot *slot
    uint8_t *full                # the gates
    uint32_t *in_flight          # [worker][slot]
    uint32_t *claims             # [worker][slot]: how many owners the slot has in that process


cdef inline void set_gate(Fleet *fleet, int32_t slot) noexcept:
    cdef Slot *entry = &fleet.slot[slot]
    cdef uint32_t capacity = entry.configured_capacity or entry.learnt_capacity
    store8(&fleet.full[slot], capacity > 0 and entry.in_flight >= capacity)


cdef inline void enter(Fleet *fleet, int32_t slot) noexcept:
    """Lock a slot; where its last holder died inside, make total and gate agree with the columns again."""
    cdef uint32_t total = 0
    cdef int32_t worker
    if lock(&fleet.slot[slot].mutex):
        for worker in range(fleet.workers):
            total += fleet.in_flight[worker * fleet.slots + slot]
        store32(&fleet.slot[slot].in_flight, total)
        set_gate(fleet, slot)
        bump(&fleet.table.generation)          # it may have changed a flag and not told


cdef inline void leave(Fleet *fleet, int32_t slot) noexcept:
    unlock(&fleet.slot[slot].mutex)


cdef inline bint has_owner(Fleet *fleet, int32_t slot) noexcept:
    cdef int32_t worker
    for worker in range(fleet.workers):
        if load32(&fleet.claims[worker * fleet.slots + slot]):
            return True
    return False


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
    if not entry.used:
        init_mutex(&entry.mutex)
    if not entry.used or memcmp(entry.digest, digest, 16) != 0:
        forget(fleet, slot)
        memcpy(entry.digest, digest, 16)
        store8(&entry.used, 1)
    fleet.claims[worker * fleet.slots + slot] += 1


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
    own = max(own, entry.in_flight)
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
    return <double>load32(&entry.in_flight) + others


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
