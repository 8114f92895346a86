"""Upgrades as the supervisor does them: start the new process, wait until it serves, tell whoever asked.

One at a time; who asks meanwhile is told what came of it. A new process that ends, or does not serve in time,
changes nothing. What the supervisor does once the new one serves is its own affair: `taken`.
"""

import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterable
from typing import Any, Final

from octoroute import __version__
from octoroute.supervisor.channel import ENDS
from octoroute.supervisor.handover import Successor, Word, own_command
from octoroute.supervisor.reloading import Worker

log = logging.getLogger(__name__)

# Importing takes a second; a large fleet, or a machine under load, some more.
START_SECONDS: Final = 60.0


class Upgrades:
    """`ask`, then `begin`; `heard` when the line can be read, `ended` when the process has; `look_after`."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self.taken: Word | None = None
        self._selector = selector
        self._wanted = False
        self._asked: list[tuple[Worker, int]] = []
        self._successor: Successor | None = None
        self._deadline = 0.0
        self._reasons: list[str] = []

    @property
    def deadline(self) -> float | None:
        """When `look_after` has something to do at the latest, on the monotonic clock."""
        return None if self._successor is None else self._deadline

    def ask(self, worker: Worker | None = None, number: int = 0) -> None:
        """An upgrade is wanted; a worker that says so is told what came of it, under its number."""
        self._wanted = True
        if worker is not None:
            self._asked.append((worker, number))

    def turn_away(self) -> None:
        """No upgrade is begun any more: who asked for one is told so."""
        if self._successor is None:
            self._wanted = False
            self._tell(ENDS)

    def begin(self, sockets: Iterable[socket.socket]) -> None:
        """Starts the new process if one is wanted and none is being started."""
        if not self._wanted:
            return
        self._wanted = False
        if self._successor is not None:
            return
        self._reasons = []
        if os.getpid() == 1:
            self._fail("a container ends with its first process, which this one is; start a new container")
            return
        command = own_command()
        try:
            self._successor = successor = Successor.start(command, sockets)
        except OSError as error:
            self._fail(f"{command[0]} can't be started: {(error.strerror or str(error)).lower()}")
            return
        self._deadline = time.monotonic() + START_SECONDS
        self._selector.register(successor, selectors.EVENT_READ, self._heard)
        log.info("upgrade: process %d starts", successor.pid)

    def _heard(self) -> None:
        successor = self._successor
        assert successor is not None
        try:
            word = successor.hear()
        except BlockingIOError:
            return
        except ValueError as error:
            self._reasons = [str(error)]
            successor.kill(signal.SIGKILL)
            word = None
        if word is None or not word.serves:
            # It ends: SIGCHLD tells how.
            self._selector.unregister(successor)
            if word is not None:
                self._reasons = list(word.problems)
            return
        self._forget()
        log.info(
            "upgrade: process %d (%s) serves from here; this one (%s) finishes what it has begun",
            *(word.pid, word.version, __version__),
        )
        before = {"pid": os.getpid(), "version": __version__}
        self._tell({"before": before, "now": {"pid": word.pid, "version": word.version}})
        self.taken = word

    def ended(self, pid: int, code: int) -> None:
        """A process that is no worker has ended."""
        successor = self._successor
        if successor is None or successor.pid != pid:
            return
        how = f"signal {-code}" if code < 0 else f"status {code}"
        words = self._forget()
        self._reasons = self._reasons or words[-1:]
        self._fail(*(self._reasons or [f"it ended with {how}; the log says why"]))

    def gone(self, worker: Worker) -> None:
        """A worker has ended: nobody waits there any more."""
        self._asked = [(who, number) for who, number in self._asked if who is not worker]

    def look_after(self, now: float) -> None:
        """Ends a new process that does not serve in time."""
        if self._successor is not None and now >= self._deadline:
            self._reasons = [f"it did not serve within {START_SECONDS:g} s"]
            self._deadline = float("inf")
            self._successor.kill(signal.SIGKILL)

    def close(self) -> None:
        """Drops what belongs to the new process, where it is a copy."""
        if self._successor is not None:
            self._successor.close()

    def abandon(self) -> None:
        """The gateway ends, and a new process that is being started with it."""
        if self._successor is not None:
            self._successor.kill(signal.SIGTERM)

    def _fail(self, *reasons: str) -> None:
        for reason in reasons:
            log.error("upgrade: the new process can't serve: %s", reason)
        log.error("upgrade: nothing was changed")
        self._tell({"problems": reasons})

    def _forget(self) -> list[str]:
        """What it wrote to where a log was not yet."""
        successor, self._successor = self._successor, None
        assert successor is not None
        words = successor.last_words().splitlines()
        for line in words:
            log.warning("upgrade: process %d: %s", successor.pid, line)
        if successor in self._selector.get_map():
            self._selector.unregister(successor)
        successor.close()
        return words

    def _tell(self, outcome: dict[str, Any]) -> None:
        asked, self._asked = self._asked, []
        for worker, number in asked:
            worker.channel.send("upgraded", ask=number, outcome=outcome)
