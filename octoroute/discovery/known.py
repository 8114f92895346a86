"""What is known of every source: the servers that were found last, and since when nothing can be found out.

Pure: no clock (`now` is monotonic seconds), no log. The supervisor keeps it, so it outlives the process that
looks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from octoroute.config.found import Address, Found, Place


@dataclass(slots=True)
class Entry:
    """Of one source. `lost_at` is when looking began to fail, None while it does not."""

    keep_seconds: float
    addresses: tuple[Address, ...] = ()
    answered: bool = False  # it has been looked at, with success or without
    lost_at: float | None = None
    trouble: str = ""

    @property
    def deadline(self) -> float | None:
        """When its servers are given up."""
        if self.lost_at is None or not self.addresses:
            return None
        return self.lost_at + self.keep_seconds


class Known:
    """By source. `follow` says which there are."""

    def __init__(self) -> None:
        self._entries: dict[Place, Entry] = {}

    @property
    def found(self) -> Found:
        return {place: entry.addresses for place, entry in self._entries.items()}

    @property
    def complete(self) -> bool:
        """Whether every source has been looked at."""
        return all(entry.answered for entry in self._entries.values())

    @property
    def deadline(self) -> float | None:
        """When `expire` has something to do."""
        return min(
            (at for entry in self._entries.values() if (at := entry.deadline) is not None), default=None
        )

    def follow(self, sources: Mapping[Place, float]) -> None:
        """From now on these are the sources, each with its `keep_seconds`; what is known of them stays."""
        entries = {}
        for place, keep_seconds in sources.items():
            entry = self._entries.get(place) or Entry(keep_seconds)
            entry.keep_seconds = keep_seconds
            entries[place] = entry
        self._entries = entries

    def note_found(self, place: Place, addresses: tuple[Address, ...]) -> tuple[bool, bool]:
        """Whether its servers are others than before, and whether looking had failed before."""
        entry = self._entries.get(place)
        if entry is None:
            return False, False
        changed, recovered = entry.addresses != addresses, entry.lost_at is not None
        entry.addresses, entry.answered, entry.lost_at, entry.trouble = addresses, True, None, ""
        return changed, recovered

    def note_lost(self, place: Place, trouble: str, now: float) -> float | None:
        """How long its servers are kept from now; None where there is nothing new in it."""
        entry = self._entries.get(place)
        if entry is None:
            return None
        entry.answered = True
        if entry.lost_at is None:
            entry.lost_at = now
        if entry.trouble == trouble:
            return None
        entry.trouble = trouble
        return max(0.0, entry.lost_at + entry.keep_seconds - now) if entry.addresses else 0.0

    def expire(self, now: float) -> list[Place]:
        """Gives up the servers of sources that nothing could be found out about for too long."""
        over = [
            place
            for place, entry in self._entries.items()
            if entry.deadline is not None and now >= entry.deadline
        ]
        for place in over:
            self._entries[place].addresses = ()
        return over
