"""One client connection of a simulated server: reads requests, plays their answers, sees clients leave.

A raw asyncio protocol, because it must be able to misbehave byte by byte. What to answer is the server's
business.
"""

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Protocol, cast

from octoroute.demo.wire import (
    CLOSE,
    HALF_CLOSE,
    RESET,
    STALL,
    BadRequestError,
    Request,
    RequestReader,
    Step,
    head,
)


class Owner(Protocol):
    """What a connection needs of its server."""

    idle_seconds: float | None

    def opened(self, connection: "Connection") -> int: ...

    def closed(self, connection: "Connection") -> None: ...

    def arrived(self, request: Request) -> None: ...

    def left(self, request: Request) -> None: ...

    def finished(self, request: Request) -> None: ...

    def reply(self, request: Request) -> AsyncGenerator[Step]: ...

    def notices_client_gone_in(self, request: Request, now: float) -> float: ...


class Connection(asyncio.Protocol):
    """Serves one request after another; `request` is the one that is being answered."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._reader = RequestReader()
        self._drained = asyncio.Event()
        self._drained.set()
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._looks: asyncio.TimerHandle | None = None
        self._nth = 0
        self.request: Request | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.number = self._owner.opened(self)
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        if self.request is None:
            self._read_request()

    def eof_received(self) -> bool:
        """A half-closed connection counts as gone, as real servers have it."""
        self._client_left()
        return self.request is not None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._client_left()
        if self._idle is not None:
            self._idle.cancel()
        self._drained.set()
        self._owner.closed(self)

    def pause_writing(self) -> None:
        self._drained.clear()

    def resume_writing(self) -> None:
        self._drained.set()

    def abort(self) -> None:
        """RST: what was written and not yet sent is lost, as when a server's process is killed."""
        sock = self._transport.get_extra_info("socket")
        if sock is not None and not self._transport.is_closing():
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    async def stop(self) -> None:
        """Ends the answer and the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._transport.abort()

    def _wait_for_request(self) -> None:
        if self._owner.idle_seconds is not None:
            self._idle = self._loop.call_later(self._owner.idle_seconds, self._transport.close)

    def _read_request(self) -> None:
        try:
            request = self._reader.next()
        except BadRequestError:
            self._transport.write(head(400, [("Connection", "close"), ("Content-Length", "0")]))
            self._transport.close()
            return
        if request is None:
            if self._reader.waits_for_continue:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        if self._idle is not None:
            self._idle.cancel()
        self._nth += 1
        request.connection, request.nth, request.arrived_at = self.number, self._nth, self._loop.time()
        self.request = request
        self._owner.arrived(request)
        self._task = self._loop.create_task(self._answer(request))

    def _client_left(self) -> None:
        request = self.request
        if request is not None and request.left_at is None:
            request.left_at = self._loop.time()
            self._owner.left(request)
            self._look_for_client()

    def _look_for_client(self) -> None:
        """Real servers look now and then whether the client is there; until then they work on."""
        if self.request is None or self._task is None:
            return
        wait = self._owner.notices_client_gone_in(self.request, self._loop.time())
        if wait <= 0:
            self._task.cancel()
        else:
            self._looks = self._loop.call_later(wait, self._look_for_client)

    async def _answer(self, request: Request) -> None:
        steps = self._owner.reply(request)
        keeps = False
        try:
            keeps = await self._play(steps)
        finally:
            await steps.aclose()
            if self._looks is not None:
                self._looks.cancel()
            self.request = self._task = None
            self._owner.finished(request)
            if not keeps or request.left_at is not None:
                self._transport.close()
        if keeps and not self._transport.is_closing():
            self._wait_for_request()
            self._read_request()

    async def _play(self, steps: AsyncIterator[Step]) -> bool:
        """Whether the connection may be used again."""
        async for step in steps:
            if isinstance(step, bytes):
                if not self._transport.is_closing():
                    self._transport.write(step)
                # Back to the loop, so that no two writes are joined (uvloop would).
                await asyncio.sleep(0)
                await self._drained.wait()
            elif isinstance(step, int | float):
                await asyncio.sleep(step)
            elif step is CLOSE:
                return False
            elif step is RESET:
                self.abort()
                return False
            elif step is HALF_CLOSE:
                with suppress(OSError):  # the client has gone, which is not known here yet
                    self._transport.write_eof()
            elif step is STALL:
                await self._loop.create_future()
            else:
                await cast(asyncio.Event, step).wait()
        return True
