"""The last requests of this process, for `/admin/recent` and the dashboard: bounded, and never content.

A request adds the tuple that its log line is made of, and no more: what is asked for is looked up, and turned
into text, when somebody asks.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from operator import itemgetter
from typing import Final

from octoroute.observe.ending import ending
from octoroute.observe.request_log import Entry, as_object

MAX_LIMIT: Final = 1000  # in one answer, which takes about a millisecond to write

# Where these stand in an entry.
TENANT: Final = 2
TIER: Final = 4
STATUS: Final = 8
RESULT: Final = 9
# A request as others are told of it: when it ended, and its fields as a JSON object.
Told = tuple[float, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests are asked for, at most `limit`; None is any."""

    limit: int = 100
    tier: str | None = None
    outcome: str | None = None
    status: int | None = None
    tenant: str | None = None

    def matches(self, entry: Entry) -> bool:
        """Whether a request is one of them."""
        return (
            (self.tier is None or entry[TIER] == self.tier)
            and (self.status is None or entry[STATUS] == self.status)
            and (self.tenant is None or entry[TENANT] == self.tenant)
            and (self.outcome is None or ending(entry[STATUS], entry[RESULT]) == self.outcome)
        )


class Recent:
    """A ring of `size` entries; 0 keeps none."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Entry] = deque(maxlen=size)
        self.add = self._ring.append  # a method of its own would cost as much as the append

    def latest(self, wanted: Wanted) -> list[Told]:
        """Those that are wanted, the newest first."""
        found = islice(filter(wanted.matches, reversed(self._ring)), wanted.limit)
        return [(entry[0], as_object(entry).decode()) for entry in found]

    def resize(self, size: int) -> None:
        """After a reload: keeps the newest that fit."""
        self._ring = deque(self._ring, maxlen=size)
        self.add = self._ring.append


def newest(parts: Iterable[Iterable[Told]], limit: int) -> list[str]:
    """The newest of what several workers told, the newest first."""
    return [text for _, text in islice(merge(*parts, key=itemgetter(0), reverse=True), limit)]
