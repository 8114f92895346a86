"""What each tenant has had of a tier, over all workers, and what a request is going to cost. By this tenants
take turns.

Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996): a request
starts where what its tenant has had ends, in tokens, but not before the one that was given a place last, and
the one that starts first goes first. It shares as deficit round robin does, and needs one number for each
tenant, which workers can have in common; rounds they could not.
"""

from collections.abc import Collection
from typing import Final

# Places of the numbers: where the last one started, and then what each tenant has had.
LEVEL: Final = 0
NOBODY: Final = 1  # who has no key
TENANTS: Final = 2
# What a request weighs less in what is learnt with each one after it.
MEMORY: Final = 15 / 16


class Shares:
    """`rows` tell tenants apart: places in `numbers`, which belong to one tier.

    Each number is written whole. Of two workers that charge a tenant at the very same moment, one may do it
    in vain: a request more, once.
    """

    __slots__ = ("_numbers",)

    def __init__(self, numbers: "memoryview[float]") -> None:
        self._numbers = numbers

    def start(self, row: int) -> float:
        """Where the tenant's next request starts. Who has nothing waiting, or can't run, saves nothing up."""
        return max(self._numbers[LEVEL], self._numbers[row])

    def charge(self, row: int, tokens: int) -> None:
        """The tenant's next request was given a place."""
        start = self.start(row)
        self._numbers[row] = start + tokens
        self._numbers[LEVEL] = start

    def correct(self, row: int, tokens: int) -> None:
        """What it was charged was so much too little; a negative number, too much."""
        self._numbers[row] += tokens


class Costs:
    """The tokens that requests may use at most, and those that they used: in the proportion in which a
    tenant's requests did of late, so will the next. Of a tenant that is not known yet, as those of all did.
    """

    def __init__(self) -> None:
        self._sums: dict[str | None, tuple[float, float]] = {}

    def expected(self, tenant: str, most: int) -> int:
        """Tokens of a request that may use `most`."""
        used, allowed = self._sums.get(tenant) or self._sums.get(None, (1.0, 1.0))
        return max(1, round(most * used / allowed))

    def learn(self, tenant: str, most: int, used: int) -> None:
        """A request that might have used `most` tokens has used `used`."""
        for key in (tenant, None):
            before, allowed = self._sums.get(key, (0.0, 0.0))
            self._sums[key] = (before * MEMORY + used, allowed * MEMORY + most)

    def keep(self, tenants: Collection[str]) -> None:
        """Forgets all others."""
        self._sums = {key: sums for key, sums in self._sums.items() if key is None or key in tenants}
