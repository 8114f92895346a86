"""The process that looks at the sources and tells the supervisor what it finds.

It knows nothing of workers and changes nothing; it ends when the supervisor does. A source that can't be
looked at is told and tried again.
"""

import asyncio
import logging
import signal
from collections.abc import Collection
from dataclasses import astuple
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, Literal, Protocol

from octoroute.config.found import Address, Place
from octoroute.config.sources import Discovery, Source, SourceKind
from octoroute.errors import ConfigError

log = logging.getLogger(__name__)

MAX_SERVERS: Final = 1024  # of one source; the table of live state has 4096 places for all
MAX_BACKOFF_SECONDS: Final = 30.0
# Until the supervisor has read what was told before.
RETELL_SECONDS: Final = 0.1
# The module that each kind of source needs, and the extra that brings it.
NEEDS: Final[dict[SourceKind, tuple[str, str]]] = {
    "dns": ("dns", "dns"),
    "kubernetes": ("kubernetes_asyncio", "kubernetes"),
}


def require_extras(discovery: Discovery, source: str) -> None:
    """Raises ConfigError about the file `source` where a source needs what is not installed."""
    missing = {kind: tier for kind, tier, _ in discovery.sources() if find_spec(NEEDS[kind][0]) is None}
    if missing:
        raise ConfigError(
            source,
            [
                f"discovery.{kind}.{tier} needs the extra {NEEDS[kind][1]}; install it with: "
                f"pip install 'octoroute[{NEEDS[kind][1]}]'"
                for kind, tier in missing.items()
            ],
        )


Told = Literal["found", "same", "lost", "watched"]


class Line(Protocol):
    """What is needed of the line to the supervisor: its Channel."""

    def fileno(self) -> int: ...

    def send(self, kind: Told, **fields: Any) -> bool:
        """False where it can't be sent now."""
        ...


def search(discovery: Discovery, line: Line) -> int:
    """Looks until SIGTERM or the end of the supervisor; the exit code."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    asyncio.run(_search(discovery, line))
    return 0


async def _search(discovery: Discovery, line: Line) -> None:
    over = asyncio.Event()
    # The supervisor says nothing on this line: what can be read is its end.
    asyncio.get_running_loop().add_reader(line.fileno(), over.set)
    looking = [
        asyncio.ensure_future(_follow(source, Teller(line, (kind, tier))))
        for kind, tier, source in discovery.sources()
    ]
    await over.wait()
    for task in looking:
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)


async def _follow(source: Source, teller: "Teller") -> None:
    follow = import_module(f"octoroute.discovery.{teller.place[0]}").follow
    pause = 1.0
    while True:
        try:
            await follow(source, teller)
        except Exception as error:
            log.exception("looking for servers in %s failed; again in %g s", teller, pause)
            await teller.lost("crashed", f"looking failed: {type(error).__name__}")
        await asyncio.sleep(pause)
        pause = min(2 * pause, MAX_BACKOFF_SECONDS)


class Teller:
    """Tells the supervisor of one source. Servers that were told last are not told again."""

    def __init__(self, line: Line, place: Place) -> None:
        self.place = place
        self._line = line
        self._told: object = None

    def __str__(self) -> str:
        return "discovery." + ".".join(self.place)

    async def found(self, addresses: Collection[Address]) -> None:
        """These are the servers now. No more than MAX_SERVERS are told."""
        if len(addresses) > MAX_SERVERS:
            log.warning("%s has %d servers; %d of them are used", self, len(addresses), MAX_SERVERS)
        chosen = tuple(sorted(set(addresses))[:MAX_SERVERS])
        if chosen == self._told:
            await self._tell("same")
        else:
            await self._tell("found", addresses=[astuple(address) for address in chosen])
            self._told = chosen

    async def lost(self, reason: str, trouble: str) -> None:
        """Nothing can be found out: why, as one of REASONS (observe/sources.py) and in words."""
        await self._tell("lost", reason=reason, trouble=trouble)
        self._told = None

    async def watched(self, ended: Literal["in_time", "dropped", "expired"]) -> None:
        """A watch has ended, and how."""
        await self._tell("watched", ended=ended)

    async def _tell(self, kind: Told, **fields: Any) -> None:
        while not self._line.send(kind, place=self.place, **fields):  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(RETELL_SECONDS)
