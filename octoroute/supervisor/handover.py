"""The hand-over of a running gateway to a new process of the installed program, which may be a newer version.

The old supervisor starts the new one with its listening sockets and one end of a line; the new one says on
that line that it serves, or why it can't. The sockets stay open through all of it, so that a connection that
waits in one is served by whoever accepts it. Both sides stand here because they must understand each other
across versions: what goes over is JSON objects, and fields that a side does not know mean nothing to it.
"""

import os
import signal
import socket
import sys
from collections.abc import Collection, Iterable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

VARIABLE: Final = "OCTOROUTE_HANDOVER"
MESSAGE_BYTES: Final = 65_536
# What is wrong with a config, as told on the line; the log has all of it.
MAX_PROBLEMS: Final = 20
PROBLEM_CHARACTERS: Final = 500
WORDS_BYTES: Final = 4096
# Until the new process has its handlers: these are sent to all processes of a service, and would end it.
HELD_BACK: Final = frozenset((signal.SIGHUP, signal.SIGUSR2))


def own_command() -> list[str]:
    """How this process was started, to be started again.

    A script is started by its path: it names the interpreter of the version that is installed there by now.
    """
    script = sys.argv[0]
    if sys.orig_argv[1:2] == [script] and os.path.isfile(script) and os.access(script, os.X_OK):
        return [os.path.abspath(script), *sys.argv[1:]]
    return [sys.executable, *sys.orig_argv[1:]]


@dataclass(frozen=True, slots=True)
class Word:
    """What the new process says of itself. `kept`: the descriptors of the sockets that it took over."""

    pid: int
    version: str
    kept: frozenset[int] = frozenset()
    problems: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        return not self.problems


class Successor:
    """The old side: the new process while it starts. `pid` is its own, `fileno` that of the line."""

    def __init__(self, pid: int, line: socket.socket, words: int) -> None:
        self.pid = pid
        self._line = line
        self._words = words

    @classmethod
    def start(cls, command: list[str], sockets: Iterable[socket.socket]) -> Self:
        """Starts the program with these sockets. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        # What it says before it has read its variable, such as why an import failed, is kept to be told.
        words = os.memfd_create("octoroute-last-words")
        stderr = os.dup(2)
        numbers = [sock.fileno() for sock in sockets]
        handed = (*numbers, theirs.fileno(), stderr)
        variable = orjson.dumps({"line": theirs.fileno(), "stderr": stderr, "sockets": numbers}).decode()
        try:
            for number in handed:
                os.set_inheritable(number, True)
            pid = os.posix_spawn(
                command[0],
                command,
                {**os.environ, VARIABLE: variable},
                file_actions=[(os.POSIX_SPAWN_DUP2, words, 2)],
                setsigmask=HELD_BACK,
            )
        except OSError:
            ours.close()
            os.close(words)
            raise
        finally:
            for number in handed:
                os.set_inheritable(number, False)
            theirs.close()
            os.close(stderr)
        return cls(pid, ours, words)

    def fileno(self) -> int:
        return self._line.fileno()

    def hear(self) -> Word | None:
        """What it said; None at the end of the line. Raises BlockingIOError if it has said nothing yet, and
        ValueError if it can't be understood.
        """
        try:
            data = self._line.recv(MESSAGE_BYTES)
        except ConnectionError:
            return None
        if not data:
            return None
        said = orjson.loads(data)
        try:
            return Word(
                pid=said["pid"],
                version=said["version"],
                kept=frozenset(said.get("kept", ())),
                problems=tuple(said.get("problems", ())),
            )
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"not a word of a new process: {data[:200]!r}") from None

    def last_words(self) -> str:
        """The end of what it wrote before the log was its own."""
        size = os.fstat(self._words).st_size
        data = os.pread(self._words, WORDS_BYTES, max(0, size - WORDS_BYTES))
        return data.decode(errors="replace").strip()

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def close(self) -> None:
        self._line.close()
        os.close(self._words)


class Predecessor:
    """The new side: whom this process is to replace. `sockets` are what it listens on."""

    def __init__(self, line: socket.socket, sockets: list[socket.socket]) -> None:
        self.sockets = sockets
        self._line = line
        self._numbers = {sock: sock.fileno() for sock in sockets}

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str]) -> Self | None:
        """Whoever started this process to be replaced by it; None if nobody did. From here the log is where
        it should be.
        """
        # Taken away, so that a process started by this one does not find it.
        variable = environ.pop(VARIABLE, None)
        if variable is None:
            return None
        told = orjson.loads(variable)
        os.dup2(told["stderr"], 2)
        os.close(told["stderr"])
        line, *sockets = (socket.socket(fileno=number) for number in (told["line"], *told["sockets"]))
        for sock in (line, *sockets):
            sock.set_inheritable(False)
        return cls(line, sockets)

    def keep(self, used: Collection[socket.socket]) -> None:
        """Closes the sockets that are not used: connections that wait there are served by the other one."""
        for sock in self.sockets:
            if sock not in used:
                sock.close()
                del self._numbers[sock]

    def take_over(self, version: str) -> None:
        """This process serves: the other one may go."""
        self._say(version, kept=list(self._numbers.values()))

    def refuse(self, version: str, problems: Sequence[str]) -> None:
        """This process can't serve."""
        self._say(version, problems=[problem[:PROBLEM_CHARACTERS] for problem in problems[:MAX_PROBLEMS]])

    def close(self) -> None:
        """Drops the line, where it is a copy."""
        self._line.close()

    def _say(self, version: str, **fields: Any) -> None:
        # It may have ended meanwhile: its sockets are here.
        with self._line, suppress(OSError):
            self._line.send(orjson.dumps({"pid": os.getpid(), "version": version, **fields}))
