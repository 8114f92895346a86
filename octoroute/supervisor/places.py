"""A worker's place and the process in it, as the supervisor keeps them."""

import socket
from dataclasses import dataclass
from typing import Final

from octoroute.supervisor.channel import Channel

# Pauses before a worker that keeps dying is started again, seconds; a worker that ran for a minute starts
# afresh.
BACKOFF: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
STEADY_SECONDS: Final = 60.0


@dataclass(eq=False)
class Process:
    """A worker that runs. `column` is its own in the shared tables; `leaving`: it has been replaced."""

    pid: int
    column: int
    channel: Channel
    place: "Place"
    started: float
    ready: bool = False
    leaving: bool = False


@dataclass(eq=False)
class Place:
    """A worker's place: its sockets stay, its processes come and go. `due` is when the next may start."""

    sockets: list[socket.socket]
    process: Process | None = None
    crashes: int = 0
    due: float = 0.0

    def vacate(self, now: float) -> float:
        """Makes it free for the next process; seconds until that may start."""
        assert self.process is not None
        steady = now - self.process.started > STEADY_SECONDS
        self.process = None
        self.crashes = 0 if steady else self.crashes + 1
        pause = BACKOFF[min(max(self.crashes - 1, 0), len(BACKOFF) - 1)]
        self.due = now + pause
        return pause
