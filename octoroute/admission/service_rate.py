"""How fast a queue is served: places a second, of late. Time in which nobody waits does not count.

Reads no clock: `now` is monotonic seconds.
"""

from math import exp
from typing import Final

# What is so long ago counts a third: several answers of a large model, so that one long answer does not make
# the rate look like nothing.
MEMORY_SECONDS: Final = 30.0


class ServiceRate:
    """`begin` when somebody waits again, `count` each place that is given."""

    __slots__ = ("_at", "_places", "_seconds")

    def __init__(self) -> None:
        self._at = 0.0
        # Both fade alike, so that their quotient has no bias, however short it has been observed.
        self._places = 0.0
        self._seconds = 0.0

    def begin(self, now: float) -> None:
        self._at = now

    def count(self, now: float) -> None:
        self._fade(now)
        self._places += 1.0

    def per_second(self, now: float) -> float:
        """0 where none was given yet."""
        self._fade(now)
        return self._places / self._seconds if self._seconds > 0.0 else 0.0

    def _fade(self, now: float) -> None:
        kept = exp(-max(0.0, now - self._at) / MEMORY_SECONDS)
        self._places *= kept
        self._seconds = self._seconds * kept + MEMORY_SECONDS * (1.0 - kept)
        self._at = max(self._at, now)
