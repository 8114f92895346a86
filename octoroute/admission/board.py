"""Who waits for each tier, of all workers: how many, and since when the one that has waited longest.

Each worker writes its own, anyone reads. Lies in anonymous shared memory that is mapped before the
workers fork.
"""

from math import inf
from mmap import mmap
from typing import Final

from octoroute.exchange import TIERS

BYTES: Final = 8  # of a number: a store of it is whole, whoever reads meanwhile


class WaitingBoard:
    """`clear` what a worker has here before it writes, and after it has ended: it may have died with requests
    that waited.
    """

    def __init__(self, workers: int) -> None:
        half = workers * len(TIERS) * BYTES
        memory = memoryview(mmap(-1, 2 * half))
        self._counts = memory[:half].cast("Q")
        self._since = memory[half:].cast("d")
        for worker in range(workers):
            self.clear(worker)

    def clear(self, worker: int) -> None:
        """Nobody waits there."""
        for tier in TIERS:
            self.write(worker, tier, 0, inf)

    def write(self, worker: int, tier: str, waiting: int, since: float) -> None:
        """How many wait in that worker, and since when the first of them."""
        at = worker * len(TIERS) + TIERS.index(tier)
        self._counts[at] = waiting
        self._since[at] = since

    def waiting(self, tier: str) -> int:
        """How many wait, over all workers."""
        return sum(self._counts[TIERS.index(tier) :: len(TIERS)])

    def first_elsewhere(self, worker: int, tier: str) -> float:
        """Since when the one has waited that waits longest in another worker; inf where nobody does."""
        since = self._since[TIERS.index(tier) :: len(TIERS)].tolist()
        del since[worker]
        return min(since, default=inf)
