"""The shared table of endpoints: layout, repair of a slot, what is in more than one step.

Inline C: `_state.pyx` changes the table, `_pick.pyx` reads loads. Plain data without pointers: several
processes see this memory.

Slots of one server are full together: its requests are counted beside those of each slot, so that nothing
has to look at the others when one comes or goes. All slots of a server are walked only where what it takes,
or who is in its chain, changes, and after a death.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from octoroute._columns cimport Columns, Place, change, claims_of, recount
from octoroute._robust cimport (
    bump, load8, load32, load_double, lock, pthread_mutex_t, store8, store32, store_double, unlock,
)
from octoroute._servers cimport Server, find_server

cdef extern from *:
    """
    typedef struct {
        double healthy_since, last_check, last_activity, ttft_s, load_at, kv_use;
        uint32_t failures, successes, running, waiting;
    } octo_seen;

    typedef struct {
        octo_place place;
        int32_t server, next;
        double weight;
        octo_seen seen;
        uint32_t others, configured_capacity, learnt_capacity;
        uint8_t moves, healthy, draining, asleep, kind;
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
        int32_t server
        int32_t next                 # in its server's chain: a slot's number + 1, 0 is none
        double weight                # in place of the configured one; 0 = none
        Seen seen
        uint32_t configured_capacity, learnt_capacity
        uint32_t others              # that are not ours, when the server was last asked
        uint8_t moves                # from one chain to another: it may be in either, or none
        uint8_t healthy, draining, asleep, kind
    ctypedef struct Table "octo_table":
        pthread_mutex_t mutex
        uint64_t generation
        double prober_until
        int32_t prober


cdef struct Fleet:
    Table *table
    Slot *slot
    Server *server               # as many as slots
    uint8_t *full                # the gates: of each slot, then of each server
    Columns columns


# Whose gate a change has opened.
cdef enum:
    OWN = 1
    SERVERS = 2                  # which has other slots too


cdef inline int32_t server_gate(const Fleet *fleet, int32_t slot) noexcept:
    return fleet.columns.slots + fleet.slot[slot].server


cdef inline bint is_full(const Fleet *fleet, int32_t slot) noexcept:
    return load8(&fleet.full[slot]) or load8(&fleet.full[server_gate(fleet, slot)])


cdef inline bint put_gate(uint8_t *gate, bint full) noexcept:
    """True where that opened it."""
    cdef bint before = gate[0]
    store8(gate, full)
    return before and not full


cdef inline int set_gates(Fleet *fleet, int32_t slot) noexcept:
    """Close or open the gates of a slot and its server, as counts and capacities go: what that opened."""
    cdef Slot *entry = &fleet.slot[slot]
    cdef Server *server = &fleet.server[entry.server]
    cdef int opened = 0
    if put_gate(&fleet.full[slot], 0 < entry.configured_capacity <= entry.place.in_flight):
        opened = OWN
    if put_gate(&fleet.full[server_gate(fleet, slot)], 0 < server.most <= server.in_flight):
        opened |= SERVERS if server.first > 0 and fleet.slot[server.first - 1].next > 0 else OWN
    return opened


cdef inline void measure(Fleet *fleet, int32_t at) noexcept:
    """What a locked server has and takes, from all its slots.

    A server that told how many requests it takes gets no more, whatever its endpoints are called. Where the
    config has a higher number for one of them, that goes before it.
    """
    cdef Server *server = &fleet.server[at]
    cdef Slot *entry
    cdef uint32_t total = 0, learnt = 0, configured = 0
    cdef int32_t link = server.first
    while link > 0:
        entry = &fleet.slot[link - 1]
        total += entry.place.in_flight
        learnt = max(learnt, entry.learnt_capacity)
        configured = max(configured, entry.configured_capacity)
        link = entry.next
    store32(&server.in_flight, total)
    server.most = max(learnt, configured) if learnt > 0 else 0


cdef inline void enter(Fleet *fleet, int32_t slot) noexcept:
    """Lock a slot, with all of its server; where the last holder died inside, make totals and gates agree
    with the columns again.
    """
    cdef int32_t at = fleet.slot[slot].server, link
    if lock(&fleet.server[at].mutex):
        link = fleet.server[at].first
        while link > 0:
            recount(&fleet.columns, link - 1)
            link = fleet.slot[link - 1].next
        measure(fleet, at)
        link = fleet.server[at].first
        while link > 0:
            set_gates(fleet, link - 1)
            link = fleet.slot[link - 1].next
        bump(&fleet.table.generation)          # it may have changed a flag and not told


cdef inline void leave(Fleet *fleet, int32_t slot) noexcept:
    unlock(&fleet.server[fleet.slot[slot].server].mutex)


cdef inline int count(Fleet *fleet, int32_t slot, int32_t worker, int32_t by) noexcept:
    """Count requests of a worker, whose slot is locked. The answer is that of set_gates."""
    cdef Server *server = &fleet.server[fleet.slot[slot].server]
    change(&fleet.columns, slot, worker, by)
    store32(&server.in_flight, server.in_flight + by)
    return set_gates(fleet, slot)


cdef inline void cut_out(Fleet *fleet, int32_t slot) noexcept:
    """Take a slot that has no requests out of its server's chain, where it may not be any more."""
    cdef int32_t at = fleet.slot[slot].server
    cdef int32_t *link = &fleet.server[at].first
    enter(fleet, slot)
    while link[0] > 0 and link[0] - 1 != slot:
        link = &fleet.slot[link[0] - 1].next
    if link[0] > 0:
        link[0] = fleet.slot[slot].next
    measure(fleet, at)
    leave(fleet, slot)


cdef inline void put_in(Fleet *fleet, int32_t slot) noexcept:
    cdef Server *server = &fleet.server[fleet.slot[slot].server]
    enter(fleet, slot)
    fleet.slot[slot].next = server.first
    server.first = slot + 1
    leave(fleet, slot)


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
    measure(fleet, entry.server)
    set_gates(fleet, slot)
    leave(fleet, slot)


cdef inline void take(
    Fleet *fleet, int32_t slot, const uint8_t *digest, const uint8_t *server, int32_t begin, int32_t worker
) noexcept:
    """Count one more owner, first making the slot `digest`'s own, which is always of one server. That is
    looked for from `begin` on. The table is locked.
    """
    cdef Slot *entry = &fleet.slot[slot]
    if not entry.place.used or entry.moves or memcmp(entry.place.digest, digest, 16) != 0:
        if entry.place.used or entry.moves:
            entry.moves = 1
            cut_out(fleet, slot)
        entry.server = find_server(fleet.server, fleet.columns.slots, server, begin)
        entry.moves = 1
        put_in(fleet, slot)
        forget(fleet, slot)
        memcpy(entry.place.digest, digest, 16)
        store8(&entry.place.used, 1)
        entry.moves = 0
    claims_of(&fleet.columns, worker, slot)[0] += 1


cdef inline bint fail(Fleet *fleet, int32_t slot, uint32_t threshold) noexcept:
    """Count a failure in a row. True where it was the one that made the slot unhealthy."""
    cdef Slot *entry = &fleet.slot[slot]
    cdef bint fell
    enter(fleet, slot)
    entry.seen.successes = 0
    store32(&entry.seen.failures, entry.seen.failures + 1)
    fell = entry.healthy and entry.seen.failures >= threshold
    if fell:
        store8(&entry.healthy, 0)
        bump(&fleet.table.generation)
    leave(fleet, slot)
    return fell


cdef inline bint succeed(Fleet *fleet, int32_t slot, uint32_t needed, double now) noexcept:
    """Count a success in a row. True where it was the one that healed the slot."""
    cdef Slot *entry = &fleet.slot[slot]
    cdef bint rose
    enter(fleet, slot)
    store32(&entry.seen.failures, 0)
    store32(&entry.seen.successes, entry.seen.successes + 1)
    rose = not entry.healthy and entry.seen.successes >= needed
    if rose:
        entry.seen.successes = 0
        store_double(&entry.seen.healthy_since, now)
        store8(&entry.healthy, 1)
        bump(&fleet.table.generation)
    leave(fleet, slot)
    return rose


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
    own = max(own, fleet.server[entry.server].in_flight)
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
    return <double>load32(&fleet.server[entry.server].in_flight) + others


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
