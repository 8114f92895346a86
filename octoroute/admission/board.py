"""Who waits for each tier, of all workers: how many, and whose turn it is next in each of them; and what each
tenant has had.

Of what is about a worker each writes its own, anyone reads. Lies in anonymous shared memory that is mapped
before the workers fork.
"""

from math import inf
from mmap import mmap
from typing import Final

from octoroute.admission.shares import TENANTS, Shares
from octoroute.exchange import TIERS

BYTES: Final = 8  # of a number: a store of it is whole, whoever reads meanwhile

# Of a request: where it starts (shares.py), and its age within its tenant. The least goes first.
Turn = tuple[float, float]
NO_TURN: Final[Turn] = (inf, inf)


class WaitingBoard:
    """`clear` what a worker has here before it writes, and after it has ended: it may have died with requests
    that waited. `tenants` is how many there may be.
    """

    def __init__(self, workers: int, tenants: int) -> None:
        part = workers * len(TIERS)
        rows = TENANTS + tenants
        numbers = memoryview(mmap(-1, (3 * part + len(TIERS) * rows) * BYTES))
        self._counts = numbers[: part * BYTES].cast("Q")
        self._rows = numbers[part * BYTES : 2 * part * BYTES].cast("Q")
        self._ages = numbers[2 * part * BYTES : 3 * part * BYTES].cast("d")
        shares = numbers[3 * part * BYTES :].cast("d")
        self._shares = [Shares(shares[at * rows : (at + 1) * rows]) for at in range(len(TIERS))]
        for worker in range(workers):
            self.clear(worker)

    def shares(self, tier: str) -> Shares:
        """What each tenant has had of a tier."""
        return self._shares[TIERS.index(tier)]

    def clear(self, worker: int) -> None:
        """Nobody waits there."""
        for tier in TIERS:
            self.write(worker, tier, 0)

    def write(self, worker: int, tier: str, waiting: int, row: int = 0, age: float = inf) -> None:
        """How many wait in that worker; of the next, whose it is and its age."""
        at = worker * len(TIERS) + TIERS.index(tier)
        self._rows[at] = row
        self._ages[at] = age
        self._counts[at] = waiting

    def waiting(self, tier: str) -> int:
        """How many wait, over all workers."""
        return sum(self._counts[TIERS.index(tier) :: len(TIERS)])

    def first_elsewhere(self, worker: int, tier: str) -> Turn:
        """The turn that comes first in another worker; NO_TURN where nobody waits there."""
        own, tiers = worker * len(TIERS) + TIERS.index(tier), len(TIERS)
        shares = self.shares(tier)
        return min(
            (
                (shares.start(self._rows[at]), self._ages[at])
                for at in range(TIERS.index(tier), len(self._counts), tiers)
                if at != own and self._counts[at]
            ),
            default=NO_TURN,
        )
