"""A worker's place and the process in it, as the supervisor keeps them."""

import socket
from dataclasses import dataclass

from octoroute.supervisor.channel import Channel


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
