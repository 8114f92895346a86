"""What the workers of one machine share: endpoints' live state, what tenants used, who waits, metrics.

All of it is mapped once, before the workers are forked, and read here for the metrics of any of them.
"""

import time
from collections.abc import Iterator

from octoroute._limits import LimitTable
from octoroute._state import FleetState
from octoroute.admission.board import WaitingBoard
from octoroute.balance.group import PrefixIndex
from octoroute.exchange import TIERS
from octoroute.observe.registry import Registry
from octoroute.observe.sources import SourceBoard
from octoroute.sharing.outage import Outage
from octoroute.snapshot import Snapshot, trusted_s


class Shared:
    """Made before the workers are forked. `spare` columns are for those that drain while another has taken
    their place.
    """

    def __init__(self, workers: int = 1, spare: int = 0) -> None:
        self.workers = workers
        self.started_s = time.monotonic()
        self.state = FleetState(workers=workers + spare)
        self.prefixes = PrefixIndex()
        self.limits = LimitTable(workers=workers + spare)
        self.board = WaitingBoard(workers + spare, self.limits.slots)
        self.outage = Outage(workers + spare)
        self.sources = SourceBoard()
        self.registry = Registry(
            workers + spare,
            self._in_flight,
            self._endpoints_up,
            self._loads,
            self._waiting,
            lambda: self.outage.away,
            self.sources.read,
        )
        # Of this process; set by its gateway.
        self.snapshot: Snapshot | None = None

    def bind(self, worker: int) -> None:
        """From here this process is the worker of that number."""
        self.state.worker = self.limits.worker = worker
        self.registry.bind(worker)

    def reclaim(self, worker: int) -> None:
        """After a worker's end: what it had under way counts no longer."""
        self.state.reclaim(worker)
        self.limits.reclaim(worker)
        self.board.clear(worker)
        self.outage.note(worker, "connecting")

    def _in_flight(self) -> Iterator[tuple[str, int]]:
        for endpoint in self.snapshot.endpoints if self.snapshot else ():
            yield endpoint.spec.tier, endpoint.in_flight

    def _endpoints_up(self) -> Iterator[tuple[str, str, bool]]:
        for endpoint in self.snapshot.endpoints if self.snapshot else ():
            yield endpoint.spec.tier, endpoint.spec.name, endpoint.healthy

    def _waiting(self) -> Iterator[tuple[str, int]]:
        for tier in TIERS:
            yield tier, self.board.waiting(tier)

    def _loads(self) -> Iterator[tuple[str, str, str, float]]:
        if self.snapshot is None:
            return
        fresh = time.monotonic() - trusted_s(self.snapshot.config)
        for endpoint in self.snapshot.endpoints:
            names, seen = (endpoint.spec.tier, endpoint.spec.name), endpoint.seen
            if seen["load_at"] >= fresh:
                yield *names, "running", seen["running"]
                yield *names, "waiting", seen["waiting"]
                yield *names, "kv_use", seen["kv_use"]
                yield *names, "asleep", endpoint.asleep
