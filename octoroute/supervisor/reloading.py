"""Reloads as the supervisor does them: read the file, see that it is good, give it to all workers, tell
whoever asked. Servers that were found (discovering.py) take the same way, without the file being read.

Only the supervisor reads the file: all workers get the same config even if the file changes meanwhile, and a
worker that is started later has it too. A file that is not good changes nothing.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from octoroute import logs
from octoroute.config import Config, load
from octoroute.config.changes import Changes, reloaded
from octoroute.config.found import Found, with_found
from octoroute.discovery.search import require_extras
from octoroute.errors import ConfigError
from octoroute.gateway import try_out
from octoroute.supervisor import systemd
from octoroute.supervisor.channel import ENDS, Channel

log = logging.getLogger(__name__)

APPLY_SECONDS: Final = 10.0
MAX_NAMES: Final = 100  # of a kind, in an answer; the log has all


class Worker(Protocol):
    """What is needed of a worker's process."""

    pid: int
    channel: Channel


@dataclass
class Reload:
    """A reload under way, and why. `waiting` are the workers that do not have the config yet."""

    cause: str
    generation: int
    changes: Changes
    asked: list[tuple[Worker, int]]
    deadline: float
    waiting: list[Worker] = field(default_factory=list)
    applied: int = 0
    total: int = 0


class Reloads:
    """`config` is the one that holds, `file` the same without the servers that were found. One reload at a
    time; what is asked for meanwhile makes one more.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path = path
        self.file = self.config = config
        self._found: Found = {}
        self._moved = False
        self._generation = 0
        self._wanted = False
        self._asked: list[tuple[Worker, int]] = []
        self._under_way: Reload | None = None

    @property
    def deadline(self) -> float | None:
        """When `look_after` has something to do at the latest, on the monotonic clock."""
        return None if self._under_way is None else self._under_way.deadline

    def ask(self, worker: Worker | None = None, number: int = 0) -> None:
        """A reload is wanted; a worker that says so is told what came of it, under its number."""
        self._wanted = True
        if worker is not None:
            self._asked.append((worker, number))

    def turn_away(self) -> None:
        """No reload is begun any more: who asked for one is told so."""
        asked, self._asked, self._wanted = self._asked, [], False
        for worker, number in asked:
            worker.channel.send("reloaded", ask=number, outcome=ENDS)

    def note_found(self, found: Found) -> None:
        """Other servers were found at the sources: they are to be used."""
        self._found = found
        self._moved = True

    def begin(self, workers: Sequence[Worker]) -> None:
        """Starts a reload if one is wanted, or other servers were found, and none is under way."""
        if self._wanted and self._under_way is None:
            self._begin_with_the_file(workers)
        if self._moved and self._under_way is None:
            self._begin_with_what_was_found(workers)

    def _begin_with_the_file(self, workers: Sequence[Worker]) -> None:
        asked, self._asked, self._wanted = self._asked, [], False
        systemd.reloading()
        try:
            file = load(self.path)
            require_extras(file.discovery, str(self.path))
            config, changes = reloaded(self.config, with_found(file, self._found))
            # What fails here would fail in each worker.
            try_out(config)
            logs.setup(config.observability)
        except ConfigError as error:
            for problem in str(error).splitlines():
                log.error("reload: %s", problem)
            log.error("reload: the config has problems; nothing was changed")
            self._tell(asked, {"problems": list(error.problems)})
            return
        except Exception:
            log.exception("reload: the config can't be used; nothing was changed")
            self._tell(asked, {"problems": ["the config can't be used; the log says why"]})
            return
        for key in changes.left:
            log.warning("reload: %s has changed, but keeps its value until a restart", key)
        self.file = file.model_copy(update={"server": config.server})
        self._give("reload", config, changes, asked, workers)

    def _begin_with_what_was_found(self, workers: Sequence[Worker]) -> None:
        self._moved = False
        try:
            config, changes = reloaded(self.config, with_found(self.file, self._found))
            if config == self.config:
                return
            try_out(config)
        except Exception as error:
            log.error("discovery: what was found can't be used, nothing was changed: %s", error)
            return
        self._give("discovery", config, changes, [], workers)

    def _give(
        self,
        cause: str,
        config: Config,
        changes: Changes,
        asked: list[tuple[Worker, int]],
        workers: Sequence[Worker],
    ) -> None:
        self.config = config
        self._moved = False
        self._generation += 1
        self._under_way = under_way = Reload(
            cause, self._generation, changes, asked, time.monotonic() + APPLY_SECONDS
        )
        for worker in workers:
            under_way.total += 1
            if worker.channel.send("apply", config, generation=self._generation):
                under_way.waiting.append(worker)
        self._finish_if_done()

    def applied(self, worker: Worker, generation: int) -> None:
        """A worker uses the config of that generation now."""
        under_way = self._under_way
        if under_way is not None and generation == under_way.generation and worker in under_way.waiting:
            under_way.waiting.remove(worker)
            under_way.applied += 1
            self._finish_if_done()

    def gone(self, worker: Worker) -> None:
        """A worker has ended: the one that takes its place begins with the new config."""
        self._asked = [(who, number) for who, number in self._asked if who is not worker]
        under_way = self._under_way
        if under_way is not None:
            under_way.asked = [(who, number) for who, number in under_way.asked if who is not worker]
            if worker in under_way.waiting:
                under_way.waiting.remove(worker)
                under_way.total -= 1
                self._finish_if_done()

    def look_after(self, now: float) -> None:
        """Gives up waiting for a worker that does not answer."""
        under_way = self._under_way
        if under_way is not None and now >= under_way.deadline:
            for worker in under_way.waiting:
                log.error(
                    "%s: worker %d has not taken the config within %g s",
                    under_way.cause,
                    worker.pid,
                    APPLY_SECONDS,
                )
            under_way.waiting.clear()
            self._finish_if_done()

    def _finish_if_done(self) -> None:
        done = self._under_way
        if done is None or done.waiting:
            return
        self._under_way = None
        changes = done.changes
        if done.total:
            log.info(
                "%s: %d of %d workers use the new config: %s", done.cause, done.applied, done.total, changes
            )
        else:
            log.info("%s: %s", done.cause, changes)
        outcome = {
            "changed": _some(changes.keys),
            "endpoints": {
                "added": _some(changes.added),
                "removed": _some(changes.removed),
                "changed": _some(changes.changed),
            },
            "needs_restart": list(changes.left),
            "workers": {"reloaded": done.applied, "total": done.total},
        }
        self._tell(done.asked, outcome)

    @staticmethod
    def _tell(asked: Iterable[tuple[Worker, int]], outcome: dict[str, Any]) -> None:
        systemd.ready()
        for worker, number in asked:
            worker.channel.send("reloaded", ask=number, outcome=outcome)


def _some(names: tuple[str, ...]) -> list[str]:
    if len(names) <= MAX_NAMES:
        return list(names)
    return [*names[:MAX_NAMES], f"and {len(names) - MAX_NAMES} more"]
