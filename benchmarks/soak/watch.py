"""What the gateway's processes hold: memory, open files, and what it says of itself in /metrics."""

import os
import re
import signal
from pathlib import Path
from typing import Final

from octoroute.demo.client import Target, exchange

SCRAPE_S: Final = 10.0
SAMPLE: Final = re.compile(r"^(\w+)(\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


class Processes:
    """A supervisor and its workers."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def _workers(self) -> list[int]:
        """The oldest one first."""
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return [*map(int, children)]

    def resident_kib(self) -> int:
        """Of the supervisor and its oldest worker: the others may have been killed."""
        return sum(map(_resident_kib, [self._pid, *self._workers()[:1]]))

    def sockets(self) -> int:
        """Open sockets of all kinds, those that listen too."""
        return sum(map(_sockets, [self._pid, *self._workers()]))

    def kill_worker(self) -> bool:
        """Kills the youngest worker; False where it is the only one."""
        workers = self._workers()
        if len(workers) > 1:
            os.kill(workers[-1], signal.SIGKILL)
        return len(workers) > 1


def _resident_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended
        return 0
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) if found else 0


def _sockets(pid: int) -> int:
    total = 0
    try:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                total += str(fd.readlink()).startswith("socket:")
            except OSError:
                continue
    except OSError:
        return 0
    return total


class Metrics:
    """What /metrics said."""

    def __init__(self, text: str) -> None:
        self._samples = [(name, labels, float(value)) for name, labels, value in SAMPLE.findall(text)]

    def total(self, family: str, label: str = "") -> int:
        """The sum over a family, of the samples with a `label="value"`."""
        return round(
            sum(value for name, labels, value in self._samples if name == family and label in labels)
        )


async def metrics(target: Target) -> Metrics:
    """Of all the workers."""
    request = f"GET /metrics HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n\r\n".encode()
    seen = await exchange(target, request, SCRAPE_S)
    return Metrics(seen.body.decode())


def slope(samples: list[tuple[float, float]]) -> float:
    """Least squares: by how much the second of a pair grows per unit of the first."""
    if len(samples) < 2:
        return 0.0
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0
