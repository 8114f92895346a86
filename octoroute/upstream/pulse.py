"""Comment lines for a client whose broken stream has no server to go on with it: while it waits for a place,
above all.
"""

import asyncio
import time

from octoroute.upstream.client import Carrier
from octoroute.upstream.connection import Connection


class Pulse:
    """Beats until `stop`. What the client got must end with a whole event."""

    __slots__ = ("_asked", "_broken", "_client", "_heard_ns", "_ping_ns", "_timer")

    def __init__(self, client: Carrier, broken: Connection, ping_ns: int) -> None:
        """`broken`: whom the client heard last."""
        self._client = client
        self._broken = broken
        self._asked: Connection | None = None
        self._heard_ns = broken.out_ns
        self._ping_ns = ping_ns
        self._timer = self._beat_at(self._heard_ns + ping_ns)

    def turn_to(self, asked: Connection | None) -> None:
        """Whom the client may hear from here."""
        self._listen()
        self._asked = asked

    def stop(self) -> None:
        self._timer.cancel()

    def _listen(self) -> None:
        asked = self._asked
        if asked is not None and asked.bytes_out:
            self._heard_ns = max(self._heard_ns, asked.out_ns)

    def _beat_at(self, at_ns: int) -> asyncio.TimerHandle:
        after_s = max(0, at_ns - time.monotonic_ns()) * 1e-9
        return asyncio.get_running_loop().call_later(after_s, self._beat)

    def _beat(self) -> None:
        self._listen()
        now = time.monotonic_ns()
        if now - self._heard_ns >= self._ping_ns:
            self._client.ping(self._broken)
            self._heard_ns = now
        self._timer = self._beat_at(self._heard_ns + self._ping_ns)
