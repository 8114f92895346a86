"""How many wait for each tier, of all workers: each writes its own column, anyone reads the sums.

Lies in anonymous shared memory that is mapped before the workers fork.
"""

from mmap import mmap
from typing import Final

from octoroute.exchange import TIERS

BYTES: Final = 4  # of a count: a store of it is whole, whoever reads meanwhile


class WaitingBoard:
    """`bind` in each worker, before it writes: its predecessor in the column may have died with requests that
    waited.
    """

    def __init__(self, workers: int) -> None:
        self._counts = memoryview(mmap(-1, workers * len(TIERS) * BYTES)).cast("I")
        self._column = 0

    def bind(self, worker: int) -> None:
        """From here this process writes the column of that worker."""
        self._column = worker * len(TIERS)
        for tier in TIERS:
            self.write(tier, 0)

    def write(self, tier: str, waiting: int) -> None:
        """How many wait in this worker."""
        self._counts[self._column + TIERS.index(tier)] = waiting

    def waiting(self, tier: str) -> int:
        """How many wait, over all workers."""
        return sum(self._counts[TIERS.index(tier) :: len(TIERS)])
