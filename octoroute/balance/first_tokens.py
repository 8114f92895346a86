"""How long the first token of a tier takes, learnt by prompt size: when a server is slower than nineteen of
twenty are, another one may be asked too.

Counted by each worker for its own requests, in a histogram for each size whose old counts fade. Pure.
"""

from math import log
from typing import Final

# Upper bounds in seconds, each 12 % above the one before: 5 ms to four minutes.
FIRST_S: Final = 0.005
RATIO: Final = 1.12
BINS: Final = 96
STEP: Final = log(RATIO)
# Prompts of which one has at most four times the bytes of another are alike.
SIZES: Final = 16
# Fewer say nothing about one in twenty; at MANY all counts are halved, so that the past fades.
ENOUGH: Final = 40
MANY: Final = 1000
SHARE: Final = 0.05


class FirstTokens:
    """`observe` what it took, `p95` what is rarely exceeded. Sizes are bytes of request bodies."""

    __slots__ = ("_counts", "_totals")

    def __init__(self) -> None:
        self._counts = [[0] * BINS for _ in range(SIZES)]
        self._totals = [0] * SIZES

    def observe(self, size: int, seconds: float) -> None:
        """A first token came after so long, or had not come by then."""
        at = _class_of(size)
        counts = self._counts[at]
        index = 0 if seconds <= FIRST_S else min(BINS - 1, int(log(seconds / FIRST_S) / STEP) + 1)
        counts[index] += 1
        self._totals[at] += 1
        if self._totals[at] >= MANY:
            counts[:] = [count // 2 for count in counts]
            self._totals[at] = sum(counts)

    def p95(self, size: int) -> float | None:
        """Seconds that one in twenty takes longer than, 12 % too much at most; None where too little is
        known.
        """
        at = _class_of(size)
        total = self._totals[at]
        if total < ENOUGH:
            return None
        above = 0
        for index in range(BINS - 1, -1, -1):
            above += self._counts[at][index]
            if above > total * SHARE:
                return FIRST_S * RATIO**index
        raise AssertionError("counts and their total differ")


def _class_of(size: int) -> int:
    return min(SIZES - 1, (size.bit_length() + 1) // 2)
