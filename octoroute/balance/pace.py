"""When an endpoint is probed next: each interval while it is healthy, sooner while it is not. Pure."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Intervals:
    """Seconds from a probe to the next: of a healthy endpoint, and at least of one that is not."""

    healthy_s: float
    unhealthy_s: float


@dataclass(slots=True)
class Pace:
    """Of one endpoint. A server that came back is found soon, one that stays away is left alone more and
    more, and so is one that passes its probes and fails its requests. Times are monotonic seconds.
    """

    asked: float = -inf
    fell: float = inf  # when it was first seen to be unhealthy; inf: it is healthy
    rest_s: float = 0.0  # while it is unhealthy

    def due(self, now: float, healthy_since: float | None, intervals: Intervals, *, needed: bool) -> bool:
        """Whether it is to be probed now. `healthy_since` is None where it is unhealthy; `needed`: no other
        endpoint can stand in for it.
        """
        if healthy_since is not None:
            self.fell = inf
            if now - healthy_since >= intervals.healthy_s:
                self.rest_s = 0.0
            return now - self.asked >= intervals.healthy_s
        self.fell = min(self.fell, now)
        shortest = min(intervals.unhealthy_s, intervals.healthy_s)
        rest_s = shortest if needed else max(self.rest_s, shortest)
        return now - max(self.asked, self.fell) >= rest_s

    def note(self, now: float, intervals: Intervals) -> None:
        """It is probed now."""
        self.asked = now
        if self.fell < inf:
            self.rest_s = min(max(2 * self.rest_s, 2 * intervals.unhealthy_s), intervals.healthy_s)
