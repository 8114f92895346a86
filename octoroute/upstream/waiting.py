"""The waiting room of one tier: requests that found every endpoint full stay here until one has a place.

Whose turn it is, admission/queue.py says. A place that is given back, here or in another worker, goes to the
next at once; what a recovery brings is found by `look`. Of several workers in which somebody waits, the one
goes first whose next one's turn it is among all: the others let it, for a moment, because no place may stay
free.

Where the last healthy endpoint has just failed, requests wait here for a moment too: a server that is started
again is back soon, and a probe finds that out.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from math import ceil
from typing import Final

from octoroute._select import FatalSelectionError
from octoroute.admission.board import WaitingBoard
from octoroute.admission.queue import Bounds, Queue, Waiter
from octoroute.admission.shares import NOBODY, Costs
from octoroute.balance.endpoint import Endpoint, Lease
from octoroute.balance.group import Group
from octoroute.errors import GatewayError, Overloaded
from octoroute.exchange import RequestView, Target
from octoroute.observe.registry import Registry

# Why requests left without a place. Those that no endpoint could answer any more get another error.
REASONS: Final = ("max_waiting", "max_waiting_bytes", "max_wait_seconds", "client_gone", "no_endpoint")
MAX_RETRY_AFTER_S: Final = 3600
BYTES_PER_TOKEN: Final = 4
# How long a free place is left to a worker whose turn it is: far more than it needs to take it.
COURTESY_SECONDS: Final = 0.005

# Of a group's vacancies, those where waiting makes sense.
COMES_FREE: Final = ("full", "free")


class Ticket(Waiter):
    """A request that waits: what it may be answered by. `future` gets its place, or None where no endpoint is
    left that could have one.
    """

    __slots__ = ("facts", "future", "group", "target", "tried", "view")

    def __init__(
        self,
        view: RequestView,
        target: Target,
        group: Group,
        tried: Collection[Endpoint],
        facts: bytes | None,
        importance: str,
        row: int,
        tokens: int,
    ) -> None:
        slots = sorted(endpoint.slot for endpoint in tried)
        super().__init__(
            key=(target.name, *slots),
            tenant=view.tenant,
            row=row,
            importance=view.importance or importance,
            tokens=tokens,
            size=len(view.body),
            came=view.read_ns * 1e-9,
        )
        self.view = view
        self.target = target
        self.group = group
        self.tried = tuple(tried)
        self.facts = facts
        self.future: asyncio.Future[Lease[Endpoint] | None] = asyncio.get_running_loop().create_future()


class WaitingRoom:
    """Of one worker. Who wants a place looks at `waiting` and `elsewhere` first: where anybody waits, it
    joins them.

    `ring_for` has other workers say when they give a place back, as long as anybody waits; `elsewhere` says
    whether anybody waits there.
    """

    def __init__(
        self,
        tier: str,
        registry: Registry,
        board: WaitingBoard,
        worker: int,
        ring_for: Callable[[bool], None],
        elsewhere: Callable[[], bool],
    ) -> None:
        self.waiting = 0
        self.elsewhere = elsewhere
        self._tier = tier
        self._worker = worker
        self._ring_for = ring_for
        self._later: asyncio.TimerHandle | None = None
        self._queue: Queue[Ticket] = Queue(board.shares(tier))
        # Whose turn it is, as was found last: other workers change what tenants have had.
        self._first: Ticket | None = None
        self._costs = Costs()
        self._rows: Mapping[str, int] = {}
        self._importance = "normal"
        self._groups: Mapping[Target, Group] = {}
        self._hope_s = 0.0
        self._bleak: dict[
            Target, float
        ] = {}  # those without a healthy endpoint: until when they are waited for
        self._board = board
        self._waits = registry.histogram("octoroute_queue_wait_seconds", tier)
        self._dropped = {
            reason: registry.counter("octoroute_queue_dropped_total", tier, reason) for reason in REASONS
        }

    def configure(
        self,
        bounds: Bounds,
        importance: str,
        groups: Mapping[Target, Group],
        rows: Mapping[str, int],
        hope_s: float,
    ) -> None:
        """From here these bounds hold, and those that wait may be answered by the endpoints of `groups`.
        `importance` is that of requests that state none; `rows` are those of the tenants by name; for
        `hope_s` requests wait for endpoints that failed.
        """
        self._groups, self._rows, self._hope_s = groups, rows, hope_s
        self._costs.keep(rows)
        self._queue.bounds = bounds
        self._importance = importance
        for ticket in self._queue:
            group = groups.get(ticket.target, ticket.group)
            if group is not ticket.group:
                ticket.group = group
                ticket.facts = group.facts(ticket.view)

    def join(
        self,
        view: RequestView,
        target: Target,
        group: Group,
        tried: Collection[Endpoint] = (),
        facts: bytes | None = None,
    ) -> Ticket | None:
        """A ticket to wait with for a place at an endpoint of `group` that was not tried; None where none of
        them is able to answer. Raises Overloaded.
        """
        if not self.promises(target, group, tried):
            return None
        vacancy = group.vacancy(tried)
        bleak = vacancy == "none_healthy"
        if bleak:
            tried = ()
        now = time.monotonic()
        # What is tried again has been paid for.
        tokens = 0 if tried else self._costs.expected(view.tenant, _most_tokens(view, group))
        row = self._rows.get(view.tenant, NOBODY)
        ticket = Ticket(view, target, group, tried, facts, self._importance, row, tokens)
        ticket.since = now
        if vacancy == "free":
            # Who waits goes first. What is left then, none of them is able to use.
            lease = group.pick(tried, facts) if self.freed() and not self._yields(ticket, now) else None
            if lease is not None:
                ticket.future.set_result(lease)
                return ticket
        for dropped, reason in self._queue.join(ticket, now):
            self._dropped[reason].inc()
            if dropped is ticket:
                if bleak:
                    return None
                raise self._overloaded(ticket, "too many requests wait", now)
            _fail(dropped, self._overloaded(dropped, "too many requests wait", now))
        first = not self.waiting
        if self._first is None or self._queue.turn_of(ticket) < self._queue.turn_of(self._first):
            self._first = ticket
        self._note()
        if first:
            # Whoever gave a place back just before did not know that anybody waits.
            self.freed()
        return ticket

    def promises(self, target: Target, group: Group, tried: Collection[Endpoint]) -> bool:
        """Whether there is a place at an endpoint of `group` that was not tried, or may be one soon."""
        vacancy = group.vacancy(tried)
        if vacancy != "none_healthy":
            return vacancy in COMES_FREE
        if all(endpoint.healthy for endpoint in group.endpoints):
            return False  # they drain, or sleep, or there are none
        now = time.monotonic()
        return now < self._bleak.setdefault(target, now + self._hope_s)

    async def place(
        self, view: RequestView, target: Target, group: Group, tried: Collection[Endpoint]
    ) -> Lease[Endpoint] | None:
        """A place, at once or when it is its turn. See `join` and `wait`."""
        lease = None if self.waiting else group.pick(tried)
        if lease is not None:
            return lease
        ticket = self.join(view, target, group, tried)
        return None if ticket is None else await self.wait(ticket)

    async def wait(self, ticket: Ticket) -> Lease[Endpoint] | None:
        """The place, when it is its turn; None where no endpoint is left that could have one. Raises
        Overloaded, FatalSelectionError.
        """
        try:
            return await ticket.future
        except asyncio.CancelledError:
            self.leave(ticket)
            raise
        finally:
            # It may hold an error, whose traceback holds the ticket: a cycle.
            del ticket.future

    def leave(self, ticket: Ticket) -> None:
        """Its client has left: it gives back what it may have got."""
        if self._queue.remove(ticket):
            self._dropped["client_gone"].inc()
            self._note()
        future = ticket.future
        if not future.done():
            future.cancel()
        elif not future.cancelled() and future.exception() is None:
            lease = future.result()
            if lease is not None:
                lease.release()
                self.freed()

    def freed(self) -> bool:
        """A place may have become free. False where it is left to another worker for a moment."""
        if not self.waiting:
            return True
        self._first = self._queue.next()
        if self._board.first_elsewhere(self._worker, self._tier) < self._queue.turn_of(self._first):
            self._tell()
            if self._later is None:
                self._later = asyncio.get_running_loop().call_later(COURTESY_SECONDS, self._now)
            return False
        self._now()
        return True

    def _yields(self, ticket: Ticket, now: float) -> bool:
        """Whether it is somebody's turn in another worker before one that has just come."""
        if not self.elsewhere():
            return False
        ticket.rank = (self._queue.age(ticket, now), 0)
        return self._board.first_elsewhere(self._worker, self._tier) < self._queue.turn_of(ticket)

    def _now(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._serve(time.monotonic())
        self._note()

    def settle(self, view: RequestView, target: Target, charged: int, used: int) -> None:
        """A request that was charged has used so many tokens: those like it are going to cost as much."""
        self._queue.correct(self._rows.get(view.tenant, NOBODY), used - charged)
        group = self._groups.get(target)
        if group is not None and group.endpoints and used > 0:
            self._costs.learn(view.tenant, _most_tokens(view, group), used)

    def look(self) -> None:
        """Looks for places that became free unseen, and for those that have waited in vain."""
        for target in list(self._bleak):
            group = self._groups.get(target)
            if group is None or group.vacancy() != "none_healthy":
                del self._bleak[target]
        if not self.waiting:
            return
        now = time.monotonic()
        self._serve(now)
        for ticket in self._queue.expire(now):
            self._dropped["max_wait_seconds"].inc()
            if ticket.group.vacancy() == "none_healthy":
                _dismiss(ticket)
            else:
                _fail(ticket, self._overloaded(ticket, "no place became free in time", now))
        self._send_off()
        self._first = None
        self._note()

    def _serve(self, now: float) -> None:
        def place(ticket: Ticket) -> bool:
            future = ticket.future
            if future.done():
                return True
            try:
                lease = ticket.group.pick(ticket.tried, ticket.facts)
            except FatalSelectionError as error:
                future.set_exception(error)
                return True
            if lease is None:
                return False
            future.set_result(lease)
            self._waits.observe(now - ticket.since)
            return True

        self._queue.serve(place, now)

    def _send_off(self) -> None:
        """Those that no endpoint can answer any more need not wait."""
        hopeless: dict[tuple[Group, object], bool] = {}
        for ticket in self._queue:
            kind = (ticket.group, ticket.key)
            if kind not in hopeless:
                hopeless[kind] = not self.promises(ticket.target, ticket.group, ticket.tried)
            if hopeless[kind]:
                self._queue.remove(ticket)
                self._dropped["no_endpoint"].inc()
                _dismiss(ticket)

    def _overloaded(self, ticket: Ticket, why: str, now: float) -> Overloaded:
        wait_s = self._queue.wait_s(ticket.tenant, now)
        if wait_s is None:
            wait_s = self._queue.bounds.max_wait_s
        name = ticket.target.name
        target = f"tier {self._tier}" if name is None else f"endpoint {name}"
        return Overloaded(
            f"every endpoint of {target} is busy, and {why}",
            retry_after_s=min(max(1, ceil(wait_s)), MAX_RETRY_AFTER_S),
        )

    def _note(self) -> None:
        before, self.waiting = self.waiting, self._queue.waiting
        if self._first is None or self._first not in self._queue:
            self._first = self._queue.next()
        self._tell()
        if (before > 0) != (self.waiting > 0):
            self._ring_for(self.waiting > 0)

    def _tell(self) -> None:
        """Other workers get to know who waits here."""
        first = self._first
        if first is None:
            self._board.write(self._worker, self._tier, 0)
        else:
            self._board.write(self._worker, self._tier, self.waiting, first.row, first.rank[0])


def _fail(ticket: Ticket, error: GatewayError) -> None:
    if not ticket.future.done():
        ticket.future.set_exception(error)


def _dismiss(ticket: Ticket) -> None:
    if not ticket.future.done():
        ticket.future.set_result(None)


def prompt_tokens(view: RequestView) -> int:
    """About."""
    return len(view.body) // BYTES_PER_TOKEN


def _most_tokens(view: RequestView, group: Group) -> int:
    """What a request may cost at most, about: its prompt, and an answer of full length."""
    fields = view.fields
    asked = fields.get("max_completion_tokens") or fields.get("max_tokens") or fields.get("max_output_tokens")
    if type(asked) is not int or asked < 1:
        asked = group.endpoints[0].spec.max_tokens
    return prompt_tokens(view) + asked
