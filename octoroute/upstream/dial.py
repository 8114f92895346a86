"""A connection being made: begun at once, and handed over as soon as it is there.

A task that waits for `create_connection` begins a turn of the loop later and is woken two turns late, and a
client waits so much longer for its first token. Where the address is known the request goes out as soon as
the socket takes it, which on the same machine is at once: the server works on it while the rest is made.
"""

import asyncio
import os
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from octoroute._connect import begin_connection, check_connection, numeric_address, send_first
from octoroute._transport import SocketTransport
from octoroute.errors import UpstreamFailed, UpstreamTimeout
from octoroute.upstream.connection import Connection

if TYPE_CHECKING:
    from octoroute.upstream.pool import Pool

# What a client is told: a port that refuses may open again in a moment.
RETRY_AFTER_S = 1


Pieces = tuple[bytes | memoryview, ...]


class Caller(Protocol):
    """Who is told, once, what came of it."""

    def connected(self, connection: Connection, unsent: Pieces) -> None:
        """Maybe from within `begin`. Nothing has been read from it: what is asked now is asked in time.
        `unsent` is what is left of the request.
        """

    def unconnected(self, error: UpstreamFailed) -> None:
        """Never from within `begin`. UpstreamTimeout or UpstreamFailed; `detail` has the address, for the log
        only.
        """


class Dial:
    """`begin` it, and `cancel` it if the connection is no longer wanted."""

    def __init__(self, pool: "Pool", caller: Caller, request: Pieces) -> None:
        self._pool = pool
        self._caller: Caller | None = caller
        self._unsent = request
        # The socket, until a transport has it.
        self._fd = -1
        self._work: Coroutine[Any, Any, Any] | None = None
        self._waited: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, within_s: float) -> None:
        """Connects, for so many seconds at most."""
        pool = self._pool
        loop = asyncio.get_running_loop()
        if pool.address is not None:
            try:
                self._fd = begin_connection(pool.address)
                if self._unsent and self._send():
                    self._adopt()
                else:
                    self._timer = loop.call_later(max(within_s, 0.0), self._overdue)
                    loop.add_writer(self._fd, self._open_late)
            except OSError as error:
                self._drop_socket()
                loop.call_soon(self._fail, self._failure(error))
            return
        self._timer = loop.call_later(max(within_s, 0.0), self._overdue)
        if pool.tls is None:
            self._work = self._look_up(loop)
        else:
            self._work = loop.create_connection(
                self._connection, pool.host, pool.port, ssl=pool.tls, server_hostname=pool.server_name
            )
        self._step(None)

    @property
    def pending(self) -> bool:
        """Whether somebody will be told."""
        return self._caller is not None

    def cancel(self) -> None:
        """Nobody is told anything any more."""
        if self._caller is not None:
            self._caller = None
            self._stop()

    def _send(self) -> bool:
        """Whether the connection is there already: the request has begun to go out."""
        pieces = self._unsent
        sent = send_first(self._fd, pieces)
        if sent < 0:
            return False
        for at, piece in enumerate(pieces):
            if sent < len(piece):
                self._unsent = (memoryview(piece)[sent:], *pieces[at + 1 :])
                return True
            sent -= len(piece)
        self._unsent = ()
        return True

    def _open_late(self) -> None:
        """The socket is connected, or never will be."""
        asyncio.get_running_loop().remove_writer(self._fd)
        self._stop_timer()
        try:
            self._begin_late()
        except OSError as error:
            self._drop_socket()
            self._fail(self._failure(error))

    def _begin_late(self) -> None:
        check_connection(self._fd)
        if self._unsent:
            self._send()
        self._adopt()

    async def _look_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connects to the first address of the host that takes it."""
        pool = self._pool
        problem: OSError | None = None
        for *_, where in await loop.getaddrinfo(pool.host, pool.port, type=socket.SOCK_STREAM):
            address = numeric_address(_with_scope(where), pool.port)
            if address is None:
                continue
            try:
                self._fd = begin_connection(address)
                await self._writable(loop)
                self._begin_late()
            except OSError as error:
                problem = error
                self._drop_socket()
            else:
                return
        raise problem or OSError(f"{pool.host} has no address")

    async def _writable(self, loop: asyncio.AbstractEventLoop) -> None:
        writable: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._fd, writable.set_result, None)
        try:
            await writable
        finally:
            loop.remove_writer(self._fd)

    def _adopt(self) -> None:
        """Gives the socket to a transport. Raises OSError."""
        fd, self._fd = self._fd, -1
        SocketTransport(self._pool.poller, fd).start(self._connection())

    def _drop_socket(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _connection(self) -> Connection:
        connection = Connection(self._pool)
        connection.dial = self
        return connection

    def made(self, connection: Connection) -> None:
        """The connection is there (Connection.connection_made)."""
        caller, self._caller = self._caller, None
        self._stop_timer()
        if caller is None:
            connection.close()
        else:
            caller.connected(connection, self._unsent)

    def _step(self, waited: asyncio.Future[Any] | None) -> None:
        # What a task does, but that the first step is taken at once.
        work = self._work
        if work is None:
            return
        self._waited = None
        try:
            waits_for = work.send(None)
        except StopIteration:
            self._work = None
        except Exception as error:
            # OSError, SSLError; UnicodeError for a name that can be none.
            self._work = None
            failure = self._failure(error)
            if waited is None:
                asyncio.get_running_loop().call_soon(self._fail, failure)
            else:
                self._fail(failure)
        else:
            # The mark by which a task knows that it is to wait.
            waits_for._asyncio_future_blocking = False
            self._waited = waits_for
            waits_for.add_done_callback(self._step)

    def _failure(self, error: Exception) -> UpstreamFailed:
        detail = f"connect {self._pool.label}: {error}"
        return UpstreamFailed("the server could not be reached", retry_after_s=RETRY_AFTER_S, detail=detail)

    def _overdue(self) -> None:
        self._timer = None
        self._stop()
        self._fail(
            UpstreamTimeout(
                "the server could not be reached in time",
                retry_after_s=RETRY_AFTER_S,
                detail=f"connect {self._pool.label}: timeout",
            )
        )

    def _fail(self, error: UpstreamFailed) -> None:
        self._stop_timer()
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.unconnected(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop(self) -> None:
        self._stop_timer()
        work, self._work = self._work, None
        waited, self._waited = self._waited, None
        if waited is not None:
            waited.remove_done_callback(self._step)
            waited.cancel()
        if work is not None:
            work.close()
        if self._fd >= 0:
            asyncio.get_running_loop().remove_writer(self._fd)
            self._drop_socket()


def _with_scope(where: tuple[Any, ...]) -> str:
    """The host of a socket address, as it is written."""
    host = str(where[0])
    return f"{host}%{where[3]}" if len(where) == 4 and where[3] and "%" not in host else host
