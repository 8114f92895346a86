"""Asks a model of the router tier which tier a request should go to: the LLM router's I/O.

What is asked and what the answer means is decided in routing/question.py. Here: at most two attempts, each on
another endpoint, each with a deadline; equal questions that arrive while one is under way wait for its
answer.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.balance.breaker import record_failure, record_success
from octoroute.balance.endpoint import Endpoint
from octoroute.balance.group import Group
from octoroute.errors import NoEndpoint, UpstreamFailed, UpstreamTimeout
from octoroute.exchange import RequestView, Target
from octoroute.routing.question import MAX_BODY_BYTES, Question, QuestionFailed, Step, read_answer
from octoroute.routing.remember import Decisions
from octoroute.upstream.connection import HOLD_BYTES, Connection, Verdict
from octoroute.upstream.site import Site
from octoroute.upstream.waiting import WaitingRoom

log = logging.getLogger(__name__)

ATTEMPTS: Final = 2
PATH: Final = "/v1/chat/completions"
# As what a question waits for a place: it is short, and a request waits for its answer.
WAITER: Final = RequestView("", PATH, b"", {"max_tokens": 16}, "", stream=False, importance="high")

assert MAX_BODY_BYTES <= HOLD_BYTES


class TooLong:
    """The client's side of a question: an answer so long that it would flow is none."""

    started = False

    def start(self, head: Head, relay: Relay) -> None:  # noqa: ARG002
        assert isinstance(relay, Connection)
        relay.settle(Verdict.BROKEN, "too long")

    def announce(self, head: Head, relay: Relay) -> None: ...

    def ping(self, relay: Relay) -> None: ...


class Asker:
    """`ask` returns a tier. One per fleet: what it remembers is worth nothing for another."""

    def __init__(
        self,
        sites: Mapping[Endpoint, Site],
        active: dict[Connection, Endpoint],
        queues: Mapping[str, WaitingRoom],
        remembered: int,
    ) -> None:
        self.sites = sites
        self.active = active
        self.queues = queues
        self.decisions = Decisions(remembered)
        self._asking: dict[bytes, asyncio.Task[str]] = {}
        # Slots of endpoints that take no more than the standard fields.
        self._plain: set[int] = set()

    async def ask(self, question: Question, group: Group, timeout_s: float, failures: int) -> str:
        """The tier that a model chose. `failures`: see Terms. Raises RouterFailed, NoEndpoint,
        Overloaded.
        """
        tier = self.decisions.recall(question.key)
        if tier is not None:
            return tier
        task = self._asking.get(question.key)
        if task is None:
            # A task of its own: the one who asked first may leave while others wait for the answer.
            task = asyncio.get_running_loop().create_task(self._decide(question, group, timeout_s, failures))
            self._asking[question.key] = task
            task.add_done_callback(lambda done: self._asked(question.key, done))
        return await asyncio.shield(task)

    def _asked(self, key: bytes, task: asyncio.Task[str]) -> None:
        del self._asking[key]
        if not task.cancelled() and task.exception() is None:
            self.decisions.remember(key, task.result())

    async def _decide(self, question: Question, group: Group, timeout_s: float, failures: int) -> str:
        tried: list[Endpoint] = []
        failure: QuestionFailed | None = None
        queue = self.queues[question.tier]
        while len(tried) < ATTEMPTS:
            lease = await queue.place(WAITER, Target(question.tier), group, tried)
            if lease is None:
                break
            endpoint = lease.endpoint
            tried.append(endpoint)
            try:
                tier = await self._attempt(question, endpoint, timeout_s)
            except QuestionFailed as error:
                log.info("%s was asked for a tier: %s (%s)", endpoint, error.step, error.detail)
                if not error.retryable:
                    raise
                record_failure(endpoint, failures)
                failure = error
            else:
                record_success(endpoint, time.monotonic())
                return tier
            finally:
                lease.release()
                queue.freed()
        if failure is not None:
            raise failure
        raise NoEndpoint(
            f"no endpoint of tier {question.tier} can be asked which tier to use", retry_after_s=1
        )

    async def _attempt(self, question: Question, endpoint: Endpoint, timeout_s: float) -> str:
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        plain = endpoint.spec.kind == "openai" or endpoint.slot in self._plain
        status, body = await self._exchange(question, endpoint, deadline_ns, plain)
        if status in (400, 422) and not plain:
            # The server may not know the fields that hold a model to one word.
            status, body = await self._exchange(question, endpoint, deadline_ns, True)
            if status == 200:
                self._plain.add(endpoint.slot)
        if status != 200:
            raise QuestionFailed("status", detail=f"status {status}")
        return read_answer(body)

    async def _exchange(
        self, question: Question, endpoint: Endpoint, deadline_ns: int, standard_only: bool
    ) -> tuple[int, bytes]:
        site = self.sites[endpoint]
        request = site.writer.post(
            PATH, question.request_body(endpoint.spec.model, standard_only=standard_only)
        )
        connection = site.pool.take()
        try:
            while True:
                if connection is None:
                    connection = await site.pool.connect(deadline_ns)
                self.active[connection] = endpoint
                verdict = await connection.inquire(request, TooLong(), deadline_ns)
                if verdict is Verdict.FAILED and connection.unanswered and connection.was_reused:
                    self.active.pop(connection, None)
                    connection.close()
                    connection = None
                    continue
                break
            if verdict is Verdict.WHOLE:
                return connection.head.status, connection.held_payload()
            if verdict is Verdict.BROKEN:
                raise QuestionFailed("too_long")
            step: Step = "timeout" if verdict is Verdict.TIMEOUT else "stream"
            raise QuestionFailed(step, detail=connection.reason)
        except UpstreamTimeout as error:
            raise QuestionFailed("timeout", detail=error.detail) from None
        except UpstreamFailed as error:
            raise QuestionFailed("connection", detail=error.detail) from None
        finally:
            if connection is not None:
                self.active.pop(connection, None)
                connection.release()
