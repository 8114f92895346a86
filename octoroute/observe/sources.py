"""What is known of each source of servers: written by the supervisor, told by any worker.

Lies in anonymous shared memory that is mapped before the workers fork, one place for each kind of source and
tier. Numbers are stored one by one: who reads meanwhile may see that of a moment before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Final

from octoroute.exchange import TIERS

SOURCES: Final = ("dns", "kubernetes")
# Why nothing can be found out, in one word: a label, so there is a list of them.
REASONS: Final = (
    "not_found",
    "no_record",
    "timeout",
    "lookup_failed",
    "no_access",
    "unreachable",
    "forbidden",
    "bad_answer",
    "no_port",
    "crashed",
)

FOLLOWED, SERVERS, SUCCESS, FAILING = range(4)
FIELDS: Final = 4


@dataclass(frozen=True, slots=True)
class Source:
    """One that is followed. `success_s` is when it answered last, Unix time, 0 for never; `failing` is one of
    REASONS while nothing can be found out, else "".
    """

    source: str
    tier: str
    servers: int
    success_s: float
    failing: str


class SourceBoard:
    """Places are pairs of a kind of source and a tier."""

    def __init__(self) -> None:
        size = len(SOURCES) * len(TIERS) * FIELDS * 8
        self._numbers = memoryview(mmap(-1, size)).cast("d")

    def follow(self, places: Sequence[tuple[str, str]]) -> None:
        """From now on these are the sources; of new ones nothing is known."""
        for place in ((source, tier) for source in SOURCES for tier in TIERS):
            at = _at(place)
            if place not in places or not self._numbers[at + FOLLOWED]:
                self._numbers[at : at + FIELDS] = memoryview(bytes(8 * FIELDS)).cast("d")
            self._numbers[at + FOLLOWED] = place in places

    def note_success(self, place: tuple[str, str], now_s: float) -> None:
        """It has answered."""
        at = _at(place)
        self._numbers[at + SUCCESS] = now_s
        self._numbers[at + FAILING] = 0

    def note_failure(self, place: tuple[str, str], reason: str) -> None:
        """It has not, and why."""
        self._numbers[_at(place) + FAILING] = 1 + REASONS.index(reason)

    def note_servers(self, place: tuple[str, str], count: int) -> None:
        """So many of its servers are in use."""
        self._numbers[_at(place) + SERVERS] = count

    def read(self) -> Iterator[Source]:
        """Those that are followed."""
        for source in SOURCES:
            for tier in TIERS:
                at = _at((source, tier))
                followed, servers, success_s, failing = self._numbers[at : at + FIELDS]
                if followed:
                    why = REASONS[int(failing) - 1] if failing else ""
                    yield Source(source, tier, int(servers), success_s, why)


def _at(place: tuple[str, str]) -> int:
    source, tier = place
    return (SOURCES.index(source) * len(TIERS) + TIERS.index(tier)) * FIELDS
