"""Work on all endpoints that comes again and again, done by one of the workers: probes, polls of their load.

Owns when a round begins, and what happens when one crashes; what a round does is in probe.py and load.py.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

log = logging.getLogger(__name__)

# After a round too that took longer than the interval; the interval itself, if that is shorter.
REST_SECONDS: Final = 1.0
# After a crash, seconds.
RESTART_BACKOFF: Final = (1.0, 2.0, 4.0, 8.0, 16.0)


class Work(Protocol):
    """What there is to do."""

    def interval_s(self) -> float:
        """Between the beginnings of two rounds."""
        ...

    async def round(self) -> None: ...


class Rounds:
    """`run` makes rounds for ever while `on_duty`, and calls `crashed` for each that crashes."""

    def __init__(self, work: Work, crashed: Callable[[], None], about: str) -> None:
        """`about` says for the log what the rounds do."""
        self.running = False
        self._work = work
        self._crashed = crashed
        self._about = about
        self._duty = asyncio.Event()

    def on_duty(self, mine: bool) -> None:
        """Whether it is this process that does it. To be said about once a second."""
        if mine:
            self._duty.set()
        else:
            self._duty.clear()

    async def run(self) -> None:
        """A crash is logged, counted and followed by a restart."""
        loop = asyncio.get_running_loop()
        crashes = 0
        while True:
            try:
                self.running = True
                await self._duty.wait()
                began = loop.time()
                await self._work.round()
                crashes = 0
                interval_s = self._work.interval_s()
                rest_s = min(interval_s, REST_SECONDS)
                await asyncio.sleep(max(began + interval_s - loop.time(), rest_s))
            except Exception:
                self.running = False
                self._crashed()
                wait_s = RESTART_BACKOFF[min(crashes, len(RESTART_BACKOFF) - 1)]
                crashes += 1
                log.exception("%s failed; again in %g s", self._about, wait_s)
                await asyncio.sleep(wait_s)
