"""Composition root: builds and owns the snapshot, the pools, the exchanges under way and the tasks beside
them. A reload swaps the snapshot: one reference; requests that run keep theirs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

from octoroute._gaps import set_gap_bounds
from octoroute._state import FleetState
from octoroute.balance.group import FatalSelectionError
from octoroute.config import Config
from octoroute.errors import ConfigError, GatewayError, Internal
from octoroute.exchange import Outcome, Plan, RequestView, Target
from octoroute.observe.line_writer import LineWriter
from octoroute.observe.metrics import INTER_TOKEN_S
from octoroute.observe.recent import Recent
from octoroute.observe.record import Recorder
from octoroute.observe.registry import Registry
from octoroute.observe.request_log import FORMATS, enabled
from octoroute.routing.decide import decide
from octoroute.routing.question import Question
from octoroute.snapshot import Snapshot, compile_snapshot
from octoroute.upstream.ask import Asker
from octoroute.upstream.forward import Client, Forwarder
from octoroute.upstream.probe import Prober
from octoroute.upstream.sites import Sites

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
HOUSEKEEPING_SECONDS = 1.0
# Several housekeepings, so that a busy moment loses nobody the probing. A worker that dies gives it back at
# once.
PROBING_LEASE_SECONDS = 10.0
RECENT_REQUESTS = 1000
# Vectors, scores and tokens of another tier's model would be no answer at all.
GENERATING = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"))
LOST = "octoroute_metrics_recording_failures_total"
UNTRACKED = "octoroute_health_tracking_failures_total"
CRASHES = "octoroute_background_health_task_failures_total"

set_gap_bounds(INTER_TOKEN_S)


class Shared:
    """What all workers share: the endpoints' live state and the metrics' cells. Made before they are
    forked. `spare` columns are for those that drain while another has taken their place.
    """

    def __init__(self, workers: int = 1, spare: int = 0) -> None:
        self.workers = workers
        self.started_s = time.monotonic()
        self.state = FleetState(workers=workers + spare)
        self.registry = Registry(workers + spare, self._in_flight, self._endpoints_up)
        # Of this process; set by its gateway.
        self.snapshot: Snapshot | None = None

    def bind(self, worker: int) -> None:
        """From here this process is the worker of that number."""
        self.state.worker = worker
        self.registry.bind(worker)

    def _in_flight(self) -> Iterator[tuple[str, int]]:
        for endpoint in self.snapshot.endpoints if self.snapshot else ():
            yield endpoint.spec.tier, endpoint.in_flight

    def _endpoints_up(self) -> Iterator[tuple[str, str, bool]]:
        for endpoint in self.snapshot.endpoints if self.snapshot else ():
            yield endpoint.spec.tier, endpoint.spec.name, endpoint.healthy


class Gateway:
    """One worker's gateway. `start` and `close` it inside its event loop."""

    def __init__(self, config: Config, shared: Shared | None = None, *, worker: int = 0) -> None:
        self.shared = shared or Shared()
        self.shared.bind(worker)
        self.snapshot: Snapshot = compile_snapshot(config, self.shared.state)
        self.shared.snapshot = self.snapshot
        self.registry = self.shared.registry
        self.lines = LineWriter(2, self.registry.counter(LOST, "request_log").add)
        self.recent = Recent(RECENT_REQUESTS)
        self.recorder = self._recorder(config)
        self.forwarder = Forwarder()
        self.sites = Sites(self.forwarder.outbox)
        self.sites.furnish(self.snapshot)
        self.asker = self._asker(config)
        self.prober = Prober(
            lambda: self.snapshot,
            self.sites,
            self.forwarder.active,
            self.registry.counter(CRASHES, "crash").inc,
        )
        self.started_s = time.monotonic()
        self.draining = False
        self.on_fatal: Callable[[], None] = lambda: None
        self.ask_reload: Callable[[], Awaitable[dict[str, Any]]] = _nobody_reloads
        self.housekeeping: list[Callable[[], None]] = [
            self.sites.expire,
            self._refresh,
            self.forwarder.note_activity,
            self._claim_probing,
        ]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Starts the deadlines' tick, the housekeeping and the probes."""
        self._claim_probing()
        self._run(self._every(TICK_SECONDS, [self.forwarder.tick, self.lines.flush]))
        self._run(self._every(HOUSEKEEPING_SECONDS, self.housekeeping))
        self._run(self.prober.run())

    async def close(self) -> None:
        """Ends the tasks and closes every idle connection to a server."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.sites.close()
        self.lines.flush()

    def reload(self, config: Config) -> None:
        """From here new requests follow `config`; those that run end as they began. On an error all stays
        as it was.
        """
        before = self.snapshot.config
        snapshot = compile_snapshot(config, self.shared.state)
        self.sites.furnish(snapshot)
        _let_the_file_win(self.snapshot, snapshot)
        self.snapshot = self.shared.snapshot = snapshot
        self.recorder = self._recorder(config)
        if (before.models, before.routing) != (config.models, config.routing):
            self.asker = self._asker(config)
        if (before.models, before.health) != (config.models, config.health):
            self.prober.hurry()

    async def decide(self, view: RequestView, snapshot: Snapshot) -> Plan:
        """Where a request goes. Raises InvalidRequest, or RouterFailed where a model had to be asked and
        gave no answer.
        """
        began = time.monotonic_ns()
        plan = decide(view, snapshot.routing)
        if plan.facts is None:
            return plan
        if isinstance(plan, Question):
            config = snapshot.config
            tier = await self.asker.ask(
                plan,
                snapshot.groups[Target(plan.tier)],
                getattr(config.routing.router_timeouts, plan.tier),
                config.health.failures,
            )
            plan = plan.plan(tier)
        return replace(plan, routing_ms=(time.monotonic_ns() - began) * 1e-6)

    def forward(
        self, view: RequestView, plan: Plan, snapshot: Snapshot, client: Client, outcome: Outcome
    ) -> Coroutine[Any, Any, None]:
        """Has a request answered by an endpoint of its plan's target, or of a tier that stands in for it.
        Raises GatewayError.
        """
        if snapshot.fallbacks and plan.target in snapshot.fallbacks and view.path in GENERATING:
            return self._forward_or_fall_back(view, plan, snapshot, client, outcome)
        return self._forward(view, plan, snapshot, client, outcome)

    def record(self, view: RequestView, plan: Plan | None, outcome: Outcome) -> None:
        """Tells metrics and log what came of a request."""
        self.recorder.record(view, outcome.plan or plan, outcome)

    def fail_fatally(self, error: FatalSelectionError) -> None:
        """This process can't be trusted any more: it drains and ends, and the supervisor starts a clean
        one.
        """
        log.critical("%s", error)
        self.on_fatal()

    def _forward(
        self, view: RequestView, plan: Plan, snapshot: Snapshot, client: Client, outcome: Outcome
    ) -> Coroutine[Any, Any, None]:
        return self.forwarder.forward(
            view,
            plan,
            snapshot.groups[plan.target],
            self.sites,
            snapshot.terms[plan.target.tier],
            client,
            outcome,
        )

    async def _forward_or_fall_back(
        self, view: RequestView, plan: Plan, snapshot: Snapshot, client: Client, outcome: Outcome
    ) -> None:
        """Where no tier is able to answer, the error is that of the first."""
        others = iter(snapshot.fallbacks[plan.target])
        first: GatewayError | None = None
        while True:
            try:
                return await self._forward(view, plan, snapshot, client, outcome)
            except GatewayError as error:
                if not error.retryable:
                    raise
                first = first or error
                target = next(others, None)
                if target is None:
                    raise first from None
            self.recorder.fell_back(plan, target, outcome)
            plan = outcome.plan = plan.fall_back(target)
            outcome.earlier_attempts += outcome.attempts
            outcome.attempts = 0
            outcome.failures.clear()

    def _recorder(self, config: Config) -> Recorder:
        observability = config.observability
        return Recorder(
            self.registry,
            self.recent,
            FORMATS[observability.log_format],
            self.lines.write if enabled(observability.request_log) else None,
        )

    def _asker(self, config: Config) -> Asker:
        return Asker(self.sites, self.forwarder.active, config.routing.decision_cache_entries)

    def _claim_probing(self) -> None:
        """One worker of all probes: the first that asks, until it no longer does."""
        if not self.draining:
            self.prober.on_duty(self.shared.state.may_probe(time.monotonic(), PROBING_LEASE_SECONDS))

    def _refresh(self) -> None:
        now = time.monotonic()
        try:
            for group in self.snapshot.groups.values():
                group.refresh(now)
        except FatalSelectionError as error:
            self.fail_fatally(error)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))

    @staticmethod
    async def _every(seconds: float, calls: list[Callable[[], None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            for call in calls:
                try:
                    call()
                except Exception:
                    log.exception("%r failed", call)


def try_out(config: Config) -> None:
    """Builds a gateway of a config and drops it, to see that the workers can. Raises ConfigError."""
    try:
        Gateway(config)
    except MemoryError as error:
        raise ConfigError("models", [str(error)]) from None


def _let_the_file_win(old: Snapshot, new: Snapshot) -> None:
    """A live weight ends where the file has another weight now than when it was set."""
    before = {endpoint.slot: endpoint.spec.weight for endpoint in old.endpoints}
    for endpoint in new.endpoints:
        if before.get(endpoint.slot, endpoint.spec.weight) != endpoint.spec.weight:
            endpoint.set_weight(None)


async def _nobody_reloads() -> dict[str, Any]:
    raise Internal("this gateway runs without a supervisor, which would reload its config")
