"""Continues a broken stream on another server, so that its client sees one answer.

What was said so far is read in transcript.py; what the next server is asked is written in continuing.py; its
answer is heard in remainder.py, and its chunks become the client's in sequel.py. Here: whom to ask, in which
order, and when to give up. Each stream that may need a Rescue has one; until then it costs the delivered
bytes, which the relay keeps.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from octoroute._delivered import Delivered
from octoroute.balance.breaker import record_failure, record_success
from octoroute.balance.endpoint import Endpoint, Lease
from octoroute.balance.group import Group
from octoroute.balance.retry_budget import RetryBudget
from octoroute.errors import Overloaded, UpstreamFailed
from octoroute.exchange import Outcome, RequestView, Target
from octoroute.snapshot import Terms
from octoroute.upstream.client import Carrier
from octoroute.upstream.connection import DOUBT_NS, PING_NS, Connection, Verdict
from octoroute.upstream.continuing import (
    CHAT,
    CONTINUING_KINDS,
    REASONING_KINDS,
    asked_limit,
    continuation,
    limit_to,
    may_continue,
    wants_usage,
)
from octoroute.upstream.events import DONE, write_event
from octoroute.upstream.failure import broke_off
from octoroute.upstream.kind import learn_kind
from octoroute.upstream.pulse import Pulse
from octoroute.upstream.remainder import Question, Second, count_tokens
from octoroute.upstream.sequel import Sequel, Spent
from octoroute.upstream.site import Site
from octoroute.upstream.transcript import Transcript
from octoroute.upstream.waiting import WaitingRoom

if TYPE_CHECKING:
    from octoroute.upstream.forward import Forwarding

# A request that brings down whoever answers it must not go through a whole fleet.
MAX_BREAKS: Final = 8
# Of a write that is read to see what its last event is like.
FEW_BYTES: Final = 2048
STALLED: Final = "stalled"  # as connection.py says it
# Between two looks for an endpoint that recovers.
WAIT_SECONDS: Final = 0.05


class Unresumed(Exception):
    """The stream ends here. `outcome` goes into metrics: `refused` or `failed`."""

    def __init__(self, outcome: str, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


@dataclass(slots=True)
class Rescue:
    """`carry_on` after a break. The fields are those of the request's forwarding."""

    view: RequestView
    group: Group
    sites: Mapping[Endpoint, Site]
    terms: Terms
    active: dict[Connection, Endpoint]
    client: Carrier
    outcome: Outcome
    budget: RetryBudget
    queue: WaitingRoom
    target: Target
    slow: list[Endpoint]  # who failed or was outpaced before the stream began: asked if there is nobody else
    keeps: bool = True  # the relay keeps what it delivers: until the first break
    endpoint: Endpoint | None = None  # that answers now
    first: Endpoint | None = None
    so_far: Transcript | None = None
    broken: Connection | None = None  # the first that broke
    pulse: Pulse | None = None  # from then on
    broke: bool = False
    stalled: bool = False  # by silence only, so that it may be alive
    stalls: int = 0
    whole: bool = True  # what the client got ends with a whole event

    @classmethod
    def of(cls, request: "Forwarding") -> "Rescue | None":
        """For a stream that could be continued; None for others."""
        view, group, terms, client = request.view, request.group, request.terms, request.client
        if not (group.replicated and terms.resume and may_continue(view.path, view.fields)):
            return None
        active, queue, target = request.forwarder.active, request.queue, request.plan.target
        outcome, budget = request.outcome, request.budget
        return cls(
            view, group, request.sites, terms, active, client, outcome, budget, queue, target, request.tried
        )

    @property
    def stall_ns(self) -> int:
        """Twice as long after each stall: where all servers are slow, going to and fro makes them slower."""
        return self.terms.stall_ns << self.stalls

    def record(self) -> Delivered | None:
        """For what the relay delivers, until the first break."""
        return Delivered(self.terms.resume_bytes) if self.keeps else None

    def absorb(self, connection: Connection) -> Transcript:
        """Takes over what was delivered so far."""
        so_far = self.so_far
        if so_far is None:
            so_far = Transcript(self.terms.resume_bytes, framed=connection.passes_framing)
            self.so_far = so_far
        delivered = connection.delivered
        if delivered is not None:
            so_far.take_over(delivered)
            if so_far.refusal:
                connection.delivered = None
        return so_far

    def relieve(self, connection: Connection) -> None:
        """Much was delivered. Most streams never break: what nobody had to read yet stays as it was written,
        and of what follows and is like the last event the text alone is kept.
        """
        delivered = connection.delivered
        if self.so_far is None and connection.clean and delivered is not None and not delivered.expects:
            latest = delivered.latest
            if len(latest) <= FEW_BYTES:
                pattern = Transcript(FEW_BYTES, framed=connection.passes_framing).absorb(latest)
                if pattern is not None:
                    delivered.expect(pattern)
                    return
        self.absorb(connection)

    def possible(self, connection: Connection) -> bool:
        """Whether the stream could be continued by another server now."""
        if self.keeps and (connection.delivered is None or not connection.clean):
            return False
        if self.endpoint is None or self.absorb(connection).refusal:
            return False
        return self.group.vacancy(self._others(self.endpoint)) == "free"

    def note_break(self, connection: Connection) -> None:
        """The stream broke: what was delivered is known for good."""
        self.broke = True
        self.broken = connection
        self._note_stall(connection.reason)
        self.whole = connection.clean and self.absorb(connection).between_events

    def _note_stall(self, reason: str) -> None:
        self.stalled = reason == STALLED
        self.stalls += self.stalled

    def watch_over(self, connection: Connection, endpoint: Endpoint) -> None:
        """`connection` is about to ask `endpoint`."""
        self.endpoint = endpoint
        if endpoint.spec.model in self.group.replicated:
            connection.rescue = self
            if connection.head is not None:
                # It asked beside the first, and is about to flow.
                connection.delivered = self.record()
            connection.watch_ns = min(self.stall_ns, DOUBT_NS) if self.stall_ns else DOUBT_NS

    async def carry_on(self) -> None:
        """Sees a broken answer to its end, on as many servers as it takes; or tells the client that there is
        none.
        """
        outcome = self.outcome
        assert self.endpoint is not None
        assert self.broken is not None
        self.first = self.endpoint
        self.keeps = False
        self.pulse = Pulse(self.client, self.broken, PING_NS)
        try:
            for _ in range(MAX_BREAKS):
                if await self._pass_over(self.endpoint):
                    outcome.result = "ok"
                    outcome.error = ""
                    self.client.end()
                    return
            raise Unresumed("failed", f"it broke {MAX_BREAKS} times")
        except Unresumed as end:
            outcome.recoveries.append((self.endpoint.spec.name, end.outcome))
            outcome.error = f"{outcome.error}; not resumed: {end}"
            self.client.break_off(broke_off(), clean=self.whole)
        finally:
            self.pulse.stop()

    def _others(self, broken: Endpoint) -> list[Endpoint]:
        """Who can't go on with what `broken` began: itself, and whoever has another model."""
        model = broken.spec.model
        return [each for each in self.group.endpoints if each.slot == broken.slot or each.spec.model != model]

    async def _pass_over(self, broken: Endpoint) -> bool:
        """One break: True when the answer is complete now, False when it went on and broke again."""
        so_far = self.so_far
        assert so_far is not None
        if so_far.refusal or not self.whole:
            raise Unresumed("refused", so_far.refusal or "the client has a part of an event")
        usage_due = wants_usage(self.view.fields) and not so_far.usage_sent
        write = self.client.carry_on()
        if so_far.done or (so_far.finish_reason and not usage_due):
            if not so_far.done:
                write(write_event(DONE))
            self.outcome.recoveries.append((broken.spec.name, "resumed"))
            return True
        before = so_far.pieces, so_far.finish_reason
        tried = self._others(broken)
        why = "no other endpoint of the model is free"
        asked = False
        for _ in range(self.terms.attempts):
            if asked and not self.budget.take(self.terms.retry_budget, time.monotonic()):
                break
            lease = await self._place(tried, broken.spec.model)
            if lease is None and self.stalled:
                # Who should have relieved it is gone too. It may have been slow, no more.
                self.stalled = False
                tried = [each for each in tried if each.slot != broken.slot]
                lease = await self._place(tried, broken.spec.model)
            if lease is None:
                break
            endpoint = lease.endpoint
            tried.append(endpoint)
            try:
                question = await self._question(endpoint, so_far, usage_due=usage_due)
                if question is None:
                    why = f"{endpoint.spec.name} can't continue it"
                    continue
                if not asked:
                    self.outcome.failures.append((broken.spec.name, "broken"))
                    asked = True
                self.outcome.attempts += 1
                self.outcome.endpoint = endpoint.spec.name
                why = await self._ask(endpoint, question)
            finally:
                self._give_back(lease)
            went_on = (so_far.pieces, so_far.finish_reason) != before
            if not why or went_on:
                self.outcome.recoveries.append((broken.spec.name, "resumed"))
            if not why:
                record_success(endpoint, time.monotonic())
                return True
            if went_on:
                self._note_stall(why)
                self.outcome.error = why
                return False
            self.endpoint = broken
            self.outcome.failures.append((endpoint.spec.name, why))
            record_failure(endpoint, self.terms.failures)
        raise Unresumed("failed" if asked else "refused", why)

    async def _place(self, tried: list[Endpoint], model: str) -> Lease[Endpoint] | None:
        """A place at another endpoint: a free one at once; where all are full, in the queue; where they are
        unhealthy, at one that recovers soon.
        """
        began = time.monotonic()
        while True:
            group = self.group
            facts = group.facts(self.view)
            lease = group.pick_steady([*tried, *self.slow], facts) or group.pick_steady(tried, facts)
            if lease is None and group.vacancy(tried) == "full":
                try:
                    lease = await self._wait_in_queue(tried, facts)
                except Overloaded:
                    return None
            elif lease is None:
                if time.monotonic() > began + self.terms.hope_s or not self._may_recover(tried):
                    return None
                await asyncio.sleep(WAIT_SECONDS)
            if lease is not None:
                if lease.endpoint.spec.model == model:
                    return lease
                # A reload has brought it meanwhile.
                tried.append(lease.endpoint)
                self._give_back(lease)

    async def _wait_in_queue(self, tried: list[Endpoint], facts: bytes | None) -> Lease[Endpoint] | None:
        """A stream is as old as its request, so it goes before those that came since. None where no endpoint
        is left that could have a place. Raises Overloaded.
        """
        ticket = self.queue.join(self.view, self.target, self.group, tried, facts)
        if ticket is None:
            return None
        try:
            return await self.queue.wait(ticket)
        finally:
            self.outcome.waited_s += time.monotonic() - ticket.since
            self.group = ticket.group

    def _give_back(self, lease: Lease[Endpoint]) -> None:
        lease.release()
        self.queue.freed()

    def _may_recover(self, tried: list[Endpoint]) -> bool:
        slots = {each.slot for each in tried}
        return any(not each.healthy and each.slot not in slots for each in self.group.endpoints)

    async def _question(self, endpoint: Endpoint, so_far: Transcript, *, usage_due: bool) -> Question | None:
        """What to ask of an endpoint; None where it can't continue such an answer."""
        path = self.view.path
        fields = orjson.loads(self.view.body) if self.view.lengths else self.view.fields
        assert self.first is not None
        begun = bool(so_far.text or so_far.reasoning)
        site = self.sites[endpoint]
        kind = await learn_kind(endpoint, site, self.active) if begun else ""
        spent = await count_tokens(endpoint, site, self.active, so_far, kind) if begun else Spent(0, 0)
        left = asked_limit(fields, self.first.spec.max_tokens) - spent.completion
        count_only = bool(so_far.finish_reason) or left <= 0
        asked: dict[str, Any] | None = dict(fields)
        if count_only:
            # The text is complete. The same question for one token tells what is left to tell.
            spent = Spent(spent.completion, 0)
        elif begun:
            if path == CHAT and kind not in (REASONING_KINDS if so_far.reasoning else CONTINUING_KINDS):
                return None
            asked = continuation(path, fields, so_far, kind)
        if asked is None:
            return None
        asked["model"] = endpoint.spec.model
        if asked.get("temperature") is None:
            asked["temperature"] = self.first.spec.temperature
        limit_to(asked, 1 if count_only else left, spent.completion)
        sequel = Sequel(so_far, spent, self.client.carry_on(), usage=usage_due, count_only=count_only)
        return Question(site.writer.instead(self.view, orjson.dumps(asked)), sequel)

    async def _ask(self, endpoint: Endpoint, question: Question) -> str:
        """Has an endpoint go on with the answer. "" when that is complete, else why it is not."""
        site = self.sites[endpoint]
        deadline_ns = time.monotonic_ns() + self.terms.timeout_ns
        try:
            connection = await site.pool.connect(deadline_ns)
        except UpstreamFailed:
            return "connect"
        self.active[connection] = endpoint
        self.watch_over(connection, endpoint)
        assert self.pulse is not None
        self.pulse.turn_to(connection)
        self.client.attach(connection)
        second = Second(self.client, question.sequel)
        try:
            promise: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
            connection.ask((question.request,), second, deadline_ns, self.terms.idle_ns, PING_NS, promise)
            verdict = await promise
            if verdict is Verdict.GONE:
                raise asyncio.CancelledError
            if verdict is Verdict.WHOLE:
                return f"status_{connection.head.status}"
            if verdict is Verdict.TIMEOUT:
                return "timeout"
            if verdict is not Verdict.STREAMED:
                return question.sequel.failed or connection.reason.partition(":")[0].replace(" ", "_")
            return question.sequel.finish()
        finally:
            self.pulse.turn_to(None)
            self.client.attach(None)
            del self.active[connection]
            self.outcome.bytes_out += question.sequel.written
            self.outcome.prompt_tokens, self.outcome.completion_tokens = question.sequel.tokens
            self.outcome.tail = b""
            connection.release()
