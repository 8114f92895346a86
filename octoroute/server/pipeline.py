"""The pipeline of every route that a model server answers: decide, forward, record. One class,
`ActiveRequest`, top to bottom.

It goes on as far as it can without waiting, so that the usual request needs no task: what has to wait (a
question to a model, another attempt) makes one.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Final

from octoroute.errors import GatewayError
from octoroute.exchange import Outcome, Plan, RequestView, Target
from octoroute.gatekeeper import Visit
from octoroute.gateway import Gateway
from octoroute.routing.question import Question
from octoroute.upstream.client import Client
from octoroute.upstream.forward import Forwarding

# For the log only: nobody is left to be told. nginx's number for it.
CLIENT_GONE: Final = 499

Done = Callable[[BaseException | None], None]


class ActiveRequest:
    """A request that has been read. `start` it; `done` is called once: with None where the client has its
    answer, else with why there is none: an error that can still be told as a status, or CancelledError where
    the client left.
    """

    def __init__(
        self, view: RequestView, client: Client, gateway: Gateway, done: Done, visit: Visit | None = None
    ) -> None:
        self.view = view
        self.client = client
        self.gateway = gateway
        self.snapshot = gateway.snapshot
        self.outcome = Outcome()
        self.plan: Plan | None = None
        self._done = done
        self._visit = visit  # where the client has a key
        self._forwarding: Forwarding | None = None
        self._task: asyncio.Task[None] | None = None
        self._stand_ins: Iterator[Target] | None = None
        self._error: GatewayError | None = None  # of the tier that others stand in for

    def start(self) -> None:
        """Never raises, never waits."""
        try:
            plan = self.gateway.decide(self.view, self.snapshot)
            if isinstance(plan, Question):
                self._go_on(self._ask(plan))
            else:
                self._admit(plan)
        except BaseException as error:
            self._end(error)

    def cancel(self) -> None:
        """The client has left."""
        if self._forwarding is not None:
            self._forwarding.cancel()
        elif self._task is not None:
            self._task.cancel()

    def _go_on(self, work: Coroutine[None, None, None]) -> None:
        self._task = task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._went_on)

    def _went_on(self, task: asyncio.Task[None]) -> None:
        # One that is cancelled before its first step never takes it.
        if task.cancelled():
            self._end(asyncio.CancelledError())

    async def _ask(self, question: Question) -> None:
        try:
            self._admit(await self.gateway.ask(question, self.snapshot))
        except BaseException as error:
            self._end(error)

    def _admit(self, plan: Plan) -> None:
        visit = self._visit
        if visit is not None:
            plan = visit.admit(self.view, plan)
            if visit.must_confirm:
                self._go_on(self._confirm(visit, plan))
                return
        self._forward(plan)

    async def _confirm(self, visit: Visit, plan: Plan) -> None:
        try:
            self._forward(await visit.confirm(plan))
        except BaseException as error:
            self._end(error)

    def _forward(self, plan: Plan) -> None:
        self.plan = plan
        self._forwarding = forwarding = self.gateway.forwarding(
            self.view, plan, self.snapshot, self.client, self.outcome, self._forwarded
        )
        forwarding.start()

    def _forwarded(self, error: BaseException | None) -> None:
        if isinstance(error, GatewayError) and error.retryable:
            try:
                if self._fall_back(error):
                    return
            except BaseException as raised:
                error = raised
        self._end(error)

    def _fall_back(self, error: GatewayError) -> bool:
        """Whether another tier stands in. Where none is able to answer, the error is that of the first."""
        plan, outcome = self.plan, self.outcome
        assert plan is not None
        if self._stand_ins is None:
            self._stand_ins = self.gateway.stand_ins(self.view, plan, self.snapshot)
            self._error = error
        target = next(self._stand_ins, None)
        if target is None:
            raise self._error or error
        self.gateway.recorder.fell_back(plan, target, outcome)
        if outcome.charged:
            self.gateway.settle(self.view, plan, outcome)
        outcome.earlier_attempts += outcome.attempts
        outcome.attempts = 0
        outcome.failures.clear()
        self._forward(plan.fall_back(target))
        return True

    def _end(self, error: BaseException | None) -> None:
        outcome = self.outcome
        told = error is not None and self._settled(error)
        outcome.duration_s = (time.monotonic_ns() - self.view.read_ns) * 1e-9
        self.gateway.record(self.view, self.plan, outcome)
        if outcome.charged and self.plan is not None:
            self.gateway.settle(self.view, self.plan, outcome)
        if self._visit is not None:
            self._visit.leave(outcome)
        # It holds `_forwarded`, so this object: a cycle, and the prompt in it. So does an error's traceback.
        self._forwarding = self._task = None
        self._done(None if told else error)
        if isinstance(error, GatewayError):
            error.__traceback__ = None

    def _settled(self, error: BaseException) -> bool:
        """Notes what went wrong; whether the client has been told already."""
        outcome = self.outcome
        if isinstance(error, asyncio.CancelledError):
            outcome.result = "client_gone"
            outcome.status = outcome.status or CLIENT_GONE
            return False
        if not isinstance(error, GatewayError):
            outcome.status = 500
            outcome.error = type(error).__name__
            return False
        outcome.error = str(error) if not error.detail else f"{error}: {error.detail}"
        if not self.client.started:
            outcome.status = error.status
            if self.plan is not None and self.snapshot.config.server.why_headers:
                error.headers = {
                    "x-octoroute-tier": self.plan.target.tier,
                    "x-octoroute-attempts": str(outcome.attempts),
                    # The lines of the last endpoint that was asked, or what is known without one.
                    **_pairs(self.client.why or self.plan.why),
                    **error.headers,
                }
            return False
        outcome.status = 200
        self.client.break_off(error, clean=True)
        return True


def _pairs(lines: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines.decode().split("\r\n") if line)


def _tell(finished: asyncio.Future[BaseException | None], error: BaseException | None) -> None:
    if not finished.done():
        finished.set_result(error)


async def serve(
    view: RequestView, client: Client, gateway: Gateway, visit: Visit | None = None
) -> ActiveRequest:
    """The pipeline for a handler that waits: the request when it is over. Raises what `done` would get."""
    # A function in here would refer to itself, and keep the prompt until the garbage collector's turn.
    finished: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    active = ActiveRequest(view, client, gateway, partial(_tell, finished), visit)
    active.start()
    try:
        error = await finished
    except asyncio.CancelledError:
        active.cancel()
        raise
    if error is not None:
        try:
            raise error
        finally:
            # Its traceback holds this frame: the frame must not hold it.
            del error, finished
    return active
