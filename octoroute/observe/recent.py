"""The last requests of this process, for the dashboard and `/admin`: bounded, and never content."""

from collections import deque
from itertools import islice

from octoroute.observe.request_log import Entry, as_dict


class Recent:
    """A ring of `size` entries; 0 keeps none."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Entry] = deque(maxlen=size)
        self.add = self._ring.append  # a method of its own would cost as much as the append

    def latest(self, limit: int | None = None) -> list[dict[str, object]]:
        """Entries by field name, the newest first, at most `limit`."""
        return [as_dict(entry) for entry in islice(reversed(self._ring), limit)]

    def resize(self, size: int) -> None:
        """After a reload: keeps the newest that fit."""
        self._ring = deque(self._ring, maxlen=size)
        self.add = self._ring.append
