"""Who waits for a place at an endpoint of one tier, and whose turn it is.

Owns the order. Tenants take turns by the tokens that each has had (shares.py): who asks for more does not get
more. Within a tenant importance, with ageing: a request goes before all that come a bounded time after it,
whatever they are.

Work-conserving: who can't run, because what it waits for is full, is passed over and keeps its turn. When the
queue is full, the tenant that has most in it gives way (longest queue drop), so that nobody can shut the door
on others.

Reads no clock: `now` is monotonic seconds. What an endpoint is, it does not know.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import count
from math import inf
from operator import attrgetter
from typing import Final, Generic, Literal, TypeVar

from octoroute.admission.board import NO_TURN, Turn
from octoroute.admission.service_rate import ServiceRate
from octoroute.admission.shares import NOBODY, Shares

Reason = Literal["max_waiting", "max_waiting_bytes", "max_wait_seconds"]

# How long each importance lets others go before, as a share of the longest wait: low ones still get their
# turn before they would have to be given up.
YIELDS: Final = {"high": 0.0, "normal": 1 / 6, "low": 1 / 2}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a queue, as in [queue] of the config."""

    max_waiting: int = 1000
    max_wait_s: float = 30.0
    max_bytes: int = 268_435_456


@dataclass(eq=False, slots=True)
class Waiter:
    """One request that waits. `key` is what it waits for: where one can't run, none of the same key can.
    `row` is its tenant's among the shares, `tokens` what it is going to cost it, `size` the bytes that it
    holds, `came` when the request came.
    """

    key: Hashable
    tenant: str = ""
    row: int = NOBODY
    importance: str = "normal"
    tokens: int = 1
    size: int = 0
    came: float = inf
    # Set by the queue.
    since: float = 0.0
    charged: int = 0
    rank: tuple[float, int] = field(default=(0.0, 0), repr=False)


W = TypeVar("W", bound=Waiter)
_rank = attrgetter("rank")


class _Line(Generic[W]):
    """What one tenant has waiting: by key, each sorted by rank."""

    __slots__ = ("by_key", "size", "waiting")

    def __init__(self) -> None:
        self.by_key: dict[Hashable, list[W]] = {}
        self.waiting = 0
        self.size = 0

    def head(self, blocked: Collection[Hashable]) -> W | None:
        """Whose turn it is of those whose key is not blocked."""
        heads = [waiters[0] for key, waiters in self.by_key.items() if key not in blocked]
        return min(heads, key=_rank) if heads else None

    def last(self) -> W:
        return max((waiters[-1] for waiters in self.by_key.values()), key=_rank)

    def add(self, waiter: W) -> None:
        insort(self.by_key.setdefault(waiter.key, []), waiter, key=_rank)
        self.waiting += 1
        self.size += waiter.size

    def remove(self, waiter: W) -> None:
        waiters = self.by_key[waiter.key]
        del waiters[bisect_left(waiters, waiter.rank, key=_rank)]
        if not waiters:
            del self.by_key[waiter.key]
        self.waiting -= 1
        self.size -= waiter.size


class Queue(Generic[W]):
    """`waiting` and `size` are how many wait, and their bytes."""

    def __init__(self, shares: Shares, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.waiting = 0
        self.size = 0
        self._shares = shares
        self._numbers = count()
        self._lines: dict[str, _Line[W]] = {}  # by tenant
        # By arrival.
        self._waiters: dict[int, W] = {}
        self._rate = ServiceRate()

    def __iter__(self) -> Iterator[W]:
        """All that wait, by arrival."""
        return iter(list(self._waiters.values()))

    def __contains__(self, waiter: W) -> bool:
        return self._waiters.get(waiter.rank[1]) is waiter

    def next(self) -> W | None:
        """Whose turn it is, if it can run. Looks at each tenant."""
        return self._next(())

    def turn_of(self, waiter: Waiter | None) -> Turn:
        """The turn of one that waits."""
        return NO_TURN if waiter is None else (self._shares.start(waiter.row), waiter.rank[0])

    def join(self, waiter: W, now: float) -> list[tuple[W, Reason]]:
        """Puts it into the queue. The answer is who has to leave for it, itself perhaps."""
        waiter.since = now
        waiter.rank = (self.age(waiter, now), next(self._numbers))
        if not self.waiting:
            self._rate.begin(now)
        self._add(waiter)
        dropped: list[tuple[W, Reason]] = []
        while (reason := self._excess()) is not None:
            last = self._fattest(waiter.tenant, reason).last()
            self.remove(last)
            dropped.append((last, reason))
            if last is waiter:
                # The others would leave in vain.
                for other, _ in dropped[:-1]:
                    self._add(other)
                self._waiters = dict(sorted(self._waiters.items()))
                return dropped[-1:]
        return dropped

    def serve(self, place: Callable[[W], bool], now: float) -> None:
        """Gives out what is free: asks `place` of each whose turn it is, until none that is left can run."""
        blocked: set[Hashable] = set()
        while (waiter := self._next(blocked)) is not None:
            if place(waiter):
                self._shares.charge(waiter.row, waiter.tokens)
                waiter.charged = waiter.tokens
                self.remove(waiter)
                self._rate.count(now)
            else:
                blocked.add(waiter.key)

    def correct(self, row: int, tokens: int) -> None:
        """A request that was charged has used so many more, or, where negative, less."""
        self._shares.correct(row, tokens)

    def expire(self, now: float) -> list[W]:
        """Removes those that have waited too long."""
        late = []
        for waiter in self._waiters.values():
            if now - waiter.since < self.bounds.max_wait_s:
                break
            late.append(waiter)
        for waiter in late:
            self.remove(waiter)
        return late

    def age(self, waiter: Waiter, now: float) -> float:
        """As a moment: the later, the longer others of its tenant that come after it may go first."""
        return min(now, waiter.came) + YIELDS[waiter.importance] * self.bounds.max_wait_s

    def remove(self, waiter: W) -> bool:
        """Takes it out; False where it is not in it."""
        if self._waiters.pop(waiter.rank[1], None) is None:
            return False
        line = self._lines[waiter.tenant]
        line.remove(waiter)
        if not line.waiting:
            del self._lines[waiter.tenant]
        self.waiting -= 1
        self.size -= waiter.size
        return True

    def wait_s(self, tenant: str, now: float) -> float | None:
        """How long one more of this tenant would wait, by how fast places became free of late; None where
        none did.
        """
        line = self._lines.get(tenant)
        # Each tenant's turn comes once before anybody's comes again.
        tenants = len(self._lines) + (line is None)
        before = min(self.waiting, (line.waiting if line is not None else 0) * tenants + tenants - 1)
        rate = self._rate.per_second(now)
        return (before + 1) / rate if rate > 0.0 else None

    def _add(self, waiter: W) -> None:
        self._waiters[waiter.rank[1]] = waiter
        line = self._lines.get(waiter.tenant)
        if line is None:
            line = self._lines[waiter.tenant] = _Line()
        line.add(waiter)
        self.waiting += 1
        self.size += waiter.size

    def _excess(self) -> Reason | None:
        if self.waiting > self.bounds.max_waiting:
            return "max_waiting"
        return "max_waiting_bytes" if self.size > self.bounds.max_bytes else None

    def _fattest(self, newcomer: str, reason: Reason) -> _Line[W]:
        """Who has most of what there is too much of; of several the newcomer."""
        by_count = reason == "max_waiting"
        _, line = max(
            self._lines.items(),
            key=lambda item: (item[1].waiting if by_count else item[1].size, item[0] == newcomer),
        )
        return line

    def _next(self, blocked: Collection[Hashable]) -> W | None:
        """Whose turn it is of those whose key is not blocked."""
        heads = [head for line in self._lines.values() if (head := line.head(blocked)) is not None]
        # Of tenants that have had as much, the older request.
        return min(heads, key=lambda head: (self._shares.start(head.row), head.rank)) if heads else None
