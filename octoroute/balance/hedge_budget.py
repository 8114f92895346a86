"""How many requests of a tier may be sent to a second server: a share of all. Each worker counts its own."""

from typing import Final

# Saved up in quiet times, so that one slow moment does not double the load.
AT_ONCE: Final = 10.0


class HedgeBudget:
    """`grow` with each request, `take` before each hedge."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved = 0.0

    def grow(self, share: float) -> None:
        """One request more, of which `share` may be hedged."""
        self._saved = min(AT_ONCE, self._saved + share)

    def take(self) -> bool:
        """Whether one more may be."""
        # A hundred times 0.01 is a little less than 1.
        if self._saved < 1.0 - 1e-9:
            return False
        self._saved = max(0.0, self._saved - 1.0)
        return True
