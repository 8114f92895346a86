"""Attempts: sends a request to one endpoint after another until an answer flows or none is left to try.

Owns the exchanges under way and their deadlines (`tick`). Which endpoint is tried is decided by balance/;
whether an answer is worth passing on by connection.py; here is what follows from a verdict. Nothing of an
answer has gone to the client while another endpoint is tried, so the client does not notice.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from octoroute._relay import sweep
from octoroute.balance.breaker import record_failure, record_success
from octoroute.balance.endpoint import Endpoint
from octoroute.balance.group import Group
from octoroute.errors import GatewayError, NoEndpoint, Overloaded, UpstreamFailed, UpstreamTimeout
from octoroute.exchange import Outcome, Plan, RequestView
from octoroute.snapshot import Terms
from octoroute.upstream.answer import Answer, server_message
from octoroute.upstream.connection import RETRYABLE, ClientSide, Connection, Verdict
from octoroute.upstream.outbox import Outbox
from octoroute.upstream.site import Site

# A client that waits for a stream hears a comment line after so much silence, as from octoroute 1.0.
PING_NS = 15_000_000_000
WHY = b"%b%bx-octoroute-attempts: %d\r\nx-octoroute-overhead-ms: %.3f\r\n"


class Client(ClientSide, Protocol):
    """The client's side of one request (server/downstream.py)."""

    why: bytes

    def attach(self, connection: Connection | None) -> None:
        """Which connection is closed when the client leaves, and paused while it does not read."""

    def send_whole(self, answer: Answer) -> None:
        """Writes a complete answer."""

    def end(self) -> None:
        """Everything of a streamed answer is out."""

    def break_off(self, error: GatewayError, *, clean: bool) -> None:
        """A streamed answer can't be completed. `clean`: what went out so far ends with a complete event."""


class Forwarder:
    """`forward` one request; `tick` ten times a second."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.active: dict[Connection, Endpoint] = {}

    def tick(self) -> None:
        """Looks after deadlines, silence and incomplete events of all exchanges under way."""
        sweep(self.active, time.monotonic_ns())

    def note_activity(self) -> None:
        """Tells the endpoints when they were last heard of: a slow probe is no proof of death then."""
        for connection, endpoint in self.active.items():
            if connection.head is not None:
                endpoint.state.note_activity(endpoint.slot, connection.last_ns * 1e-9)

    async def forward(
        self,
        view: RequestView,
        plan: Plan,
        group: Group,
        sites: Mapping[Endpoint, Site],
        terms: Terms,
        client: Client,
        outcome: Outcome,
    ) -> None:
        """Answers `client`, or raises a GatewayError while nothing but comment lines has gone out.

        Fills in `outcome`. A cancelled call (the client left) closes the server's connection at once.
        """
        tried: list[Endpoint] = []
        struck: set[Endpoint] = set()
        failure: Failure | None = None
        while outcome.attempts < terms.attempts:
            lease = group.pick(tried)
            if lease is None:
                if failure is None or not failure.transient or group.vacancy() != "free":
                    break
                # Only endpoints that failed just now are left: they get a moment.
                await asyncio.sleep(terms.backoff_s * 2 ** (outcome.attempts - 1))
                tried.clear()
                continue
            endpoint = lease.endpoint
            tried.append(endpoint)
            outcome.attempts += 1
            outcome.endpoint = endpoint.spec.name
            site = sites[endpoint]
            try:
                failure = await self._attempt(view, plan, endpoint, site, terms, client, outcome)
            finally:
                lease.release()
            if failure is None:
                # An answer that broke off says nothing about the endpoint's next one.
                if outcome.result != "broken":
                    record_success(endpoint, time.monotonic())
                return
            outcome.failures.append((endpoint.spec.name, failure.label))
            if failure.ends:
                failure.error.retryable = False
                raise failure.error
            # One request counts once against an endpoint, however often it had to be tried.
            if endpoint not in struck:
                struck.add(endpoint)
                record_failure(endpoint, terms.failures)
        if failure is None:
            raise _nobody(group, plan, terms)
        if failure.answer is not None and not client.started:
            client.send_whole(failure.answer)
            outcome.status = failure.answer.status
            outcome.result = "error"
            return
        raise failure.error

    async def _attempt(
        self,
        view: RequestView,
        plan: Plan,
        endpoint: Endpoint,
        site: Site,
        terms: Terms,
        client: Client,
        outcome: Outcome,
    ) -> "Failure | None":
        """One attempt at one endpoint; None if the client got an answer, be it the server's own 4xx."""
        request = site.writer.pieces(view)
        deadline_ns = time.monotonic_ns() + terms.timeout_ns
        connection = site.pool.take()
        while True:
            if connection is None:
                try:
                    connection = await site.pool.connect()
                except UpstreamFailed as error:
                    return Failure(error, "connect", transient=True)
            asked_ns = time.monotonic_ns()
            if outcome.overhead_s < 0:
                outcome.overhead_s = (asked_ns - view.read_ns) * 1e-9
            client.why = WHY % (site.why, plan.why, outcome.attempts, outcome.overhead_s * 1e3)
            self.active[connection] = endpoint
            client.attach(connection)
            try:
                verdict = await connection.ask(
                    request, client, deadline_ns, terms.idle_ns, PING_NS if view.stream else 0
                )
                if verdict is Verdict.FAILED and connection.unanswered and connection.was_reused:
                    # The server closed an idle connection just when it was used again: nobody's fault.
                    if connection.carried_stream:
                        site.pool.learn_that_it_closes()
                    connection.close()
                    del self.active[connection]
                    connection = None
                    continue
                return self._conclude(verdict, connection, view, client, outcome)
            finally:
                if connection is not None:
                    client.attach(None)
                    del self.active[connection]
                    if connection.bytes_out:
                        _book_stream(connection, view, outcome)
                    connection.release()

    def _conclude(
        self, verdict: Verdict, connection: Connection, view: RequestView, client: Client, outcome: Outcome
    ) -> "Failure | None":
        if verdict is Verdict.WHOLE:
            answer = Answer.held_by(connection)
            if answer.status in RETRYABLE:
                return _refused(answer)
            if client.started:
                # A comment line is out already, with a head that promised a stream.
                message = server_message(answer) or f"the server answered {answer.status} and no stream"
                return Failure(UpstreamFailed(message), f"status_{answer.status}", ends=True)
            client.send_whole(answer)
            outcome.ttft_s = (connection.first_ns - view.read_ns) * 1e-9 if connection.first_ns else -1.0
            outcome.bytes_out = len(answer.body)
            outcome.status = answer.status
            outcome.result = "ok" if answer.status < 400 else "error"
            outcome.tail = answer.body
            return None
        if verdict is Verdict.FAILED:
            return _failed(connection.reason)
        if verdict is Verdict.TIMEOUT:
            return Failure(UpstreamTimeout("the server did not answer in time"), "timeout")
        if verdict is Verdict.GONE:
            raise asyncio.CancelledError
        if verdict is Verdict.STREAMED:
            client.end()
            outcome.result = "ok" if connection.head.status < 400 else "error"
            return None
        outcome.result = "broken"
        outcome.error = connection.reason
        client.break_off(
            UpstreamFailed("the server's answer ended early", code="stream_interrupted"),
            clean=connection.clean,
        )
        return None


def _book_stream(connection: Connection, view: RequestView, outcome: Outcome) -> None:
    """Notes what went to the client of an answer that flowed, however it ended."""
    outcome.status = connection.head.status
    outcome.ttft_s = (connection.first_ns - view.read_ns) * 1e-9
    outcome.bytes_out = connection.bytes_out
    outcome.chunks = connection.framing.chunks
    outcome.gap_counts, outcome.gap_sum_s = connection.gaps.read()
    outcome.tail = (connection.tail_before or b"") + (connection.tail or b"")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt gave no answer. `label` goes into metrics.

    `transient`: the same endpoint may be asked again. `ends`: nobody else is asked. `answer`: the server's
    own words, to be passed on if nobody else answers.
    """

    error: GatewayError
    label: str
    transient: bool = False
    ends: bool = False
    answer: Answer | None = None


def _refused(answer: Answer) -> Failure:
    label = f"status_{answer.status}"
    if answer.status == 429:
        return Failure(Overloaded("the server is overloaded"), label, answer=answer)
    said = server_message(answer)
    message = f"the server answered {answer.status}" + (f": {said}" if said else "")
    kind = UpstreamTimeout if answer.status == 504 else UpstreamFailed
    return Failure(kind(message), label)


def _failed(reason: str) -> Failure:
    if reason.startswith("malformed"):
        return Failure(UpstreamFailed("the server's answer was malformed", detail=reason), "malformed")
    if reason == "error event":
        return Failure(
            UpstreamFailed("the server began its stream with an error", detail=reason), "error_event"
        )
    if reason.startswith("status"):
        return Failure(
            UpstreamFailed(f"the server answered with {reason}", detail=reason), reason.replace(" ", "_")
        )
    return Failure(UpstreamFailed("the server closed the connection", detail=reason), reason, transient=True)


def _nobody(group: Group, plan: Plan, terms: Terms) -> GatewayError:
    target = f"tier {plan.target.tier}" if plan.target.name is None else f"endpoint {plan.target.name}"
    if group.vacancy() == "full":
        return Overloaded(f"every endpoint of {target} is busy", retry_after_s=1)
    return NoEndpoint(f"no healthy endpoint in {target}", retry_after_s=terms.retry_after_s)
