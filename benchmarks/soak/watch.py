"""What the gateway's processes hold: memory, open files, and what it says of itself in /metrics."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from octoroute.demo.client import Target, exchange

SCRAPE_S: Final = 10.0
SAMPLE: Final = re.compile(r"^(\w+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


class Processes:
    """A supervisor and its workers."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
        return [self._pid, *map(int, children)]

    def resident_kib(self) -> int:
        return self._sum(_resident_kib)

    def sockets(self) -> int:
        """Open sockets of all kinds, those that listen too."""
        return self._sum(_sockets)

    def _sum(self, of_one: Callable[[int], int]) -> int:
        return sum(of_one(pid) for pid in self._pids())


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


async def metrics(target: Target) -> dict[str, float]:
    """Each family's sum over its labels."""
    request = f"GET /metrics HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n\r\n".encode()
    seen = await exchange(target, request, SCRAPE_S)
    sums: dict[str, float] = {}
    for name, value in SAMPLE.findall(seen.body.decode()):
        sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def slope(samples: list[tuple[float, float]]) -> float:
    """Least squares: by how much the second of a pair grows per unit of the first."""
    if len(samples) < 2:
        return 0.0
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    spread = sum((x - mean_x) ** 2 for x, _ in samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / spread if spread else 0.0
