"""Asks servers for their load, each `health.load_interval_seconds`, and books the answers for all workers.

One worker does, the one that probes. A server that has several endpoints is asked once for all. What a server
said last is trusted for a few intervals (balance/group.py): one that stops telling works on our own count.

llama.cpp takes each GET /slots for a result, and while results keep coming within a second it does not see
that a client has left; it also wakes up by it, if it sleeps. So it is asked for /props first, which does
neither, and for /slots at most once a second: the config allows no shorter interval.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from octoroute.balance.endpoint import Endpoint
from octoroute.errors import UpstreamFailed
from octoroute.snapshot import Snapshot
from octoroute.upstream.answer import Answer
from octoroute.upstream.connection import Connection
from octoroute.upstream.fetch import fetch
from octoroute.upstream.kind import known_kind
from octoroute.upstream.pool import Pool
from octoroute.upstream.signals import NAMES, Load, Props, read_metrics, read_props, read_slots
from octoroute.upstream.site import Site

log = logging.getLogger(__name__)

LLAMA_CPP: Final = "llama_cpp"
MAX_CONCURRENT: Final = 64
MOST_BYTES: Final = 4_194_304  # of /metrics, which grows with models and engines
# A server that does not have the route is asked again after so long: it may have been replaced.
UNTOLD_SECONDS: Final = 60.0
# How long a llama.cpp that works for us is taken to be as it said it is.
PROPS_SECONDS: Final = 30.0
# A sleeping llama.cpp is woken by a request, which takes seconds: as if so many waited there.
WAKING: Final = 2
# One that said it sleeps, and now says nothing, gets requests again after so long.
BELIEVED_ASLEEP_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 1.0  # between two looks whether polling is on

if TYPE_CHECKING:
    _Memory = WeakKeyDictionary[Pool, "Told"]
else:
    _Memory = WeakKeyDictionary


@dataclass(slots=True)
class Told:
    """What is remembered of a server from one question to the next."""

    props: Props | None = None
    props_until: float = 0.0
    silent_until: float = 0.0


class LoadPoller:
    """`round` polls all servers whose kind is known; the rest is in rounds.py."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        sites: Mapping[Endpoint, Site],
        active: dict[Connection, Endpoint],
    ) -> None:
        self.snapshot = snapshot
        self.sites = sites
        self.active = active
        self._told = _Memory()
        self._polls: Mapping[str, Callable[[Endpoint, Site, float], Awaitable[Load | None]]] = {
            LLAMA_CPP: self._ask_llama_cpp,
            **dict.fromkeys(NAMES, self._ask_metrics),
        }

    def interval_s(self) -> float:
        """Between two rounds."""
        return self.snapshot().config.health.load_interval_seconds or IDLE_SECONDS

    async def round(self) -> None:
        """Polls all servers once, MAX_CONCURRENT at most at a time."""
        snapshot = self.snapshot()
        health = snapshot.config.health
        servers: dict[Pool, list[Endpoint]] = {}
        for endpoint in snapshot.endpoints:
            site = self.sites.get(endpoint)
            if site is None:
                continue
            if health.load_interval_seconds > 0:
                servers.setdefault(site.pool, []).append(endpoint)
            else:
                self._set_asleep(endpoint, False)  # nobody would ever say that it has woken up
        gate = asyncio.Semaphore(MAX_CONCURRENT)
        timeout_s = min(health.load_interval_seconds, health.timeout_seconds)

        async def one(endpoints: list[Endpoint]) -> None:
            async with gate:
                await self.poll(endpoints, timeout_s)

        async with asyncio.TaskGroup() as tasks:
            for endpoints in servers.values():
                tasks.create_task(one(endpoints))

    async def poll(self, endpoints: list[Endpoint], timeout_s: float) -> None:
        """Polls one server, for all endpoints that it is, and books what it says."""
        first = endpoints[0]
        site = self.sites[first]
        kind = known_kind(first, site)
        ask = self._polls.get(kind)
        load: Load | None = None
        own = sum(endpoint.in_flight for endpoint in endpoints)
        if ask is not None:
            try:
                load = await ask(first, site, timeout_s)
            except UpstreamFailed as error:
                log.debug("%s did not tell its load: %s", first, error.detail or error)
                if time.monotonic() - first.seen["load_at"] < BELIEVED_ASLEEP_SECONDS:
                    return
        now = time.monotonic()
        slots = self._slots(kind, site)
        for endpoint in endpoints:
            if slots is not None:
                endpoint.learn_capacity(slots)
            self._set_asleep(endpoint, load is not None and load.asleep)
            if load is not None:
                endpoint.state.note_load(endpoint.slot, load.running, load.waiting, load.kv_use, now, own)

    async def _ask_metrics(self, endpoint: Endpoint, site: Site, timeout_s: float) -> Load | None:
        answer = await self._ask(endpoint, site, "/metrics", timeout_s)
        return None if answer is None else read_metrics(answer.body, NAMES[known_kind(endpoint, site)])

    async def _ask_llama_cpp(self, endpoint: Endpoint, site: Site, timeout_s: float) -> Load | None:
        told = self._told.setdefault(site.pool, Told())
        now = time.monotonic()
        # It does not fall asleep with work to do.
        if told.props is None or endpoint.in_flight == 0 or now >= told.props_until:
            answer = await fetch(
                endpoint, site, self.active, site.writer.get_beside("/props"), timeout_s, MOST_BYTES
            )
            told.props = read_props(answer.body) if answer.status == 200 else None
            told.props_until = now + PROPS_SECONDS
            if told.props is not None and told.props.asleep:
                return Load(0, WAKING)
            if answer.status == 503:
                return None  # it loads its model
        slots = await self._ask(endpoint, site, "/slots", timeout_s)
        return None if slots is None else read_slots(slots.body)

    async def _ask(self, endpoint: Endpoint, site: Site, path: str, timeout_s: float) -> Answer | None:
        """The answer, if it is a good one. A server that has no such route is left alone for a while."""
        told = self._told.setdefault(site.pool, Told())
        if time.monotonic() < told.silent_until:
            return None
        answer = await fetch(endpoint, site, self.active, site.writer.get_beside(path), timeout_s, MOST_BYTES)
        if answer.status == 200:
            return answer
        if answer.status < 500 or answer.status == 501:
            log.info("%s does not tell its load: %s answers %d", endpoint, path, answer.status)
            told.silent_until = time.monotonic() + UNTOLD_SECONDS
        return None

    def _slots(self, kind: str, site: Site) -> int | None:
        """How many requests the server works on at once, 0 where it sets no limit; None: not known yet."""
        if kind != LLAMA_CPP:
            return 0 if kind else None
        told = self._told.get(site.pool)
        return told.props.slots if told is not None and told.props is not None else None

    def _set_asleep(self, endpoint: Endpoint, asleep: bool) -> None:
        if endpoint.state.set_asleep(endpoint.slot, asleep):
            log.warning("%s %s", endpoint, "is asleep and gets no requests" if asleep else "is awake again")
