"""The line between the supervisor and one process of its own: small messages over a pair of sockets.

A config, and whatever else is large, travels as the descriptor of a file in memory, so that a message is
always small enough to be sent at once. When either side ends, however it does, the other side reads the end
of the line.
"""

import array
import os
import pickle
import socket
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from octoroute.config import Config

MESSAGE_BYTES: Final = 65536

# What workers say: they serve; they can't be trusted any more; a client asks for a reload, an upgrade, or the
# recent requests of all workers; a config is used; these are its own recent requests.
# What the supervisor says: use this config; tell your recent requests; what came of the reload, of the
# upgrade, or of the gathering that was asked for; another process serves from here.
# What the process that looks for servers says: these there are; they are the same as before; nothing can be
# found out; a watch of Kubernetes has ended.
Kind = Literal[
    "ready",
    "retire",
    "ask_reload",
    "ask_upgrade",
    "ask_recent",
    "applied",
    "recent",
    "apply",
    "tell_recent",
    "reloaded",
    "upgraded",
    "gathered",
    "hand_over",
    "found",
    "same",
    "lost",
    "watched",
]

# What comes of a reload or an upgrade where the process ends meanwhile, or has been replaced.
ENDS: Final[dict[str, Any]] = {"ends": True}


@dataclass(frozen=True, slots=True)
class Message:
    """`fields` are plain JSON values; `config` comes with `apply` only."""

    kind: Kind
    fields: dict[str, Any] = field(default_factory=dict)
    config: Config | None = None


class Channel:
    """One end. Never waits."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    @classmethod
    def pair(cls) -> "tuple[Channel, Channel]":
        """Both ends. SOCK_SEQPACKET: a message comes whole or not at all."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def send(self, kind: Kind, config: Config | None = None, **fields: Any) -> bool:
        """False where the other side has ended, or has not read for so long that the line is full."""
        data = orjson.dumps([kind, fields])
        try:
            if config is None and len(data) <= MESSAGE_BYTES:
                self._sock.send(data)
            else:
                file = os.memfd_create("octoroute-config")
                try:
                    with open(file, "wb", closefd=False) as memory:
                        pickle.dump((fields, config), memory)
                    socket.send_fds(self._sock, [orjson.dumps([kind, {}])], [file])
                finally:
                    os.close(file)
        except (BlockingIOError, ConnectionError):
            return False
        return True

    def receive(self) -> Message | None:
        """The next message; None where the other side has ended. Raises BlockingIOError if there is none."""
        size = array.array("i").itemsize
        try:
            data, ancillary, _, _ = self._sock.recvmsg(MESSAGE_BYTES, socket.CMSG_LEN(size))
        except ConnectionError:
            return None
        if not data:
            return None
        kind, fields = orjson.loads(data)
        config: Config | None = None
        for level, kind_of_data, content in ancillary:
            if level == socket.SOL_SOCKET and kind_of_data == socket.SCM_RIGHTS:
                file = array.array("i", content[:size])[0]
                with open(file, "rb") as memory:
                    memory.seek(0)
                    # Written by the process that forked this one, or that this one forked.
                    fields, config = pickle.load(memory)
        return Message(kind, fields, config)
