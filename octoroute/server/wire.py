"""A client's connection: aiohttp's, with our hooks. The one seam to how aiohttp works inside.

It tells an answer's source when the client leaves, or does not read; it times and bounds the heads of
requests; and it answers what can't be read. What it relies on of aiohttp is pinned by
tests/end_to_end/test_downstream.py: `RequestHandler.transport`, `_messages`, `_request_count`,
`connection_lost`, `eof_received`, `pause_writing`, `resume_writing`, `handle_error`, `log_exception`,
`_waiter` (aiohttp waits for a request), `_process_keepalive`, `_next_keepalive_close_time`, and that a
returned response is asked for `prepare`, `write_eof` and `keep_alive` only.
"""

import asyncio
import select
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from octoroute._request import RequestHead, read_head
from octoroute._send import Sender
from octoroute.admission.limits import Tenant
from octoroute.errors import GatewayError, Internal, InvalidRequest, WriteBody, openai_body, render
from octoroute.server.reading import new_id
from octoroute.upstream.connection import Connection

# Bounds of a request's head (431 beyond), and how long a refused client may go on sending.
MAX_HEAD_BYTES: Final = 65_536
MAX_LINE_BYTES: Final = 16_384
LINGER_SECONDS: Final = 2.0
REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Written(web.StreamResponse):
    """What a handler gives back to aiohttp when the answer is already on its way."""

    def __init__(self, *, keep_alive: bool) -> None:
        super().__init__()
        self._keep_alive = keep_alive
        self._eof_sent = True

    async def prepare(self, request: web.BaseRequest) -> None:  # noqa: ARG002
        return None

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002
        return None


KEEP = Written(keep_alive=True)
CLOSE = Written(keep_alive=False)


class Road(Protocol):
    """An ordinary request under way (server/express.py)."""

    since: float

    @property
    def has_next(self) -> bool: ...

    def feed(self, data: bytes, at: int = 0) -> None: ...

    def refuse_late(self, limit_s: float) -> None: ...

    def client_gone(self) -> None: ...


class Entry(Protocol):
    """Makes an ordinary request a Road, or None where the request had better go by aiohttp's."""

    def __call__(self, wire: "ClientWire", head: RequestHead, read: int) -> Road | None: ...


class ClientWire(web.RequestHandler):
    """aiohttp's connection of a client. `feed` is the connection its answer comes from."""

    __slots__ = (
        "_begun",
        "_gone",
        "_sender",
        "busy",
        "enter",
        "express",
        "feed",
        "head_bytes",
        "head_since",
        "large",
        "last",
        "tenant",
    )

    def __init__(self, *args: Any, enter: Entry, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.enter = enter
        self._begun = False
        self.express: Road | None = None
        self.feed: Connection | None = None
        # From a request's head to the end of its handler.
        self.busy = False
        # Since when a request's head is incomplete, on the loop's clock (0: it is not), and its bytes so far.
        self.head_since = 0.0
        self.head_bytes = 0
        self.large = False
        # No request follows the one under way: the gateway ends.
        self.last = False
        # Whose key the request under way carries, if it goes by aiohttp's road.
        self.tenant: Tenant | None = None
        self._gone: asyncio.Future[None] | None = None
        self._sender: Sender | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # aiohttp's part (a task, a timer, options of the socket) is a third of what a client waits for its
        # first token, and an ordinary request needs none of it.
        assert self._manager is not None
        self.transport = made = cast("asyncio.Transport", transport)
        self._manager.connection_made(self, made)

    def begin(self) -> None:
        """Begins aiohttp's part of the connection, if that has not begun. It reads what is not ordinary, and
        closes the connection when that is idle for too long.
        """
        if not self._begun and self.transport is not None:
            self._begun = True
            super().connection_made(self.transport)

    def data_received(self, data: bytes) -> None:
        express = self.express
        if express is not None:
            express.feed(data)
            return
        if self._gone is not None:
            return
        # aiohttp waits for a request, or has not begun to.
        waits = self._waiter is not None or not self._begun or not self._request_count
        if waits and not (self._messages or self.busy or self.head_since or self._close):
            head = read_head(data)
            if head is not None:
                at = head.body_at
                self.express = express = self.enter(self, head, len(data) - at)
                if express is not None:
                    self.busy = True
                    self._request_count += 1
                    express.feed(data, at)
                    return
        self.begin()
        parsed = self._request_count
        super().data_received(data)
        if self._request_count != parsed:
            self.busy = True
            # Whether the head is too large can't be told yet: a part of what came may be the body.
            self.large = len(data) + (self.head_bytes if self.head_since else 0) > MAX_HEAD_BYTES
            self.head_since = 0.0
        if self.busy:
            return
        self.head_bytes += len(data)
        if not self.head_since:
            self.head_since = self._loop.time()
            self.head_bytes = len(data)
        if self.head_bytes > MAX_HEAD_BYTES:
            self.refuse_head(header_too_large())

    def sender(self) -> Sender:
        """What an answer that flows is written with; before it, anything else may write to the transport."""
        sender = self._sender
        if sender is None:
            transport = self.transport
            assert transport is not None
            plain = transport.get_extra_info("sslcontext") is None
            fd = transport.get_extra_info("socket").fileno() if plain else -1
            self._sender = sender = Sender(transport, fd)
        sender.waiting = True
        return sender

    @property
    def requests(self) -> int:
        """How many have begun to arrive."""
        return int(self._request_count)

    @property
    def active(self) -> bool:
        """Whether a request arrives, is served or is being answered."""
        return bool(self.busy or self.head_since or self._request_in_progress or self._messages)

    @property
    def unread(self) -> bool:
        """Whether bytes, or the client's end, wait to be read: closing now would reset the connection."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        poll = select.poll()
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def has_next(self) -> bool:
        """Whether a pipelined request waits for this one to end."""
        return bool(self._messages) or (self.express is not None and self.express.has_next)

    def leave_express(self, ahead: bytes, *, keep: bool) -> None:
        """An ordinary request is over. `ahead`: what came behind it."""
        self.express = None
        self.busy = False
        transport = self.transport
        if transport is None:
            return
        if not keep:
            transport.close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if ahead:
            # Nothing may be read before what came ahead.
            transport.pause_reading()
            self._loop.call_soon(self._go_on, ahead)

    def _go_on(self, ahead: bytes) -> None:
        # The client may have left since.
        if self.transport is not None:
            self.transport.resume_reading()
            self.data_received(ahead)

    def _process_keepalive(self) -> None:
        # To aiohttp, a connection that serves an ordinary request is idle.
        if self.busy:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def refuse(self, error: GatewayError, request_id: str, write_body: WriteBody = openai_body) -> "Refused":
        """Answers a request that was not read to its end; the connection ends behind the answer."""
        self.head_since = 0.0
        if self.transport is not None:
            self.transport.write(self.error_answer(error, request_id, write_body, keep=False))
        return Refused(self)

    @staticmethod
    def error_answer(error: GatewayError, request_id: str, write_body: WriteBody, *, keep: bool) -> bytes:
        """A whole answer, head and body. `keep`: the connection stays."""
        status, headers, body = render(error, request_id, write_body)
        lines = b"".join(b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in headers.items())
        return b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\n%b\r\n%b" % (
            status,
            REASONS[status],
            lines,
            len(body),
            b"" if keep else b"Connection: close\r\n",
            body,
        )

    def refuse_head(self, error: GatewayError) -> None:
        """The same for a request whose head will never be complete, so that no handler can return it."""
        self._loop.create_task(self.refuse(error, new_id()).write_eof())

    async def linger(self) -> None:
        """Drops what the client still sends, until it closes or LINGER_SECONDS are over; then closes.

        Closing while bytes are unread resets the connection, and the answer could be lost before the client
        reads it.
        """
        self._gone = self._loop.create_future()
        transport = self.transport
        if transport is None:
            return
        if transport.can_write_eof():
            transport.write_eof()
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await self._gone
        except TimeoutError:
            self.force_close()

    def eof_received(self) -> None:
        # A client that closed its half is taken for gone: nobody waits half-closed for an answer, but a
        # client that was killed looks like this.
        if self.busy and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._sender is not None:
            self._sender.forget()
            self._sender = None
        feed = self.feed
        if feed is not None:
            self.feed = None
            feed.client_gone()
        express = self.express
        if express is not None:
            express.client_gone()
            self.express = None
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        feed = self.feed
        if feed is not None and not feed.closed:
            feed.writing_paused = True
            feed.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        feed = self.feed
        if feed is not None and not feed.closed:
            feed.writing_paused = False
            feed.transport.resume_reading()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """aiohttp could not read a request: an error object instead of its text page, and no traceback."""
        return self.refuse(unreadable(status, exc), new_id())

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """aiohttp drops what is left of a request's body; that it can't be read is the client's doing."""
        if not isinstance(kwargs.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kwargs)


class Refused(Written):
    """What a handler gives back when `ClientWire.refuse` has written the answer."""

    def __init__(self, wire: ClientWire) -> None:
        super().__init__(keep_alive=False)
        self._wire = wire

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002
        await self._wire.linger()


def header_too_large() -> InvalidRequest:
    return InvalidRequest(
        f"the request's head is larger than {MAX_HEAD_BYTES} bytes, or a header than {MAX_LINE_BYTES}",
        status=431,
        code="header_too_large",
    )


def unreadable(status: int, exc: BaseException | None) -> GatewayError:
    """What aiohttp's parser refused. Never repeats the client's bytes."""
    if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        return header_too_large()
    if status < 500:
        return InvalidRequest("the request is not valid HTTP/1.x", status=status, code="bad_request")
    return Internal("the gateway failed")
