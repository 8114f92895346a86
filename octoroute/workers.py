"""The supervisor and its workers: N processes on one port, each with its own event loop.

The supervisor loads the config, opens the sockets and the shared state, forks, and waits: a worker that dies
is replaced, SIGTERM and SIGINT end all of them. It runs no event loop and no thread, so that forking stays
safe.
"""

import ctypes
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from octoroute import logs
from octoroute.config import Config, load
from octoroute.gateway import Shared
from octoroute.listen import describe, open_sockets
from octoroute.worker import run_worker

log = logging.getLogger(__name__)

# Pauses before a worker that keeps dying is started again, seconds; a worker that ran for a minute starts
# afresh.
BACKOFF = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
STEADY_SECONDS = 60.0
PR_SET_PDEATHSIG = 1
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP}


@dataclass
class Slot:
    """A worker's place: its sockets stay, its processes come and go."""

    number: int
    sockets: list[socket.socket]
    pid: int = 0
    started: float = 0.0
    crashes: int = 0
    due: float = field(default=0.0)


def serve(config_path: Path) -> int:
    """Serves until told to stop; the exit code. Raises ConfigError before anything has begun."""
    config = load(config_path)
    logs.setup(config.observability)
    count = config.server.workers or len(os.sched_getaffinity(0))
    sets = open_sockets(config.server.host, config.server.port, count)
    shared = Shared(count)
    log.info("octoroute listens on %s", describe(sets[0], tls=bool(config.server.tls_cert)))
    return Supervisor(config, shared, [Slot(number, sockets) for number, sockets in enumerate(sets)]).run()


class Supervisor:
    """Starts the workers and keeps them running."""

    def __init__(self, config: Config, shared: Shared, slots: list[Slot]) -> None:
        self.config = config
        self.shared = shared
        self.slots = slots
        self.stopping = False

    def run(self) -> int:
        """Until SIGTERM or SIGINT; the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for slot in self.slots:
            self.start(slot)
        while any(slot.pid or not self.stopping for slot in self.slots):
            self.wait()
            now = time.monotonic()
            for slot in self.slots:
                if not slot.pid and not self.stopping and now >= slot.due:
                    self.start(slot)
        log.info("octoroute has stopped")
        return 0

    def wait(self) -> None:
        """Waits for a signal, or until a worker is due to be started again, and does what it asks for."""
        due = [slot.due for slot in self.slots if not slot.pid and not self.stopping]
        timeout = max(0.0, min(due) - time.monotonic()) if due else 3600.0
        info = signal.sigtimedwait(SIGNALS, timeout)
        if info is None:
            return
        if info.si_signo == signal.SIGCHLD:
            self.reap()
        elif info.si_signo != signal.SIGHUP:
            # The second one no longer waits for streams that run.
            how = signal.SIGKILL if self.stopping else signal.SIGTERM
            self.stopping = True
            for slot in self.slots:
                if slot.pid:
                    os.kill(slot.pid, how)
            self.reap()

    def start(self, slot: Slot) -> None:
        slot.started = time.monotonic()
        pid = os.fork()
        if pid:
            slot.pid = pid
            return
        code = 1
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            for other in self.slots:
                if other is not slot and other.sockets[0].family != socket.AF_UNIX:
                    for sock in other.sockets:
                        sock.close()
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            code = run_worker(self.config, self.shared, slot.number, slot.sockets)
        except BaseException:
            log.exception("worker %d failed", slot.number)
        finally:
            logging.shutdown()
            os._exit(code)

    def reap(self) -> None:
        """Takes note of workers that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for slot in self.slots:
                if slot.pid == pid:
                    self.ended(slot, os.waitstatus_to_exitcode(status))

    def ended(self, slot: Slot, code: int) -> None:
        slot.pid = 0
        # What the dead worker had under way counts no longer.
        self.shared.state.reclaim(slot.number)
        if self.stopping:
            return
        now = time.monotonic()
        slot.crashes = 0 if now - slot.started > STEADY_SECONDS else slot.crashes + 1
        pause = BACKOFF[min(max(slot.crashes - 1, 0), len(BACKOFF) - 1)]
        slot.due = now + pause
        how = f"signal {-code}" if code < 0 else f"status {code}"
        log.error("worker %d ended with %s; a new one starts in %g s", slot.number, how, pause)
