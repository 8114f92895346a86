"""What the requests of one worker have in common: the exchanges under way with their deadlines, the outbox,
the budgets of retries, the queues.
"""

import time
from collections.abc import Mapping

from octoroute._sweep import sweep
from octoroute.balance.endpoint import Endpoint
from octoroute.balance.retry_budget import RetryBudget
from octoroute.exchange import TIERS
from octoroute.upstream.connection import Connection
from octoroute.upstream.hedge import Hedging
from octoroute.upstream.outbox import Outbox
from octoroute.upstream.waiting import WaitingRoom


class Forwarder:
    """`tick` ten times a second, `mark` and `note_activity` about once. `queues` by tier."""

    def __init__(self, queues: Mapping[str, WaitingRoom]) -> None:
        self.outbox = Outbox()
        self.active: dict[Connection, Endpoint] = {}
        self.queues = queues
        self.budgets = {tier: RetryBudget() for tier in TIERS}
        self.hedging = {tier: Hedging() for tier in TIERS}

    def mark(self) -> None:
        """Moves the windows of the retry budgets on; about once a second."""
        now = time.monotonic()
        for budget in self.budgets.values():
            budget.mark(now)

    def tick(self) -> None:
        """Looks after deadlines, silence and incomplete events of all exchanges under way, and after those
        that wait for a place.
        """
        sweep(self.active, time.monotonic_ns())
        for queue in self.queues.values():
            if queue.waiting:
                queue.look()

    def note_activity(self) -> None:
        """Tells the endpoints when they were last heard of: a slow probe is no proof of death then."""
        for connection, endpoint in self.active.items():
            if connection.head is not None:
                endpoint.state.note_activity(endpoint.slot, connection.last_ns * 1e-9)
