"""Connections to one endpoint: opens them, keeps idle ones, knows when an idle one is no longer safe to use.

llama.cpp and uvicorn close idle connections after 5 s; a request sent at that moment is lost. So an idle
connection is dropped before that. llama.cpp also closes after every event stream, whatever its head says:
that is learnt here.
"""

import asyncio
import ssl
import time
from collections import deque
from functools import cache
from typing import Literal, Protocol
from urllib.parse import urlsplit

from octoroute._connect import numeric_address
from octoroute._poller import Poller
from octoroute.errors import UpstreamFailed
from octoroute.upstream.connection import Connection
from octoroute.upstream.dial import Caller, Dial, Pieces
from octoroute.upstream.outbox import Outbox

IDLE_SECONDS = 4.0
MAX_IDLE = 256
# A connection that carried an event stream and is still open after this long is one that the server keeps.
PROBATION_SECONDS = 0.1
# What was learnt about closing after streams is doubted after this long: the server may have been replaced.
RELEARN_SECONDS = 300.0
# Between two looks at a server that is silent.
DOUBT_SECONDS = 1.0


class Clock(Protocol):
    def __call__(self) -> float: ...


class Pool:
    """`take` an idle connection or `connect` a new one; `give` it back; `expire` now and then."""

    def __init__(
        self,
        base_url: str,
        outbox: Outbox,
        poller: Poller,
        *,
        tls_verify: bool,
        tls_server_name: str = "",
        connect_s: float,
        clock: Clock,
    ) -> None:
        parts = urlsplit(base_url)
        self.label = base_url
        self.outbox = outbox
        self.poller = poller
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.tls = _tls(tls_verify) if parts.scheme == "https" else None
        # None: it has to be looked up, or more than TCP is spoken (dial.py).
        self.address = None if self.tls else numeric_address(self.host, self.port)
        self.server_name = (tls_server_name or self.host) if self.tls else None
        self.connect_s = connect_s
        self.clock = clock
        self.idle: list[Connection] = []
        self.probation: deque[Connection] = deque()
        self.after_stream: Literal["unknown", "closes", "keeps"] = "unknown"
        self.learnt_at = 0.0
        # The software that listens there (kind.py), "" if that has not been learnt.
        self.kind = ""
        # The servers' keys, which no client must see.
        self.secrets: tuple[bytes, ...] = ()
        self.opened = 0
        self.closed = False
        # Connections whose server has been silent, until it was seen whether it still takes new ones.
        self.doubted: set[Connection] = set()
        self.doubted_at = -1.0
        self._look: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Pool {self.label} idle={len(self.idle)} probation={len(self.probation)} opened={self.opened}>"
        )

    def take(self) -> Connection | None:
        """The idle connection that was used last, or None."""
        now = self.clock()
        if self.probation:
            self._pass_probation(now)
        idle = self.idle
        while idle:
            connection = idle.pop()
            if now - connection.idle_since < IDLE_SECONDS and not connection.transport.is_closing():
                connection.was_reused = True
                return connection
            connection.close()
        return None

    def dial(self, deadline_ns: int, caller: Caller, request: Pieces = ()) -> Dial:
        """Begins a new connection, to be there by a time of the monotonic clock. `request` may be sent before
        the caller hears of it.
        """
        self.opened += 1
        dial = Dial(self, caller, request)
        dial.begin(min(self.connect_s, (deadline_ns - time.monotonic_ns()) * 1e-9))
        return dial

    async def connect(self, deadline_ns: int) -> Connection:
        """The same, waited for. Raises UpstreamTimeout or UpstreamFailed."""
        future: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        dial = self.dial(deadline_ns, _Waiter(future))
        try:
            return await future
        except asyncio.CancelledError:
            dial.cancel()
            if not future.cancelled() and future.exception() is None:
                # It was made in the turn in which it was given up.
                future.result().close()
            raise

    def doubt(self, connection: Connection) -> None:
        """The server of `connection` has been silent for long: a server that refuses new connections was told
        to end, and will say no more. Looks at most once a second, whoever asks.
        """
        self.doubted.add(connection)
        now = self.clock()
        if self._look is None and now - self.doubted_at >= DOUBT_SECONDS:
            self.doubted_at = now
            self._look = asyncio.get_running_loop().create_task(self._look_at_server())

    async def _look_at_server(self) -> None:
        refuses = False
        try:
            async with asyncio.timeout(self.connect_s):
                transport, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, self.host, self.port
                )
                transport.abort()
        except ConnectionRefusedError:
            refuses = True
        except OSError:
            pass  # slow, or unreachable from here just now: no proof of anything
        finally:
            self._look = None
            doubted, self.doubted = self.doubted, set()
        for connection in doubted:
            if refuses and connection.silent:
                connection.fail_silent()

    def give(self, connection: Connection) -> None:
        """Takes back a connection whose answer was complete."""
        now = self.clock()
        connection.idle_since = now
        if self.closed:
            connection.close()
        elif not connection.carried_stream or self.after_stream == "keeps":
            self._keep(connection)
        elif self.after_stream == "closes" and now - self.learnt_at < RELEARN_SECONDS:
            connection.close()
        elif len(self.probation) < MAX_IDLE:
            self.probation.append(connection)
        else:
            connection.close()

    def lost(self, connection: Connection) -> None:
        """An idle connection was closed by the server."""
        if connection in self.probation:
            self.probation.remove(connection)
            self.learn_that_it_closes()
        elif connection in self.idle:
            self.idle.remove(connection)

    def learn_that_it_closes(self) -> None:
        """A connection did not outlive an event stream."""
        self.after_stream = "closes"
        self.learnt_at = self.clock()

    def expire(self) -> None:
        """Closes what has been idle for too long. To be called about once a second."""
        now = self.clock()
        self._pass_probation(now)
        fresh = []
        for connection in self.idle:
            if now - connection.idle_since < IDLE_SECONDS:
                fresh.append(connection)
            else:
                connection.close()
        self.idle[:] = fresh

    def close(self) -> None:
        """Closes every idle connection; those in use are closed when they come back."""
        self.closed = True
        for connection in (*self.idle, *self.probation):
            connection.close()
        self.idle.clear()
        self.probation.clear()
        if self._look is not None:
            self._look.cancel()

    def _keep(self, connection: Connection) -> None:
        if len(self.idle) >= MAX_IDLE:
            connection.close()
        else:
            self.idle.append(connection)

    def _pass_probation(self, now: float) -> None:
        while self.probation and now - self.probation[0].idle_since >= PROBATION_SECONDS:
            self.after_stream = "keeps"
            self._keep(self.probation.popleft())


class _Waiter:
    """Who waits for a connection."""

    def __init__(self, future: asyncio.Future[Connection]) -> None:
        self._future = future

    def connected(self, connection: Connection, unsent: Pieces) -> None:  # noqa: ARG002
        if self._future.done():
            connection.close()
        else:
            self._future.set_result(connection)

    def unconnected(self, error: UpstreamFailed) -> None:
        if not self._future.done():
            self._future.set_exception(error)


@cache
def _tls(verify: bool) -> ssl.SSLContext:
    # Reading the system's certificates takes 20 ms and a megabyte: once is enough for all endpoints.
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
