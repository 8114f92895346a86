"""What the workers of a gateway tell each other of Redis: which of them can't reach it, how many gateways
there were when it was last heard of, since when it knows this one.

Lies in anonymous shared memory that is mapped before the workers fork. Each number is written whole.
"""

import os
import weakref
from mmap import mmap
from typing import Final, Literal

BYTES: Final = 8  # of a number
GATEWAYS: Final = 0
SINCE: Final = 1
COLUMNS: Final = 2  # of the workers, from here on

State = Literal["connecting", "up", "away"]
STATES: Final[tuple[State, ...]] = ("connecting", "up", "away")


class Outage:
    """`id` is what other gateways know this one by."""

    def __init__(self, workers: int) -> None:
        self.id = os.urandom(8).hex()
        self._numbers = memoryview(mmap(-1, (COLUMNS + workers) * BYTES)).cast("Q")
        self._numbers[GATEWAYS] = 1
        # One token for all workers, in the one or in the other: whoever moves it says what happened. By the
        # numbers, each of two that notice at once would be the first.
        self._unsaid, self._said = (os.eventfd(count, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for count in (1, 0))
        for descriptor in (self._unsaid, self._said):
            weakref.finalize(self, os.close, descriptor).atexit = False

    @property
    def gateways(self) -> int:
        """How many live, this one counted."""
        return self._numbers[GATEWAYS]

    @gateways.setter
    def gateways(self, count: int) -> None:
        self._numbers[GATEWAYS] = max(1, count)

    @property
    def since(self) -> int:
        """0 where Redis was never reached."""
        return self._numbers[SINCE]

    @since.setter
    def since(self, moment: int) -> None:
        self._numbers[SINCE] = moment

    def note(self, worker: int, state: State) -> None:
        """How Redis is for that worker."""
        self._numbers[COLUMNS + worker] = STATES.index(state)

    def begins(self) -> bool:
        """Whether this worker is the one that says that Redis can't be used."""
        return _move(self._unsaid, self._said)

    def ends(self) -> bool:
        """Whether this worker is the one that says that all can use it again."""
        return not self.away and _move(self._said, self._unsaid)

    @property
    def away(self) -> int:
        """How many workers can't reach Redis."""
        return self._count("away")

    @property
    def state(self) -> State:
        """How Redis is for all workers: that of the one for which it is worst."""
        return "away" if self.away else "up" if self._count("up") else "connecting"

    def _count(self, state: State) -> int:
        return list(self._numbers[COLUMNS:]).count(STATES.index(state))


def _move(source: int, target: int) -> bool:
    """Moves the token; False where it is not there."""
    try:
        os.eventfd_read(source)
    except BlockingIOError:
        return False
    os.eventfd_write(target, 1)
    return True
