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
from octoroute.admission.limits import used_tokens
from octoroute.admission.queue import Bounds
from octoroute.admission.shares import TENANTS
from octoroute.balance.group import FatalSelectionError
from octoroute.config import Config
from octoroute.errors import ConfigError, Internal
from octoroute.exchange import TIERS, Outcome, Plan, RequestView, Target
from octoroute.gatekeeper import Gatekeeper
from octoroute.observe.choices import Choices
from octoroute.observe.line_writer import LineWriter
from octoroute.observe.metrics import INTER_TOKEN_S
from octoroute.observe.recent import Recent, Wanted
from octoroute.observe.record import Recorder
from octoroute.observe.request_log import FORMATS, enabled
from octoroute.routing.decide import decide
from octoroute.routing.question import Question
from octoroute.shared_memory import Shared
from octoroute.sharing.limits import SharedLimits
from octoroute.sharing.line import require_client
from octoroute.snapshot import Snapshot, compile_snapshot
from octoroute.upstream.ask import Asker
from octoroute.upstream.client import Client
from octoroute.upstream.forward import Forwarding
from octoroute.upstream.forwarder import Forwarder
from octoroute.upstream.load import LoadPoller
from octoroute.upstream.probe import Prober
from octoroute.upstream.rounds import Rounds
from octoroute.upstream.sites import Sites
from octoroute.upstream.waiting import prompt_tokens
from octoroute.upstream.waiting_rooms import WaitingRooms

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
HOUSEKEEPING_SECONDS = 1.0
# Several housekeepings, so that a busy moment loses nobody the probing. A worker that dies gives it back at
# once.
PROBING_LEASE_SECONDS = 10.0
# Vectors, scores and tokens of another tier's model would be no answer at all.
GENERATING = frozenset(("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"))
LOST = "octoroute_metrics_recording_failures_total"
UNTRACKED = "octoroute_health_tracking_failures_total"
CRASHES = "octoroute_background_health_task_failures_total"

set_gap_bounds(INTER_TOKEN_S)


class Gateway:
    """One worker's gateway. `start` and `close` it inside its event loop."""

    def __init__(self, config: Config, shared: Shared | None = None, *, worker: int = 0) -> None:
        self.shared = shared or Shared()
        self.shared.bind(worker)
        self.snapshot: Snapshot = compile_snapshot(config, self.shared.state, self.shared.prefixes)
        self.shared.snapshot = self.snapshot
        self.registry = self.shared.registry
        self.lines = LineWriter(2, self.registry.counter(LOST, "request_log").add)
        self.recent = Recent(config.observability.recent_requests)
        self.recorder = self._recorder(config)
        self.choices = Choices(self.registry, self.shared.prefixes)
        self.worker = worker
        self.sharing = self._sharing(config)
        self.keys = self._gatekeeper(config)
        self.queues = WaitingRooms(self.registry, self.shared.board, self.shared.state.bells, worker)
        self._configure_queues()
        self.forwarder = Forwarder(self.queues)
        self.sites = Sites(self.forwarder.outbox, self.forwarder.poller)
        self.sites.furnish(self.snapshot)
        self.asker = self._asker(config)
        asked = (lambda: self.snapshot, self.sites, self.forwarder.active)
        self.prober = Prober(*asked)
        crashes = self.registry.counter(CRASHES, "crash")
        self.probing = Rounds(self.prober, crashes.inc, "probing the endpoints")
        crashes = self.registry.counter(CRASHES, "load_crash")
        self.polling = Rounds(LoadPoller(*asked), crashes.inc, "asking servers for their load")
        self.started_s = time.monotonic()
        self.draining = False
        self.on_fatal: Callable[[], None] = lambda: None
        self.ask_reload: Callable[[], Awaitable[dict[str, Any]]] = _no_supervisor
        self.ask_upgrade: Callable[[], Awaitable[dict[str, Any]]] = _no_supervisor
        self.ask_recent: Callable[[Wanted], Awaitable[dict[str, Any]]] = self._own_recent
        self.housekeeping: list[Callable[[], None]] = [
            self.sites.expire,
            self.sites.hear_kinds,
            self._refresh,
            self._count_choices,
            self.forwarder.note_activity,
            self.forwarder.mark,
            self._claim_probing,
            self._beat,
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._sharing_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts the deadlines' tick, the housekeeping and the probes."""
        self._claim_probing()
        self.queues.listen()
        self._run(self._every(TICK_SECONDS, [self.forwarder.tick, self.lines.flush]))
        self._run(self._every(HOUSEKEEPING_SECONDS, self.housekeeping))
        self._run(self.probing.run())
        self._run(self.polling.run())
        self._start_sharing()

    async def close(self) -> None:
        """Ends the tasks and closes every idle connection to a server."""
        self.queues.close()
        self._stop_sharing()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.prober.close()
        self.sites.close()
        self.forwarder.poller.close()
        self.lines.flush()

    def reload(self, config: Config) -> None:
        """From here new requests follow `config`; those that run end as they began. On an error all stays
        as it was.
        """
        before = self.snapshot.config
        snapshot = compile_snapshot(config, self.shared.state, self.shared.prefixes)
        self.sites.furnish(snapshot)
        self._count_choices()
        _let_the_file_win(self.snapshot, snapshot)
        self.snapshot = self.shared.snapshot = snapshot
        self.recent.resize(config.observability.recent_requests)
        self.recorder = self._recorder(config)
        if (before.shared, not before.auth.keys) != (config.shared, not config.auth.keys):
            self._stop_sharing()
            self.sharing = self._sharing(config, self.sharing)
            self._start_sharing()
        if (before.auth, before.shared) != (config.auth, config.shared):
            self.keys = self._gatekeeper(config)
        self._configure_queues()
        if (_models(before), before.routing) != (_models(config), config.routing):
            self.asker = self._asker(config)
        if (before.models, before.health) != (config.models, config.health):
            self.prober.again()

    def decide(self, view: RequestView, snapshot: Snapshot) -> Plan | Question:
        """Where a request goes, or what has to be asked first. Raises InvalidRequest."""
        began = time.monotonic_ns()
        plan = decide(view, snapshot.routing)
        if plan.facts is None or isinstance(plan, Question):
            return plan
        return replace(plan, routing_ms=(time.monotonic_ns() - began) * 1e-6)

    async def ask(self, question: Question, snapshot: Snapshot) -> Plan:
        """Where a model says that a request goes. Raises RouterFailed, NoEndpoint."""
        began = time.monotonic_ns()
        config = snapshot.config
        tier = await self.asker.ask(
            question,
            snapshot.groups[Target(question.tier)],
            getattr(config.routing.router_timeouts, question.tier),
            config.health.failures,
        )
        return replace(question.plan(tier), routing_ms=(time.monotonic_ns() - began) * 1e-6)

    def forwarding(
        self,
        view: RequestView,
        plan: Plan,
        snapshot: Snapshot,
        client: Client,
        outcome: Outcome,
        done: Callable[[BaseException | None], None],
    ) -> Forwarding:
        """What has a request answered by an endpoint of its plan's target."""
        return Forwarding(
            self.forwarder,
            view,
            plan,
            snapshot.groups[plan.target],
            self.sites,
            snapshot.terms[plan.target.tier],
            client,
            outcome,
            done,
        )

    def stand_ins(self, view: RequestView, plan: Plan, snapshot: Snapshot) -> Iterator[Target]:
        """The tiers to try, one after the other, where the plan's has no endpoint able to answer."""
        others = snapshot.fallbacks.get(plan.target, ()) if view.path in GENERATING else ()
        return (other for other in others if other.tier in view.tiers)

    def record(self, view: RequestView, plan: Plan | None, outcome: Outcome) -> None:
        """Tells metrics and log what came of a request."""
        self.recorder.record(view, plan, outcome)

    def settle(self, view: RequestView, plan: Plan, outcome: Outcome) -> None:
        """What a tier charged a request for its place, it has used or not: it is over there."""
        charged, outcome.charged = outcome.charged, 0
        used = used_tokens(prompt_tokens(view), outcome)
        self.queues[plan.target.tier].settle(view, plan.target, charged, used)

    def fail_fatally(self, error: FatalSelectionError) -> None:
        """This process can't be trusted any more: it drains and ends, and the supervisor starts a clean
        one.
        """
        log.critical("%s", error)
        self.on_fatal()

    def _configure_queues(self) -> None:
        queue, groups = self.snapshot.config.queue, self.snapshot.groups
        bounds = Bounds(queue.max_waiting, queue.max_wait_seconds, queue.max_waiting_bytes)
        hopes = {tier: self.snapshot.terms[tier].hope_s for tier in TIERS}
        rows = {each.name: TENANTS + each.slot for each in self.keys.tenants} if self.keys else {}
        self.queues.configure(bounds, self.snapshot.config.routing.default_importance, groups, rows, hopes)

    def _recorder(self, config: Config) -> Recorder:
        observability = config.observability
        return Recorder(
            self.registry,
            self.recent,
            FORMATS[observability.log_format],
            self.lines.write if enabled(observability.request_log) else None,
        )

    async def _own_recent(self, wanted: Wanted) -> dict[str, Any]:
        """Without a supervisor, this gateway is all there is."""
        return {"parts": [self.recent.latest(wanted)], "asked": 1}

    def _gatekeeper(self, config: Config) -> Gatekeeper | None:
        """None where there are no keys: then everybody may, and nothing is looked at."""
        if not config.auth.keys:
            return None
        return Gatekeeper(config.auth, self.shared.limits, self.registry, self.sharing)

    def _sharing(self, config: Config, before: SharedLimits | None = None) -> SharedLimits | None:
        """The limits across gateways. Raises ConfigError where what that needs is not installed."""
        url = config.shared.redis_url.get_secret_value()
        if not url or not config.auth.keys:
            return None
        failures = self.registry.bound("octoroute_shared_limits_failures_total")
        return SharedLimits(
            url,
            self.shared.outage,
            self.worker,
            lambda: self.keys.tenants if self.keys is not None else (),
            lambda reason: failures[(reason,)].inc(),
            before,
        )

    def _start_sharing(self) -> None:
        if self.sharing is not None:
            self._sharing_task = self._run(self.sharing.run())

    def _stop_sharing(self) -> None:
        if self._sharing_task is not None:
            self._sharing_task.cancel()
            self._sharing_task = None

    def _beat(self) -> None:
        if self.sharing is not None:
            self.sharing.beat()

    def _asker(self, config: Config) -> Asker:
        return Asker(self.sites, self.forwarder.active, self.queues, config.routing.decision_cache_entries)

    def _claim_probing(self) -> None:
        """One worker of all probes: the first that asks, until it no longer does."""
        if not self.draining:
            mine = self.shared.state.may_probe(time.monotonic(), PROBING_LEASE_SECONDS)
            self.probing.on_duty(mine)
            self.polling.on_duty(mine)

    def _refresh(self) -> None:
        now = time.monotonic()
        try:
            for group in self.snapshot.groups.values():
                group.refresh(now)
        except FatalSelectionError as error:
            self.fail_fatally(error)

    def _count_choices(self) -> None:
        self.choices.flush(self.snapshot.groups.values())

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks = [*(other for other in self._tasks if not other.done()), task]
        return task

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
    require_client(config.shared.redis_url.get_secret_value())
    try:
        Gateway(config)
    except MemoryError as error:
        raise ConfigError("models", [str(error)]) from None


def _models(config: Config) -> set[tuple[str, str, str]]:
    """Which models there are, by tier; how many servers have them says nothing about what they decide."""
    return {(tier, model.name, model.model) for tier in TIERS for model in config.models.of(tier)}


def _let_the_file_win(old: Snapshot, new: Snapshot) -> None:
    """A live weight ends where the file has another weight now than when it was set."""
    before = {endpoint.slot: endpoint.spec.weight for endpoint in old.endpoints}
    for endpoint in new.endpoints:
        if before.get(endpoint.slot, endpoint.spec.weight) != endpoint.spec.weight:
            endpoint.set_weight(None)


async def _no_supervisor() -> dict[str, Any]:
    raise Internal("this gateway runs without a supervisor, which would do that")
