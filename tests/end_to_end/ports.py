"""Ports that stay free until who asked for one listens there.

One that the system gives, it may give again as soon as it is let go of: to a server of another test process,
or to any connection that goes out. These are outside its range, and each test process has a block of its own.
"""

import socket
from collections.abc import Iterator
from functools import cache
from itertools import cycle, islice
from pathlib import Path

OF_SYSTEM = Path("/proc/sys/net/ipv4/ip_local_port_range")
# Browsers refuse to connect to some ports; the highest of them is 10080.
LOWEST, HIGHEST = 12_000, 65_535
BLOCK = 200


def free_port() -> int:
    """One where nobody listens. The same is given again only after all others of the block."""
    block = _block()
    if block is None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return int(probe.getsockname()[1])
    return next(port for port in islice(block, BLOCK) if _is_free(port))


@cache
def _block() -> Iterator[int] | None:
    """None where the system's range leaves no room for one."""
    first, last = map(int, OF_SYSTEM.read_text().split())
    starts = (*range(LOWEST, first - BLOCK, BLOCK), *range(last + 1, HIGHEST - BLOCK, BLOCK))
    return next((cycle(range(start, start + BLOCK)) for start in starts if _claim(start)), None)


def _claim(start: int) -> bool:
    """Whether the block is this process's from here on, until it ends."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        try:
            # A name without a file, which only one can have.
            claim.bind(f"\0octoroute-tests-ports-{start}")
        except OSError:
            return False
        claim.detach()
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
