"""A connection being made: begun at once, and handed over from within `connection_made`.

A task that waits for `create_connection` begins a turn of the loop later and is woken two turns late, and a
client waits so much longer for its first token. Where the address is known the request goes out as soon as
the socket takes it, which on the same machine is at once: the server works on it while the event loop learns
of the connection.
"""

import asyncio
import os
import socket
from collections.abc import Coroutine
from errno import EINPROGRESS
from typing import TYPE_CHECKING, Any, Protocol

import uvloop

from octoroute._send import Sender
from octoroute.errors import UpstreamFailed, UpstreamTimeout
from octoroute.upstream.connection import Connection

if TYPE_CHECKING:
    from octoroute.upstream.pool import Pool

# What a client is told: a port that refuses may open again in a moment.
RETRY_AFTER_S = 1


Pieces = tuple[bytes | memoryview, ...]
# Family and socket address.
Address = tuple[int, tuple[Any, ...]]


class Caller(Protocol):
    """Who is told, once and never from within `begin`, what came of it."""

    def connected(self, connection: Connection, unsent: Pieces) -> None:
        """Nothing has been read from it: what is asked now is asked in time. `unsent` is what is left of the
        request.
        """

    def unconnected(self, error: UpstreamFailed) -> None:
        """UpstreamTimeout or UpstreamFailed; `detail` has the address, for the log only."""


class Dial:
    """`begin` it, and `cancel` it if the connection is no longer wanted."""

    def __init__(self, pool: "Pool", caller: Caller, request: Pieces) -> None:
        self._pool = pool
        self._caller: Caller | None = caller
        self._unsent = request
        # Until the transport has it, and its number from then on.
        self._socket: socket.socket | None = None
        self._fd = -1
        self._work: Coroutine[Any, Any, Any] | None = None
        self._waited: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, within_s: float) -> None:
        """Connects, for so many seconds at most."""
        pool = self._pool
        loop = asyncio.get_running_loop()
        if pool.address is not None and self._unsent:
            try:
                sock = self._open(pool.address)
                if self._send(sock):
                    self._adopt(loop)
                else:
                    self._timer = loop.call_later(max(within_s, 0.0), self._overdue)
                    loop.add_writer(sock, self._open_late)
            except OSError as error:
                self._drop_socket()
                loop.call_soon(self._fail, self._failure(error))
            return
        self._timer = loop.call_later(max(within_s, 0.0), self._overdue)
        self._work = loop.create_connection(
            self._connection, pool.host, pool.port, ssl=pool.tls, server_hostname=pool.server_name
        )
        self._step(None)

    def cancel(self) -> None:
        """Nobody is told anything any more."""
        if self._caller is not None:
            self._caller = None
            self._stop()

    def _open(self, address: Address) -> socket.socket:
        self._socket = sock = socket.socket(address[0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address[1])
        if code and code != EINPROGRESS:
            raise OSError(code, os.strerror(code))
        return sock

    def _send(self, sock: socket.socket) -> bool:
        """Whether the connection is there already: the request has begun to go out."""
        pieces = self._unsent
        try:
            sent = sock.sendmsg(pieces)
        except BlockingIOError:
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
        sock = self._socket
        assert sock is not None
        loop = asyncio.get_running_loop()
        loop.remove_writer(sock)
        self._stop_timer()
        try:
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self._send(sock)
            self._adopt(loop)
        except OSError as error:
            self._drop_socket()
            self._fail(self._failure(error))

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """Gives the socket to a transport."""
        sock = self._socket
        self._work = loop.create_connection(self._connection, sock=sock)
        self._step(None)
        if self._work is None:
            self._drop_socket()
            return
        self._socket = None
        if sock is not None and isinstance(loop, uvloop.Loop):
            # Its transports own the descriptor, and may close it before they have heard of this object;
            # asyncio's own the object.
            self._fd = sock.detach()

    def _drop_socket(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()

    def _connection(self) -> Connection:
        connection = Connection(self._pool)
        connection.dial = self
        return connection

    def made(self, connection: Connection) -> None:
        """The connection is there (Connection.connection_made)."""
        if self._fd >= 0:
            connection.sender = Sender(connection.transport, self._fd)
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
            # Closes what it has opened.
            work.close()
        elif self._socket is not None:
            asyncio.get_running_loop().remove_writer(self._socket)
            self._drop_socket()
