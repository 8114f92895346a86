"""A connection being made: begun at once, and handed over from within `connection_made`.

A task that waits for `create_connection` begins a turn of the loop later and is woken two turns late, and a
client waits so much longer for its first token.
"""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from octoroute.errors import UpstreamFailed, UpstreamTimeout
from octoroute.upstream.connection import Connection

if TYPE_CHECKING:
    from octoroute.upstream.pool import Pool

# What a client is told: a port that refuses may open again in a moment.
RETRY_AFTER_S = 1


class Caller(Protocol):
    """Who is told, once and never from within `begin`, what came of it."""

    def connected(self, connection: Connection) -> None:
        """Nothing has been read from it: what is asked now is asked in time."""

    def unconnected(self, error: UpstreamFailed) -> None:
        """UpstreamTimeout or UpstreamFailed; `detail` has the address, for the log only."""


class Dial:
    """`begin` it, and `cancel` it if the connection is no longer wanted."""

    def __init__(self, pool: "Pool", caller: Caller) -> None:
        self._pool = pool
        self._caller: Caller | None = caller
        self._work: Coroutine[Any, Any, Any] | None = None
        self._waited: asyncio.Future[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, within_s: float) -> None:
        """Connects, for so many seconds at most."""
        pool = self._pool
        loop = asyncio.get_running_loop()
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
            caller.connected(connection)

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
            detail = f"connect {self._pool.label}: {error}"
            failure = UpstreamFailed(
                "the server could not be reached", retry_after_s=RETRY_AFTER_S, detail=detail
            )
            if waited is None:
                asyncio.get_running_loop().call_soon(self._fail, failure)
            else:
                self._fail(failure)
        else:
            # The mark by which a task knows that it is to wait.
            waits_for._asyncio_future_blocking = False
            self._waited = waits_for
            waits_for.add_done_callback(self._step)

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
