"""How many retries the requests of one tier may have, so that a fleet that is dying is not finished off by
them.

Counted by each worker for its own requests. Which failures are worth a retry is known in upstream/. Reads no
clock: `now` is monotonic seconds.
"""

from collections import deque
from typing import Final

# Long enough to let a server die whose requests all fail at once, short enough to follow the load.
WINDOW_SECONDS: Final = 10.0
# Always allowed, on average over the window, so that a quiet tier has retries at all.
FLOOR_PER_SECOND: Final = 10.0


class RetryBudget:
    """`requests` counts on with each request; `take` before each retry; `mark` about once a second."""

    def __init__(self) -> None:
        self.requests = 0
        self.retries = 0
        # Moments with the counts at them: the first is the window's beginning.
        self._marks: deque[tuple[float, int, int]] = deque([(float("-inf"), 0, 0)])

    def mark(self, now: float) -> None:
        """Moves the window on. Later than once a second, it is longer by as much."""
        marks = self._marks
        if now - marks[-1][0] >= 1.0:
            marks.append((now, self.requests, self.retries))
        while len(marks) > 1 and now - marks[1][0] >= WINDOW_SECONDS:
            marks.popleft()

    def take(self, share: float, now: float) -> bool:
        """Whether one more retry may be: within `share` of the window's requests, or within the floor."""
        self.mark(now)
        _, requests, retries = self._marks[0]
        allowed = max(share * (self.requests - requests), FLOOR_PER_SECOND * WINDOW_SECONDS)
        if self.retries - retries >= allowed:
            return False
        self.retries += 1
        return True
