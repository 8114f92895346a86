"""The supervisor and its workers: N processes on one port, each with its own event loop.

The supervisor loads the config, opens the sockets and the shared state, forks, and waits: a worker that dies
is replaced, SIGTERM and SIGINT end all of them, SIGHUP gives all a new config, SIGUSR2 has a new process take
over. It runs no event loop and no thread, so that forking stays safe. What it does about a reload is in
reloading.py, about sources of servers in discovering.py, about a new process in upgrading.py and handover.py.
"""

import logging
import os
import selectors
import signal
import socket
import ssl
import time
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Final

from octoroute import __version__, logs
from octoroute.config import Config, load
from octoroute.discovery.search import require_extras
from octoroute.errors import ConfigError
from octoroute.gateway import try_out
from octoroute.shared_memory import Shared
from octoroute.supervisor import systemd
from octoroute.supervisor.channel import Channel, Message
from octoroute.supervisor.discovering import Discovering
from octoroute.supervisor.forking import fork
from octoroute.supervisor.gathering import Gathering
from octoroute.supervisor.handover import Predecessor, Word
from octoroute.supervisor.places import Place, Process
from octoroute.supervisor.reloading import Reloads
from octoroute.supervisor.signals import Signals
from octoroute.supervisor.sockets import (
    allow_many_sockets,
    close_sockets,
    describe,
    open_sockets,
    tls_context,
)
from octoroute.supervisor.upgrading import Upgrades
from octoroute.supervisor.worker import Post, run_worker

log = logging.getLogger(__name__)

# Beyond server.drain_seconds, after which a worker cuts what still runs by itself.
KILL_SECONDS: Final = 5.0
EXIT_NOT_STARTED: Final = 1
# With a hard limit of fewer open files the operator should know.
FEW_FILES: Final = 4096


def serve(config_path: Path) -> int:
    """Serves until told to stop; the exit code. Raises ConfigError before anything has begun."""
    predecessor = Predecessor.of_environment(os.environ)
    try:
        supervisor = _supervisor(config_path, predecessor)
    except ConfigError as error:
        if predecessor is not None:
            predecessor.refuse(__version__, error.problems)
        raise
    return supervisor.run()


def _supervisor(config_path: Path, predecessor: Predecessor | None) -> "Supervisor":
    config = load(config_path)
    logs.setup(config.observability)
    require_extras(config.discovery, str(config_path))
    tls = tls_context(config.server)
    files = allow_many_sockets()
    if files < FEW_FILES:
        log.warning(
            "at most %d files may be open: about %d streams at a time; see ulimit -n", files, files // 2
        )
    # What fails here would fail in each worker, again and again.
    try_out(config)
    count = config.server.workers or len(os.sched_getaffinity(0))
    inherited = predecessor.sockets if predecessor is not None else ()
    sets = open_sockets(config.server.host, config.server.port, count, inherited)
    if predecessor is not None:
        predecessor.keep({sock for sockets in sets for sock in sockets})
    log.info("octoroute listens on %s", describe(sets[0], tls=tls is not None))
    return Supervisor(config_path, config, sets, tls, predecessor)


class Supervisor:
    """Starts the workers and keeps them running."""

    def __init__(
        self,
        path: Path,
        config: Config,
        sets: list[list[socket.socket]],
        tls: ssl.SSLContext | None,
        predecessor: Predecessor | None = None,
    ) -> None:
        self.places = [Place(sockets) for sockets in sets]
        # A worker that drains while another has taken its place keeps its column: so there is one to spare
        # for each.
        self.columns = list(reversed(range(2 * len(sets))))
        self.shared = Shared(len(sets), spare=len(sets))
        self.tls = tls
        self.processes: dict[int, Process] = {}
        self.reloads = Reloads(path, config)
        self.gathering = Gathering()
        # What is called when there is something to read.
        self.selector = selectors.DefaultSelector()
        self.upgrades = Upgrades(self.selector)
        self.discovering = Discovering(
            self.selector, lambda: self._let_go(None), self.shared.sources, self.shared.registry
        )
        self.predecessor = predecessor
        self.signals = Signals(self.selector)
        self.code: int | None = None  # of the exit, once that is decided
        self.kill_at: float | None = None
        self.replaced = False  # a new process serves in place of this one
        self.spared = False  # by the first signal to end since then
        self.ever_ready = False
        self.all_ready = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        with self.signals.noted():
            while self.code is None or self.processes:
                if self.code is None:
                    self.discovering.follow(self.reloads.file.discovery)
                    self._fill_places()
                self._wait()
                self._do_pending()
        log.info("what this process had begun is finished" if self.replaced else "octoroute has stopped")
        return self.code or 0

    def stop(self, code: int = 0) -> None:
        """Has all workers finish what runs, and ends."""
        systemd.stopping()
        self.upgrades.abandon()
        self._leave(code, ())
        self._kill(signal.SIGTERM)

    def _hand_over(self, word: Word) -> None:
        """The same, now that another process serves. Nothing is refused: the sockets live on there."""
        systemd.main_process(word.pid)
        self.replaced = True
        self._leave(0, word.kept)
        for process in self.processes.values():
            if not process.channel.send("hand_over"):
                os.kill(process.pid, signal.SIGTERM)

    def _leave(self, code: int, kept: Collection[int]) -> None:
        self.code = code
        self.kill_at = time.monotonic() + self._drain_seconds + KILL_SECONDS
        # As long as a copy is open, connections are taken into its queue and never served.
        close_sockets((place.sockets for place in self.places), kept)
        self.discovering.stop()

    @property
    def _holds_back(self) -> bool:
        """Whether the first workers wait for the first servers to be found."""
        return not self.ever_ready and self.discovering.awaited

    def _fill_places(self) -> None:
        now = time.monotonic()
        if self._holds_back:
            return
        for place in self.places:
            if place.process is None and now >= place.due and self.columns:
                self._start(place)

    def _wait(self) -> None:
        """Until a signal or a message comes, or something is due."""
        due: list[float | None]
        if self.code is None:
            due = [*self.discovering.deadlines]
            if not self._holds_back:
                due += [place.due for place in self.places if place.process is None and self.columns]
        else:
            due = [self.kill_at]
        due += [self.reloads.deadline, self.upgrades.deadline, self.gathering.deadline]
        now = time.monotonic()
        timeout = min((max(0.0, moment - now) for moment in due if moment is not None), default=None)
        for key, _ in self.selector.select(timeout):
            key.data()
        now = time.monotonic()
        if self.kill_at is not None and now >= self.kill_at:
            log.error("%d workers did not end in time and are killed", len(self.processes))
            self._kill(signal.SIGKILL)
            self.kill_at = None
        self.reloads.look_after(now)
        self.upgrades.look_after(now)
        self.gathering.look_after(now)
        if self.code is None:
            self.discovering.look_after(now)

    def _do_pending(self) -> None:
        if self.code is None and self.upgrades.taken is not None:
            self._hand_over(self.upgrades.taken)
        pending = self.signals.take()
        # First: a worker that ended because of a signal to all is no crash.
        for number in sorted(pending & {signal.SIGTERM, signal.SIGINT}):
            self._told_to_end(number)
        if signal.SIGCHLD in pending:
            self._reap()
        if self.code is not None:
            self.reloads.turn_away()
            self.upgrades.turn_away()
            return
        if signal.SIGHUP in pending:
            self.reloads.ask()
        if signal.SIGUSR2 in pending:
            self.upgrades.ask()
        if (found := self.discovering.take_changes()) is not None:
            self.reloads.note_found(found)
        self.reloads.begin([process for process in self.processes.values() if not process.leaving])
        self.upgrades.begin({sock for place in self.places for sock in place.sockets})

    def _told_to_end(self, number: int) -> None:
        if self.code is None:
            self.stop()
            log.info("octoroute ends: what runs may finish within %g s", self._drain_seconds)
        elif self.replaced and not self.spared:
            # Meant for the service as a whole, perhaps: what runs here has as much right to its time.
            self.spared = True
            log.info("this process has been replaced, and goes on with what it has begun")
        else:
            self.code = 128 + number
            self._kill(signal.SIGKILL)

    @property
    def _drain_seconds(self) -> float:
        return self.reloads.config.server.drain_seconds

    def _start(self, place: Place) -> None:
        ours, theirs = Channel.pair()
        column = self.columns.pop()
        now = time.monotonic()

        def be_worker() -> int:
            ours.close()
            self._let_go(place)
            return run_worker(self.reloads.config, self.shared, Post(column, place.sockets, self.tls, theirs))

        pid = fork(be_worker)
        theirs.close()
        process = Process(pid, column, ours, place, now)
        place.process = process
        self.processes[pid] = process
        self.selector.register(ours, selectors.EVENT_READ, partial(self._listen, process))

    def _let_go(self, place: Place | None) -> None:
        """In a new process: drops what belongs to the supervisor and to workers in other places."""
        self.selector.close()
        self.upgrades.close()
        if self.predecessor is not None:
            self.predecessor.close()
        # A copy here would keep the others from reading the end of their line.
        for process in self.processes.values():
            process.channel.close()
        self.discovering.close()
        for other in self.places:
            # Workers have a socket of the file system in common.
            common = place is not None and other.sockets[0].family == socket.AF_UNIX
            if other is not place and not common:
                for sock in other.sockets:
                    sock.close()

    def _listen(self, process: Process) -> None:
        while True:
            try:
                message = process.channel.receive()
            except BlockingIOError:
                return
            if message is None:
                # It ends: SIGCHLD tells how.
                if process.channel in self.selector.get_map():
                    self.selector.unregister(process.channel)
                return
            self._hear(process, message)

    def _hear(self, process: Process, message: Message) -> None:
        if message.kind == "ready":
            process.ready = self.ever_ready = True
            log.debug("worker %d serves", process.pid)
            if not self.all_ready and all(place.process and place.process.ready for place in self.places):
                self._serves()
        elif message.kind == "retire":
            log.critical("worker %d can't be trusted any more: it drains, another one starts", process.pid)
            process.leaving = True
            process.place.vacate(time.monotonic())
        elif message.kind == "ask_reload":
            self.reloads.ask(process, message.fields["ask"])
        elif message.kind == "applied":
            self.reloads.applied(process, message.fields["generation"])
        elif message.kind == "ask_upgrade":
            self.upgrades.ask(process, message.fields["ask"])
        elif message.kind in ("ask_recent", "recent"):
            self.gathering.hear(process, message, (one for one in self.processes.values() if one.ready))

    def _serves(self) -> None:
        """Every worker is ready, for the first time."""
        self.all_ready = True
        systemd.ready()
        if self.predecessor is not None:
            self.predecessor.take_over(__version__)
            self.predecessor = None

    def _reap(self) -> None:
        """Takes note of processes that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            process = self.processes.pop(pid, None)
            if process is not None:
                self._ended(process, code)
            elif pid == self.discovering.pid:
                self.discovering.ended(code)
            else:
                self.upgrades.ended(pid, code)

    def _ended(self, process: Process, code: int) -> None:
        # What it said at last, up to the end of the line.
        self._listen(process)
        process.channel.close()
        self.reloads.gone(process)
        self.upgrades.gone(process)
        self.gathering.gone(process)
        # What it had under way counts no longer.
        self.shared.reclaim(process.column)
        self.columns.append(process.column)
        if process.leaving or self.code is not None:
            return
        pause = process.place.vacate(time.monotonic())
        how = f"signal {-code}" if code < 0 else f"status {code}"
        if not self.ever_ready:
            log.error("a worker ended with %s before it could serve: octoroute ends", how)
            self.stop(EXIT_NOT_STARTED)
        elif code == 0:
            log.info("worker %d was told to end; a new one starts in %g s", process.pid, pause)
        else:
            log.error("worker %d ended with %s; a new one starts in %g s", process.pid, how, pause)

    def _kill(self, number: int) -> None:
        for pid in self.processes:
            os.kill(pid, number)
