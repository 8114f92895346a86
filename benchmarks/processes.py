"""A program under measurement, started on a core of its own: what it and its children use. Linux only."""

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from benchmarks.native.build import pinned

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
STOP_S: Final = 10.0


class Program:
    """`command` in a session of its own, its output in `log`."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cpu: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*pinned(cpu), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_allow_many_files,
            )
        self.log = log

    def alive(self) -> bool:
        return self.process.poll() is None

    def cpu_s(self) -> float:
        """Processor time of all its processes so far, to the microsecond where they still run."""
        return sum(_process_cpu_s(pid) for pid in self.tree())

    def rss_kib(self) -> int:
        """Resident memory of all its processes. What they share counts once (it is their PSS)."""
        total = 0
        for pid in self.tree():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
        return total

    def tree(self) -> list[int]:
        """Its process and all below it."""
        children: dict[int, list[int]] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with suppress(OSError):
                    children.setdefault(int(_stat(entry)[1]), []).append(int(entry))
        found, left = [], [self.process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            left += children.get(pid, [])
        return found

    def stop(self) -> None:
        """SIGTERM to it; SIGKILL to its whole session if that is not enough."""
        self.process.terminate()
        deadline = time.monotonic() + STOP_S
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _allow_many_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _stat(pid: str | int) -> list[str]:
    """/proc/PID/stat from the state on: [1] is the parent, [11..14] utime, stime, of ended children too."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _process_cpu_s(pid: int) -> float:
    total = 0.0
    with suppress(OSError):
        # Ended children in ticks of 10 ms; the running threads in nanoseconds.
        total += sum(int(ticks) for ticks in _stat(pid)[13:15]) / TICKS_PER_S
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    return total
