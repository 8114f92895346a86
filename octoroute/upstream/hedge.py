"""A second attempt beside one whose first event is late: whichever has its first data event first goes on,
the connection of the other is closed at once.

A Hedge belongs to one attempt of a Forwarding (forward.py) and works on its parts; until its time has come it
costs a timer. Only streams are hedged: a plain answer shows no sign of life before it is complete.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.balance.breaker import record_failure
from octoroute.balance.endpoint import Endpoint, Lease
from octoroute.balance.first_tokens import FirstTokens
from octoroute.balance.hedge_budget import HedgeBudget
from octoroute.errors import GatewayError
from octoroute.exchange import RequestView
from octoroute.upstream.concluding import conclude
from octoroute.upstream.connection import PING_NS, RETRYABLE, ClientSide, Connection, Promise, Verdict
from octoroute.upstream.failure import failed

if TYPE_CHECKING:
    from octoroute.upstream.forward import Forwarding

LEARNT: Final = 0.0  # of Terms.hedge_s: the delay is what was learnt
RESPONSES: Final = "/v1/responses"


class Hedging:
    """What the hedges of one tier have in common, in one worker."""

    def __init__(self) -> None:
        self.budget = HedgeBudget()
        self.first_tokens = FirstTokens()

    def delay_s(self, hedge_s: float, size: int) -> float | None:
        """When a request of so many bytes is late; None where that is not known yet."""
        return self.first_tokens.p95(size) if hedge_s == LEARNT else hedge_s


def may_hedge(view: RequestView) -> bool:
    """Whether it does no harm to have a request answered twice."""
    fields = view.fields
    if not view.stream or fields.get("store"):
        return False
    # Responses are stored where the request does not say otherwise, and may go on from each other.
    return view.path != RESPONSES or (
        fields.get("store") is False
        and not any(fields.get(name) for name in ("previous_response_id", "conversation", "background"))
    )


class Hedge:
    """Made when `first` has been asked; `end` when that attempt is over."""

    __slots__ = (
        "_asked_s",
        "_asks_usage",
        "_deadline_ns",
        "_first",
        "_forwarding",
        "_hedging",
        "_lease",
        "_promise",
        "_request",
        "_second",
        "_site",
        "_task",
        "_timer",
    )

    def __init__(self, forwarding: "Forwarding", first: Connection, hedging: Hedging) -> None:
        self._forwarding = forwarding
        self._hedging = hedging
        self._first = first
        self._asked_s = time.monotonic()
        self._second: Connection | None = None
        self._lease: Lease[Endpoint] | None = None
        self._promise: Promise | None = None  # of the first, while there is a second
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        hedge_s = forwarding.terms.hedge_s
        assert hedge_s is not None
        hedging.budget.grow(forwarding.terms.hedge_budget)
        delay = hedging.delay_s(hedge_s, len(forwarding.view.body))
        if delay is not None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._due)

    def end(self, connection: Connection) -> None:
        """The attempt on this connection is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if connection is self._first and connection.first_ns:
            self._learn(connection.first_ns * 1e-9)
        if self._lease is not None:
            self._drop("lost", "outpaced")

    def _learn(self, now_s: float) -> None:
        size = len(self._forwarding.view.body)
        self._hedging.first_tokens.observe(size, now_s - self._asked_s)

    def _due(self) -> None:
        """The first is late."""
        self._timer = None
        forwarding, first = self._forwarding, self._first
        outcome = forwarding.outcome
        if first.flowing or first.promise is None:
            return
        # Those that wait have none yet.
        waits = forwarding.queue.waiting
        lease = None if waits else forwarding.group.pick(forwarding.tried, forwarding.facts)
        if lease is None:
            outcome.hedge = "no_capacity"
            return
        slow, other = forwarding.tried[-1], lease.endpoint
        # Where nobody knows how many requests a server takes, one that has more than the slow one is full.
        crowded = not other.capacity and other.in_flight - 1 > slow.in_flight
        if crowded or not self._hedging.budget.take():
            outcome.hedge = "no_capacity" if crowded else "no_budget"
            lease.release()
            return
        self._lease = lease
        self._task = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        forwarding, lease = self._forwarding, self._lease
        assert lease is not None
        view = forwarding.view
        try:
            self._site = site = forwarding.sites[lease.endpoint]
            self._asks_usage = site.usage.wanted(view)
            self._request = site.writer.pieces(view, ask_usage=self._asks_usage)
            self._deadline_ns = time.monotonic_ns() + forwarding.terms.timeout_ns
            connection = site.pool.take() or await site.pool.connect(self._deadline_ns)
        except GatewayError:
            self._task = None
            record_failure(lease.endpoint, forwarding.terms.failures)
            self._drop("failed", "connect")
            return
        self._task = None
        first = self._first
        if first.flowing or first.promise is None:
            # It has begun to answer while this one was connected.
            connection.close()
            self._drop("lost", "outpaced")
            return
        self._second = connection
        self._promise, first.promise = first.promise, _End(self._first_ended)
        first.client = _Lane(forwarding.client, self, first, speaks=True)
        forwarding.forwarder.active[connection] = lease.endpoint
        connection.ask(
            self._request,
            _Lane(forwarding.client, self, connection, speaks=False),
            self._deadline_ns,
            forwarding.terms.idle_ns,
            PING_NS,
            _End(self._second_ended),
        )
        if self._asks_usage and self._second is connection:
            connection.leave_out_usage()

    def _drop(self, came_to: str, reason: str) -> None:
        """The second is given up."""
        forwarding, lease = self._forwarding, self._lease
        assert lease is not None
        forwarding.outcome.hedge = came_to
        forwarding.outcome.beside = (lease.endpoint.spec.name, reason)
        if self._task is not None:
            self._task.cancel()
            self._task = None
        second, self._second = self._second, None
        if second is not None:
            self._restore()
            second.promise = None
            del forwarding.forwarder.active[second]
            second.release()
        self._lease = None
        lease.release()
        forwarding.queue.freed()

    def _restore(self) -> None:
        """From here the first is asked for the request alone again."""
        first = self._first
        if first.promise is not None:
            first.promise = self._promise
        if first.client is not None:
            first.client = self._forwarding.client
        self._promise = None

    def first_event(self, connection: Connection) -> None:
        """One of both has its first event."""
        if connection is self._first:
            self._drop("lost", "outpaced")
            return
        forwarding, first = self._forwarding, self._first
        outcome = forwarding.outcome
        outcome.hedge = "won"
        outcome.beside = (forwarding.tried[-1].spec.name, "outpaced")
        self._learn(time.monotonic())
        promise = self._promise
        first.promise = None
        self._let_go(first)
        self._install(promise)

    def _first_ended(self, verdict: Verdict) -> None:
        """The first has ended without an event: the second takes its place if that is a failure."""
        forwarding, first, promise = self._forwarding, self._first, self._promise
        assert promise is not None
        vain = verdict in (Verdict.FAILED, Verdict.TIMEOUT) or (
            verdict is Verdict.WHOLE and first.head.status in RETRYABLE
        )
        if not vain or (first.unanswered and first.was_reused):
            promise.set_result(verdict)
            return
        failure = conclude(verdict, first, None, forwarding.view, forwarding.client, forwarding.outcome)
        assert failure is not None
        outcome = forwarding.outcome
        outcome.hedge = "took_over"
        self._let_go(first)
        forwarding._book(failure)
        # Now it is the next attempt, begun before the one before it had failed.
        outcome.attempts += 1
        self._install(promise)

    def _let_go(self, first: Connection) -> None:
        forwarding = self._forwarding
        forwarding.hedge = None
        forwarding._leave(first)
        forwarding._return_lease()

    def _install(self, promise: Promise | None) -> None:
        """The second becomes the attempt of the request."""
        forwarding, lease, second = self._forwarding, self._lease, self._second
        assert lease is not None
        assert second is not None
        self._lease = self._second = None
        forwarding._lease = lease
        forwarding._site = self._site
        forwarding._request = self._request
        forwarding._asks_usage = self._asks_usage
        forwarding._deadline_ns = self._deadline_ns
        forwarding._doubted = forwarding._stale = False
        forwarding.tried.append(lease.endpoint)
        forwarding.outcome.endpoint = lease.endpoint.spec.name
        forwarding._watch(second)
        second.promise = promise
        second.client = forwarding.client

    def _second_ended(self, verdict: Verdict) -> None:
        """The second has ended without an event: the first is on its own again."""
        lease, second = self._lease, self._second
        assert lease is not None
        assert second is not None
        if verdict is Verdict.WHOLE:
            status = second.head.status
            label, blame = f"status_{status}", status in RETRYABLE
        else:
            label, blame = failed(second.reason).label if verdict is Verdict.FAILED else "timeout", True
        if blame and not (second.unanswered and second.was_reused):
            record_failure(lease.endpoint, self._forwarding.terms.failures)
        self._drop("failed", label)


class _Lane:
    """The client's side for one of both: its first event decides, and the second says nothing before."""

    def __init__(self, client: ClientSide, hedge: Hedge, connection: Connection, *, speaks: bool) -> None:
        self._client = client
        self._hedge = hedge
        self._connection = connection
        self._speaks = speaks

    def start(self, head: Head, relay: Relay) -> None:
        self._hedge.first_event(self._connection)
        self._client.start(head, relay)

    def announce(self, head: Head, relay: Relay) -> None:
        if self._speaks:
            self._client.announce(head, relay)

    def ping(self, relay: Relay) -> None:
        if self._speaks:
            self._client.ping(relay)

    @property
    def started(self) -> bool:
        return self._client.started


class _End:
    """Hears the verdict on one of both, in place of a future."""

    def __init__(self, heard: Callable[[Verdict], None]) -> None:
        self._heard = heard

    def done(self) -> bool:
        return False

    def set_result(self, verdict: Verdict) -> None:
        self._heard(verdict)
