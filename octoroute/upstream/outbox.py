"""Writes of one turn of the event loop, done together at its end.

A write to a socket wakes the process that waits for it; a few microseconds later that process sleeps again.
Under load many requests are ready in one turn, and writing for all of them back to back wakes a peer once
instead of once for each: a third of the gateway's CPU for small requests (benchmarks/README.md). Nothing
waits longer than the turn. What comes alone does not wait even for that: there is nothing that it could be
written together with.
"""

import asyncio
import time
from typing import Final

from octoroute._transport import SocketTransport

# Between two posts of which the second comes alone.
QUIET_NS: Final = 200_000


class Outbox:
    """One per event loop. What is posted for one transport is written in order."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[tuple[asyncio.Transport, tuple[bytes | memoryview, ...]]] = []
        self._posted_ns = 0

    def post(self, transport: asyncio.Transport, pieces: tuple[bytes | memoryview, ...]) -> None:
        """Has `pieces` written before the event loop looks for new input again."""
        last_ns, self._posted_ns = self._posted_ns, time.monotonic_ns()
        if not self._waiting:
            if self._posted_ns - last_ns > QUIET_NS and isinstance(transport, SocketTransport):
                transport.writelines(pieces)
                return
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._write)
        self._waiting.append((transport, pieces))

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        for transport, pieces in waiting:
            # Its peer may have left, or its owner given it up, since.
            if not transport.is_closing():
                transport.writelines(pieces)
