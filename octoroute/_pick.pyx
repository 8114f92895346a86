"""Picks that go by load: the lighter of two, and consistent hashing with bounded loads.

Owns: a group's hash ring, and how its endpoints' loads in the shared table are weighed.
Must not: know what a hash was made of. It is told who is eligible, and reads gates and counts by itself.

Bounded loads: V. Mirrokni, M. Thorup, M. Zadimoghaddam, Consistent Hashing with Bounded Loads, 2016.
"""

cimport cython
from libc.math cimport INFINITY, ceil
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport bsearch, calloc, free, malloc, qsort
from libc.string cimport memcpy

from octoroute._prefix cimport WAYS, PrefixIndex
from octoroute._robust cimport load8
from octoroute._slots cimport pressure_at, requests_at, server_gate
from octoroute._state cimport FleetState
from octoroute._xoshiro cimport splitmix

cdef enum:
    POINTS = 64                      # on the ring, of an endpoint of average weight
    MOST_POINTS = 1024               # of any endpoint

cdef enum:                           # why a choice
    HELD, OWNED, SPILLED, WHYS

cdef double BOUND = 1.25             # no endpoint gets more than this times its share


cdef struct Member:                  # an endpoint
    double weight
    int32_t slot
    int32_t server                   # where its gate is
    int32_t priority
    uint8_t eligible
    uint8_t excluded                 # zero between calls


cdef struct Group:                   # the endpoints of one priority
    int32_t priority
    int32_t start                    # where it begins in `order`
    int32_t size
    int32_t first_point              # where its ring begins
    int32_t points


cdef struct Point:
    uint64_t at
    int32_t endpoint


cdef struct Place:
    int32_t slot
    int32_t endpoint


cdef int by_at(const void *a, const void *b) noexcept nogil:
    cdef uint64_t left = (<const Point *>a).at, right = (<const Point *>b).at
    return (left > right) - (left < right)


cdef int by_slot(const void *a, const void *b) noexcept nogil:
    return (<const Place *>a).slot - (<const Place *>b).slot


@cython.final
cdef class Loads:
    """The endpoints of a group with their loads; an endpoint is its index in `slots`.

    Nothing may be chosen before the first `rebuild`, nor by hash before the first `make_ring`.
    """

    cdef FleetState _state
    cdef PrefixIndex _index
    cdef const uint8_t[::1] _gates
    cdef double _fresh_since
    cdef int32_t _count
    cdef int32_t _group_count
    cdef Member *_members
    cdef Group *_groups              # highest priority first
    cdef int32_t *_order             # endpoints, highest priority first
    cdef Place *_places              # by slot
    cdef Point *_points
    cdef uint64_t _tally[WHYS]

    def __cinit__(self, FleetState state not None, slots, priorities, PrefixIndex index=None):
        cdef int32_t i
        cdef Group *group
        self._state = state
        self._index = index
        self._gates = state.gates
        self._fresh_since = INFINITY
        self._count = <int32_t>len(slots)
        if len(priorities) != self._count:
            raise ValueError("slots and priorities must have the same length")
        # One more than needed: calloc(0) may answer NULL.
        self._members = <Member *>calloc(self._count + 1, sizeof(Member))
        self._groups = <Group *>calloc(self._count + 1, sizeof(Group))
        self._order = <int32_t *>calloc(self._count + 1, sizeof(int32_t))
        self._places = <Place *>calloc(self._count + 1, sizeof(Place))
        if not (self._members and self._groups and self._order and self._places):
            raise MemoryError
        for i in range(self._count):
            state._at(slots[i])
            self._members[i].slot = slots[i]
            self._members[i].server = server_gate(&state._fleet, slots[i])
            self._members[i].priority = priorities[i]
            self._places[i] = Place(slots[i], i)
        qsort(self._places, self._count, sizeof(Place), by_slot)
        group = self._groups - 1      # the first endpoint opens the first group
        for i, endpoint in enumerate(sorted(range(self._count), key=lambda index: -priorities[index])):
            self._order[i] = endpoint
            if i == 0 or group.priority != priorities[endpoint]:
                group += 1
                group.priority = priorities[endpoint]
                group.start = i
            group.size += 1
        self._group_count = <int32_t>(group - self._groups) + 1

    def __dealloc__(self):
        free(self._members)
        free(self._groups)
        free(self._order)
        free(self._places)
        free(self._points)

    def rebuild(self, eligible, weights):
        """Who may be chosen: a byte per endpoint, 0 = no; and at what weight, finite and positive."""
        cdef const uint8_t[::1] mask = eligible
        if mask.shape[0] != self._count or len(weights) != self._count:
            raise ValueError(f"rebuild needs exactly {self._count} values")
        for i in range(self._count):
            self._members[i].eligible = mask[i] != 0
            self._members[i].weight = weights[i]

    def trust_since(self, double fresh_since):
        """What servers said of their load before this moment counts no longer (CLOCK_MONOTONIC, seconds)."""
        self._fresh_since = fresh_since

    def make_ring(self, weights):
        """Place the endpoints on the ring of their priority, by identity: alike in all workers and gateways.

        To be made again when configured weights change. Not for a weight that ramps up: places would wander
        with it, and the bound keeps its load small anyway.
        """
        cdef double average
        cdef int32_t i, endpoint, points = 0, wanted
        cdef uint64_t halves[2]
        cdef Group *group
        cdef Point *made
        if len(weights) != self._count:
            raise ValueError(f"the ring needs exactly {self._count} weights")
        counts = [0] * self._count
        for j in range(self._group_count):
            group = &self._groups[j]
            members = [self._order[i] for i in range(group.start, group.start + group.size)]
            average = max([weights[endpoint] for endpoint in members])
            average *= sum([weights[endpoint] / average for endpoint in members]) / len(members)
            for endpoint in members:
                wanted = <int32_t>max(1.0, min(MOST_POINTS, POINTS * (weights[endpoint] / average)))
                counts[endpoint] = wanted
                points += wanted
        made = <Point *>malloc((points + 1) * sizeof(Point))
        if made == NULL:
            raise MemoryError
        points = 0
        for i in range(self._group_count):
            group = &self._groups[i]
            group.first_point = points
            for endpoint in self._order[group.start:group.start + group.size]:
                memcpy(halves, self._state._fleet.slot[self._members[endpoint].slot].place.digest, 16)
                halves[0] ^= splitmix(&halves[1])
                for _ in range(<int32_t>counts[endpoint]):
                    made[points] = Point(splitmix(&halves[0]), endpoint)
                    points += 1
            group.points = points - group.first_point
            qsort(made + group.first_point, group.points, sizeof(Point), by_at)
        free(self._points)
        self._points = made

    def lighter(self, int32_t first, int32_t second):
        """Which of two has less to do for its weight; `first` if `second` is -1 or of another priority."""
        cdef Member *one
        cdef Member *other
        if not (0 <= first < self._count and second < self._count):
            raise IndexError(f"endpoint {first} or {second} of {self._count}")
        if second < 0:
            return first
        one = &self._members[first]
        other = &self._members[second]
        if other.priority != one.priority:
            return first
        return second if self._pressure(other) < self._pressure(one) else first

    cdef inline double _pressure(self, Member *member) noexcept:
        return pressure_at(&self._state._fleet, member.slot, self._fresh_since) / member.weight

    cdef inline bint _open(self, Member *member) noexcept:
        return (
            member.eligible and not member.excluded
            and not load8(&self._gates[member.slot]) and not load8(&self._gates[member.server])
        )

    def choose(self, bytes hashes, excluded=()):
        """The endpoint for a request with these hashes (prompt_hashes), -1 when none is left.

        Of the highest priority that has an endpoint left: the one that was sent the longest of the
        beginnings, or the owner of the first hash on the ring; the least loaded where that is over its bound.
        """
        cdef const uint64_t *words = <const uint64_t *><const char *>hashes
        cdef int32_t n = <int32_t>(len(hashes) // <Py_ssize_t>sizeof(uint64_t)), i, chosen = -1
        cdef Py_ssize_t endpoint
        if n < 1 or self._points == NULL or self._index is None:
            raise ValueError("a choice needs a hash, a ring, and an index")
        for endpoint in excluded:
            if not 0 <= endpoint < self._count:
                raise IndexError(f"endpoint {endpoint} of {self._count}")
        for endpoint in excluded:
            self._members[endpoint].excluded = 1
        for i in range(self._group_count):
            chosen = self._choose(&self._groups[i], words, n)
            if chosen >= 0:
                break
        for endpoint in excluded:
            self._members[endpoint].excluded = 0
        return chosen

    cdef int32_t _choose(self, Group *group, const uint64_t *words, int32_t n) noexcept:
        cdef double total = 1.0, weight = 0.0
        cdef int32_t i, chosen, why = HELD
        cdef bint left = False
        cdef Member *member
        for i in range(group.start, group.start + group.size):
            member = &self._members[self._order[i]]
            if member.eligible:
                total += requests_at(&self._state._fleet, member.slot, self._fresh_since)
                weight += member.weight
                left = left or self._open(member)
        if not left:
            return -1
        chosen = self._holder(group, words, n)
        if chosen < 0:
            why = OWNED
            chosen = self._owner(group, words[0])
            if chosen < 0:
                return -1
        member = &self._members[chosen]
        # Mirrokni et al.: the bound is of all requests, this one included, and rounded up.
        if requests_at(&self._state._fleet, member.slot, self._fresh_since) >= ceil(
            BOUND * total * (member.weight / weight)
        ):
            why = SPILLED
            chosen = self._least(group, words[0])
        self._tally[why] += 1
        return chosen

    cdef int32_t _holder(self, Group *group, const uint64_t *words, int32_t n) noexcept:
        """Of those that were sent the longest beginning that any was, the one with the least to do; -1."""
        cdef int32_t slots[WAYS]
        cdef int32_t i, j, found, endpoint, best = -1
        cdef double pressure, least = INFINITY
        cdef Place key
        cdef Place *place
        cdef Member *member
        for i in range(n - 1, 0, -1):
            found = self._index.find(words[i], slots)
            for j in range(found):
                key.slot = slots[j]
                place = <Place *>bsearch(&key, self._places, self._count, sizeof(Place), by_slot)
                if place == NULL:
                    continue
                endpoint = place.endpoint
                member = &self._members[endpoint]
                if member.priority != group.priority or not self._open(member):
                    continue
                pressure = self._pressure(member)
                if pressure < least:
                    least = pressure
                    best = endpoint
            if best >= 0:
                break
        return best

    cdef int32_t _owner(self, Group *group, uint64_t hash) noexcept:
        """The first endpoint that is left, from the hash on clockwise. There is one."""
        cdef Point *ring = self._points + group.first_point
        cdef int32_t low = 0, high = group.points, middle, i
        while low < high:
            middle = (low + high) // 2
            if ring[middle].at < hash:
                low = middle + 1
            else:
                high = middle
        for i in range(group.points):
            if self._open(&self._members[ring[(low + i) % group.points].endpoint]):
                return ring[(low + i) % group.points].endpoint
        return self._least(group, hash)      # a gate that closed meanwhile was the last one

    cdef int32_t _least(self, Group *group, uint64_t hash) noexcept:
        """The endpoint with the least to do; of equal ones the first behind a place that the hash gives."""
        cdef int32_t at = <int32_t>(hash % <uint64_t>group.size), best = -1
        cdef double pressure, least = INFINITY, weight = 1.0
        cdef Member *member
        for _ in range(group.size):
            member = &self._members[self._order[group.start + at]]
            if self._open(member):
                pressure = pressure_at(&self._state._fleet, member.slot, self._fresh_since)
                # Multiplied crosswise: a division for each of 1,000 would be most of the time.
                if pressure * weight < least * member.weight:
                    least = pressure
                    weight = member.weight
                    best = self._order[group.start + at]
            at = at + 1 if at + 1 < group.size else 0
        return best

    def note(self, bytes hashes, int32_t endpoint):
        """The endpoint is sent a prompt with these hashes now."""
        cdef const uint64_t *words = <const uint64_t *><const char *>hashes
        cdef Py_ssize_t i
        if self._index is None or not 0 <= endpoint < self._count:
            raise IndexError(f"endpoint {endpoint} of {self._count}, or no index")
        for i in range(1, len(hashes) // <Py_ssize_t>sizeof(uint64_t)):
            self._index.put(words[i], self._members[endpoint].slot)

    def take_tally(self):
        """How many choices went to a holder, the ring's owner, the least loaded, since the last asking."""
        cdef int32_t i
        told = tuple([self._tally[i] for i in range(WHYS)])
        for i in range(WHYS):
            self._tally[i] = 0
        return told
