"""What the requests of one worker have in common: the exchanges under way with their deadlines, the outbox,
the budgets of retries, the queues.
"""

import time
from collections.abc import Mapping
from typing import Final

from octoroute._poller import Poller
from octoroute._sweep import forgive, sweep
from octoroute.balance.endpoint import Endpoint
from octoroute.balance.retry_budget import RetryBudget
from octoroute.exchange import TIERS
from octoroute.upstream.connection import Connection
from octoroute.upstream.hedge import Hedging
from octoroute.upstream.outbox import Outbox
from octoroute.upstream.waiting import WaitingRoom

# A tick so late comes after a pause of the whole process: it was stopped, its machine moved, others had its
# core. What servers sent meanwhile has not been read yet.
LATE_NS: Final = 1_000_000_000


class Forwarder:
    """`tick` ten times a second, `mark` and `note_activity` about once. `queues` by tier."""

    def __init__(self, queues: Mapping[str, WaitingRoom]) -> None:
        self.outbox = Outbox()
        self.poller = Poller()
        self.active: dict[Connection, Endpoint] = {}
        self.queues = queues
        self.budgets = {tier: RetryBudget() for tier in TIERS}
        self.hedging = {tier: Hedging() for tier in TIERS}
        self._ticked_ns = time.monotonic_ns()

    def mark(self) -> None:
        """Moves the windows of the retry budgets on; about once a second."""
        now = time.monotonic()
        for budget in self.budgets.values():
            budget.mark(now)

    def tick(self) -> None:
        """Looks after deadlines, silence and incomplete events of all exchanges under way, and after those
        that wait for a place.
        """
        now = time.monotonic_ns()
        since_ns, self._ticked_ns = now - self._ticked_ns, now
        if since_ns > LATE_NS:
            forgive(self.active, since_ns)
        else:
            sweep(self.active, now)
        for queue in self.queues.values():
            if queue.waiting:
                queue.look()

    def note_activity(self) -> None:
        """Tells the endpoints when they were last heard of: a slow probe is no proof of death then."""
        for connection, endpoint in self.active.items():
            if connection.head is not None:
                endpoint.state.note_activity(endpoint.slot, connection.last_ns * 1e-9)
