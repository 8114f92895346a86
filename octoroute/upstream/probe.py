"""Asks every endpoint now and then whether it works: `GET {base_url}/models`, with a look at what comes back.
How often, balance/pace.py says.

A slow answer is no proof of death: a llama.cpp server in the middle of a burst answers nobody for seconds
while its streams flow. So a probe that does not come back in time counts only where nothing else came from
that endpoint either.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping

import orjson

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.balance.breaker import Probe, record_probe
from octoroute.balance.endpoint import Endpoint
from octoroute.balance.pace import Intervals, Pace
from octoroute.errors import UpstreamFailed
from octoroute.snapshot import Snapshot
from octoroute.upstream.connection import Connection, Verdict
from octoroute.upstream.kind import note_kind, told_kind
from octoroute.upstream.site import Site

log = logging.getLogger(__name__)

MAX_CONCURRENT = 64
TICK_SECONDS = 0.25


class Nowhere:
    """The client's side of a probe: there is none. A list of models beyond the held size is still a list
    of models.
    """

    started = False

    def start(self, head: Head, relay: Relay) -> None:  # noqa: ARG002
        relay.pass_on(self._drop, b"")

    def announce(self, head: Head, relay: Relay) -> None: ...

    def ping(self, relay: Relay) -> None: ...

    def _drop(self, data: bytes) -> None: ...


class Prober:
    """`round` sees to the probes; when rounds are made, rounds.py says."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        sites: Mapping[Endpoint, Site],
        active: dict[Connection, Endpoint],
    ) -> None:
        self.snapshot = snapshot
        self.sites = sites
        self.active = active
        self._paces: dict[int, Pace] = {}  # by slot
        # Of the last look at all endpoints: which they were and how they were. While nothing of that changes,
        # nothing is due before `_quiet_until`, and a fleet of thousands costs nothing.
        self._seen: tuple[Snapshot | None, int] = None, 0
        self._quiet_until = 0.0
        self._gate = asyncio.Semaphore(MAX_CONCURRENT)
        self._under_way: dict[int, asyncio.Task[None]] = {}  # by slot

    def interval_s(self) -> float:
        """Between two rounds: looks whose probe is due."""
        return min(TICK_SECONDS, self.snapshot().config.health.interval_seconds)

    def again(self) -> None:
        """The next round probes all endpoints: there are other ones, or other rules."""
        self._paces.clear()
        self._seen = None, 0

    async def round(self) -> None:
        """Begins the probes that are due, and waits for none: a server that is silent holds up no others.
        Raises what a probe has crashed with.
        """
        for slot, task in list(self._under_way.items()):
            if task.done():
                del self._under_way[slot]
                task.result()
        snapshot = self.snapshot()
        endpoints, health = snapshot.endpoints, snapshot.config.health
        now = time.monotonic()
        # Read before the endpoints are looked at: what changes meanwhile is seen by the next round.
        generation = endpoints[0].state.generation if endpoints else 0
        same = self._seen[0] is snapshot and self._seen[1] == generation
        if same and now < self._quiet_until and not self._under_way:
            return
        intervals = Intervals(health.interval_seconds, health.unhealthy_interval_seconds)
        self._paces = {each.slot: self._paces.get(each.slot) or Pace() for each in endpoints}
        served = {each.spec.tier for each in endpoints if each.healthy}
        sizes = Counter(each.spec.tier for each in endpoints)
        for endpoint in endpoints:
            slot, pace = endpoint.slot, self._paces[endpoint.slot]
            since = endpoint.state.healthy_since(slot) if endpoint.healthy else None
            tier = endpoint.spec.tier
            needed = tier not in served and sizes[tier] <= MAX_CONCURRENT
            if slot not in self._under_way and pace.due(now, since, intervals, needed=needed):
                pace.note(now, intervals)
                self._under_way[slot] = asyncio.create_task(self._probe_in_turn(endpoint))
        well = all(each.healthy for each in endpoints)
        asked = min((pace.asked for pace in self._paces.values()), default=now)
        self._seen = snapshot, generation
        self._quiet_until = asked + intervals.healthy_s if well else now

    async def close(self) -> None:
        """Ends the probes under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _probe_in_turn(self, endpoint: Endpoint) -> None:
        async with self._gate:
            await self.probe(endpoint)

    async def probe(self, endpoint: Endpoint) -> None:
        """Probes one endpoint and books the result."""
        config = self.snapshot().config.health
        site = self.sites.get(endpoint)
        if site is None:
            return
        problem, timed_out = await self._ask(endpoint, config.path, config.timeout_seconds)
        probe = Probe(not problem, time.monotonic(), config.timeout_seconds, timed_out)
        change = record_probe(endpoint, probe, failures=config.failures, successes=config.successes)
        if change is not None:
            log.warning("%s: %s", endpoint, problem or "it works again")
        elif problem:
            log.log(
                logging.INFO if endpoint.healthy else logging.DEBUG,
                "%s failed a probe: %s",
                endpoint,
                problem,
            )

    async def _ask(self, endpoint: Endpoint, path: str, timeout_s: float) -> tuple[str, bool]:
        """What is wrong ("" if nothing is), and whether the endpoint merely stayed silent."""
        site = self.sites[endpoint]
        connection: Connection | None = None
        deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        try:
            connection = await site.pool.connect(deadline_ns)
            self.active[connection] = endpoint
            verdict = await connection.inquire(
                site.writer.get(path), Nowhere(), deadline_ns, int(timeout_s * 1e9)
            )
            if verdict is Verdict.WHOLE:
                body = connection.held_payload()
                if path == "/models" and connection.head.status == 200:
                    note_kind(endpoint, site, told_kind(connection.head.headers, body))
                return judge(connection.head.status, body), False
            if verdict is Verdict.STREAMED:
                return "" if connection.head.status == 200 else f"status {connection.head.status}", False
            return connection.reason, verdict is Verdict.TIMEOUT
        except UpstreamFailed as error:
            return error.detail, False
        finally:
            if connection is not None:
                self.active.pop(connection, None)
                connection.close()


def judge(status: int, body: bytes) -> str:
    """What is wrong with an answer to a probe, "" if nothing is.

    LM Studio answers 200 to any route it does not know, so the body has to be a list of models, unless it is
    empty as that of vLLM's /health is.
    """
    if not 200 <= status < 300:
        return f"status {status}"
    if not body:
        return ""
    try:
        value = orjson.loads(body)
    except ValueError:
        return "the answer is not JSON"
    if not isinstance(value, dict):
        return "the answer is not an object"
    if "error" in value:
        return "the answer is an error"
    if "data" in value or "models" in value or value.get("status") in ("ok", "OK", "healthy"):
        return ""
    return "the answer is no list of models"
