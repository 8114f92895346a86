"""Weighted draws over priority groups, O(1) and without an allocation.

Owns: the alias tables of one target's endpoints and the generator behind their draws.
Must not: know what health, draining or capacity mean. It is told who is eligible, and reads gate bytes.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.math cimport isfinite
from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free

from octoroute._alias cimport Column, fill_table
from octoroute._random cimport Random, is_copy, seed_anew, seed_with, watch_forks
from octoroute._robust cimport load8
from octoroute._xoshiro cimport spread, xoshiro

cdef enum:
    REDRAWS = 8

cdef double TWO_64 = 18446744073709551616.0
cdef double TWO_MINUS_53 = 1.0 / 9007199254740992.0
cdef uint8_t OPEN_GATE = 0

if watch_forks() != 0:
    raise MemoryError


cdef struct Member:              # an endpoint
    double weight
    int32_t slot
    int32_t server
    uint8_t eligible
    uint8_t excluded             # zero between calls


cdef struct Group:               # the endpoints of one priority
    int32_t priority
    int32_t start                # where it begins in the arrays that are sorted by priority
    int32_t size
    int32_t columns              # its eligible endpoints


class FatalSelectionError(Exception):
    """A priority group holds weights that validation never lets through: memory, or our code, is broken.

    Never retried, never answered by another choice. `members` holds every (name, weight) of the group.
    """

    def __init__(self, label, priority, total, members):
        listed = ", ".join(f"({name!r}, {weight!r})" for name, weight in members)
        super().__init__(
            f"MEMORY CORRUPTION DETECTED: tier {label!r}, priority {priority}: total weight is {total!r}, "
            f"weights must be finite and positive; members (name, weight): [{listed}]"
        )
        self.label = label
        self.priority = priority
        self.total = total
        self.members = members


def xoshiro_words(tuple state, int count):
    """`count` words of the generator from four words of state, to hold against published vectors."""
    cdef uint64_t s[4]
    for i in range(4):
        s[i] = state[i]
    return [xoshiro(s) for _ in range(count)]


@cython.final
@cython.no_gc                    # it refers to names and memory only, which refer to nothing
cdef class Selector:
    """Draws one of `names` by priority, then by weight. An endpoint is its index in `names`.

    `gates` is a buffer of bytes and `slots[i]` endpoint i's place in it, `servers[i]` (by default the same)
    that of its server: 1 in either means full, not drawable now.
    Nothing is drawable before the first `rebuild`.
    """

    cdef readonly object label
    cdef tuple _names
    cdef object _fatal           # what every draw raises until a rebuild succeeds
    cdef int32_t _count
    cdef int32_t _group_count
    cdef bint _has_gates
    cdef Random _random
    cdef Py_buffer _gates_view
    cdef const uint8_t *_gates
    cdef Member *_members
    cdef Group *_groups          # highest priority first
    cdef int32_t *_order         # endpoints, highest priority first
    cdef Column *_columns
    cdef double *_scaled         # scratch of a rebuild
    cdef int32_t *_stack         # scratch of a rebuild and of a scan
    cdef int32_t *_marked        # whom this draw excludes

    def __cinit__(self, label, names, weights, priorities, gates=None, slots=None, seed=None, servers=None):
        cdef int32_t i, endpoint
        cdef Group *group
        self.label = label
        self._names = tuple(names)
        self._count = <int32_t>len(self._names)
        if len(weights) != self._count or len(priorities) != self._count:
            raise ValueError("names, weights and priorities must have the same length")
        # One more than needed: calloc(0) may answer NULL.
        self._members = <Member *>calloc(self._count + 1, sizeof(Member))
        self._groups = <Group *>calloc(self._count + 1, sizeof(Group))
        self._order = <int32_t *>calloc(self._count + 1, sizeof(int32_t))
        self._columns = <Column *>calloc(self._count + 1, sizeof(Column))
        self._scaled = <double *>calloc(self._count + 1, sizeof(double))
        self._stack = <int32_t *>calloc(self._count + 1, sizeof(int32_t))
        self._marked = <int32_t *>calloc(self._count + 1, sizeof(int32_t))
        if not (self._members and self._groups and self._order and self._columns
                and self._scaled and self._stack and self._marked):
            raise MemoryError
        self._gates = &OPEN_GATE      # every slot is 0 then: a draw needs no branch for "no gates"
        if gates is not None:
            self._open_gates(gates, slots, slots if servers is None else servers)
        for i in range(self._count):
            self._members[i].weight = weights[i]
        group = self._groups - 1      # the first endpoint opens the first group
        for i, endpoint in enumerate(sorted(range(self._count), key=lambda index: -priorities[index])):
            self._order[i] = endpoint
            if i == 0 or group.priority != priorities[endpoint]:
                group += 1
                group.priority = priorities[endpoint]
                group.start = i
            group.size += 1
        self._group_count = <int32_t>(group - self._groups) + 1
        self.reseed(seed)

    def __dealloc__(self):
        if self._has_gates:
            PyBuffer_Release(&self._gates_view)
        free(self._members)
        free(self._groups)
        free(self._order)
        free(self._columns)
        free(self._scaled)
        free(self._stack)
        free(self._marked)

    cdef int _open_gates(self, gates, slots, servers) except -1:
        cdef int32_t i
        if slots is None or len(slots) != self._count or len(servers) != self._count:
            raise ValueError("gates need one slot per endpoint")
        PyObject_GetBuffer(gates, &self._gates_view, PyBUF_SIMPLE)
        self._has_gates = True
        for i in range(self._count):
            for place in (slots[i], servers[i]):
                if not 0 <= place < self._gates_view.len:
                    raise ValueError(f"slot {place} lies outside of the {self._gates_view.len} gates")
            self._members[i].slot = slots[i]
            self._members[i].server = servers[i]
        self._gates = <const uint8_t *>self._gates_view.buf
        return 0

    def reseed(self, seed=None):
        """Restart the generator: from `seed` (unsigned 64-bit, for repeatable draws) or the OS.

        An unseeded Selector does so by itself in a forked child; a seeded one goes on with its sequence.
        """
        if seed is None:
            seed_anew(&self._random)
        else:
            seed_with(&self._random, seed)

    def rebuild(self, eligible, weights=None):
        """Make the tables anew. `eligible`: a byte per endpoint, 0 = no; `weights`: None keeps the old.

        Every eligible weight must be finite and positive, as validation has it. A sum beyond the largest
        double is legal (1,000 endpoints of 1e306): a group is divided by its largest weight, then summed.
        Anything else raises FatalSelectionError, here and at each draw until a rebuild succeeds; one corrupt
        group below a sound one is enough, because corruption is not waited for.
        """
        cdef const uint8_t[::1] mask = eligible
        cdef int32_t i
        if mask.shape[0] != self._count or (weights is not None and len(weights) != self._count):
            raise ValueError(f"rebuild needs exactly {self._count} values")
        for i in range(self._group_count):
            self._groups[i].columns = 0      # whatever fails below, nothing is drawn from old tables
        for i in range(self._count):
            self._members[i].eligible = mask[i] != 0
            if weights is not None:
                self._members[i].weight = weights[i]
        self._fatal = None
        for i in range(self._group_count):
            self._check(&self._groups[i])
        for i in range(self._group_count):
            self._build(&self._groups[i])

    cdef int _check(self, Group *group) except -1:
        cdef Member *member
        cdef bint sound = True
        members = []
        for i in range(group.start, group.start + group.size):
            member = &self._members[self._order[i]]
            sound = sound and (not member.eligible or (isfinite(member.weight) and member.weight > 0.0))
        if not sound:
            for endpoint in self._order[group.start:group.start + group.size]:
                if self._members[endpoint].eligible:
                    members.append((self._names[endpoint], self._members[endpoint].weight))
            self._fatal = self.label, group.priority, sum([weight for _, weight in members]), members
            raise FatalSelectionError(*self._fatal)
        return 0

    cdef void _build(self, Group *group) noexcept:
        cdef Column *columns = self._columns + group.start
        cdef int32_t i, endpoint, n = 0
        for i in range(group.start, group.start + group.size):
            endpoint = self._order[i]
            if self._members[endpoint].eligible:
                columns[n].own = endpoint
                self._scaled[n] = self._members[endpoint].weight
                n += 1
        fill_table(columns, n, self._scaled, self._stack)
        group.columns = n

    def draw(self, excluded=None):
        """The index of one endpoint, -1 when none is left. `excluded`: indices that must not come, or None.

        P(i) is i's weight over the weights of those left in the highest priority group that has any left.
        """
        cdef int32_t drawn, marked
        if is_copy(&self._random):
            seed_anew(&self._random)
        if excluded is None:
            drawn = self._draw()
        else:
            marked = self._mark(excluded)
            drawn = self._draw()
            self._unmark(marked)
        if drawn < 0 and self._fatal is not None:
            raise FatalSelectionError(*self._fatal)
        return drawn

    cdef int32_t _mark(self, excluded) except -1:
        cdef int32_t marked = 0
        cdef Py_ssize_t endpoint
        try:
            for endpoint in excluded:
                if not 0 <= endpoint < self._count:
                    raise IndexError(f"endpoint {endpoint} of {self._count}")
                if not self._members[endpoint].excluded:
                    self._members[endpoint].excluded = 1
                    self._marked[marked] = <int32_t>endpoint
                    marked += 1
        except BaseException:
            self._unmark(marked)
            raise
        return marked

    cdef void _unmark(self, int32_t marked) noexcept:
        cdef int32_t i
        for i in range(marked):
            self._members[self._marked[i]].excluded = 0

    cdef inline bint _closed(self, int32_t endpoint) noexcept:
        cdef const Member *member = &self._members[endpoint]
        return member.excluded | load8(self._gates + member.slot) | load8(self._gates + member.server)

    cdef int32_t _draw(self) noexcept:
        cdef Group *group
        cdef Column *column
        cdef int32_t i, drawn
        cdef uint64_t inside
        for i in range(self._group_count):
            group = &self._groups[i]
            if group.columns == 0:
                continue
            # Rejection keeps the conditional distribution exact; the scan after it has the same one.
            for _ in range(REDRAWS):
                column = self._columns + group.start
                column += spread(xoshiro(self._random.state), <uint64_t>group.columns, &inside)
                drawn = column.own if inside < column.threshold else column.alias
                if not self._closed(drawn):
                    return drawn
            drawn = self._scan(group)
            if drawn >= 0:
                return drawn
        return -1

    cdef int32_t _scan(self, Group *group) noexcept:
        """Lists first: gates may change meanwhile. Scales anew: all left may be tiny beside the others."""
        cdef int32_t *left = self._stack
        cdef int32_t i, n = 0
        cdef double largest = 0.0, total = 0.0, aim
        for i in range(group.start, group.start + group.columns):
            if not self._closed(self._columns[i].own):
                left[n] = self._columns[i].own
                largest = max(largest, self._members[left[n]].weight)
                n += 1
        for i in range(n):
            total += self._members[left[i]].weight / largest
        aim = total * (<double>(xoshiro(self._random.state) >> 11) * TWO_MINUS_53)
        for i in range(n):
            aim -= self._members[left[i]].weight / largest
            if aim < 0.0:
                return left[i]
        return left[n - 1] if n > 0 else -1      # rounding may leave `aim` at zero

    def remaining(self, excluded=None):
        """(eligible endpoints not excluded, those of them whose gate is open): why a draw gave -1."""
        cdef int32_t i, untried = 0, free_now = 0, marked = 0
        if excluded is not None:
            marked = self._mark(excluded)
        for i in range(self._count):
            if self._members[i].eligible and not self._members[i].excluded:
                untried += 1
                free_now += not self._closed(i)
        self._unmark(marked)
        return untried, free_now

    def probabilities(self):
        """P(i) of a draw without exclusions and with open gates, summed over the present table."""
        cdef Group *group
        cdef Column *column
        chances = [0.0] * self._count
        for i in range(self._group_count):
            group = &self._groups[i]
            if group.columns > 0:
                for j in range(group.start, group.start + group.columns):
                    column = &self._columns[j]
                    share = <double>column.threshold / TWO_64
                    chances[column.own] += share / group.columns
                    chances[column.alias] += (1.0 - share) / group.columns
                break
        return chances
