"""The soak's clock, which notices that the machine, or the soak's own process, stood still.

What happens then says nothing of the gateway: it waits for simulated servers that do not run, or its clients
do not read. So it is known which time that was, and `now` is without it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

TICK_S: Final = 0.1
# More than a busy machine keeps a process waiting, and less than the shortest of the gateway's timeouts.
STILL_S: Final = 2.0
# So long the gateway may still hold against its servers what they seemed to be meanwhile.
AFTERMATH_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Standstill:
    """From when, on the soak's clock, and how long."""

    at_s: float
    seconds: float


class Clock:
    """Looked at each TICK_S at least while `watch` runs: a longer step was a standstill."""

    def __init__(
        self,
        still_s: float = STILL_S,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """The wall clock is looked at too: the other one rests while a virtual machine is stopped."""
        self.standstills: list[Standstill] = []
        self._still_s = still_s
        self._monotonic = monotonic
        self._wall = wall
        self._began_s = self._seen_s = monotonic()
        self._seen_wall_s = wall()
        self._stood_s = 0.0

    def now(self) -> float:
        """Seconds since the start, without those in which it stood still."""
        now_s, wall_s = self._monotonic(), self._wall()
        step_s = now_s - self._seen_s
        stood_s = max(step_s, wall_s - self._seen_wall_s)
        if stood_s > self._still_s:
            self.standstills.append(Standstill(self._seen_s - self._began_s - self._stood_s, stood_s))
            self._stood_s += step_s
        self._seen_s, self._seen_wall_s = now_s, wall_s
        return now_s - self._began_s - self._stood_s

    def stood_still_since(self, began_s: float) -> bool:
        """Whether it did, or was not yet over it, at some time between `began_s` and now."""
        self.now()
        return bool(self.standstills) and self.standstills[-1].at_s + AFTERMATH_S > began_s

    async def watch(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.now()
