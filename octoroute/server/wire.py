"""A client's connection. Ordinary requests are read here; all others by aiohttp, which gets a connection
object of its own when the first of them comes (handler.py).

It tells an answer's source when the client leaves, or does not read; it times and bounds the heads of
requests; and it answers what can't be read.
"""

import asyncio
import select
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, Protocol

from octoroute._request import RequestHead, read_head
from octoroute._transport import Receiver, SocketTransport
from octoroute.admission.limits import Tenant
from octoroute.errors import GatewayError, InvalidRequest, WriteBody, openai_body, render
from octoroute.server.reading import new_id
from octoroute.upstream.connection import Connection

# Bounds of a request's head (431 beyond), and how long a refused client may go on sending.
MAX_HEAD_BYTES: Final = 65_536
MAX_LINE_BYTES: Final = 16_384
LINGER_SECONDS: Final = 2.0
REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Road(Protocol):
    """An ordinary request under way (express.py)."""

    since: float

    @property
    def has_next(self) -> bool: ...

    def feed(self, data: bytes, at: int = 0) -> None: ...

    def refuse_late(self, limit_s: float) -> None: ...

    def client_gone(self) -> None: ...


class Reader(Protocol):
    """aiohttp's part of a connection (handler.py)."""

    @property
    def requests(self) -> int:
        """How many have begun to arrive."""

    @property
    def waits(self) -> bool:
        """Whether the next request may be read by somebody else."""

    @property
    def active(self) -> bool:
        """Whether a request waits or is answered."""

    @property
    def has_next(self) -> bool:
        """Whether a request waits."""

    def data_received(self, data: bytes) -> None: ...

    def connection_lost(self, exc: BaseException | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def force_close(self) -> None: ...


class Host(Protocol):
    """Whose connection it is (app.py)."""

    def enter(self, wire: "ClientWire", head: RequestHead, read: int) -> Road | None:
        """An ordinary request of which `read` bytes of body have come, or None where it had better go by
        aiohttp's road.
        """

    def opened(self, wire: "ClientWire") -> None: ...

    def closed(self, wire: "ClientWire") -> None: ...

    def reader(self, wire: "ClientWire") -> Reader: ...


class ClientWire(Receiver):
    """The event loop's protocol for a client's connection. `feed` is the connection its answer comes from."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.transport: asyncio.Transport | None = None
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
        self.writing_paused = False
        # Whose key the request under way carries, if it goes by aiohttp's road.
        self.tenant: Tenant | None = None
        # When the sweep last found it idle for the first time, and how many requests had come then.
        self.idle_since = 0.0
        self.idle_requests = -1
        # What the client had not read then, as far as it waits here.
        self._unsent = 0
        self._ordinary = 0
        self._reader: Reader | None = None
        self._gone: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.host.opened(self)

    def data_received(self, data: bytes) -> None:
        express = self.express
        if express is not None:
            express.feed(data)
            return
        if self._gone is not None:
            return
        reader = self._reader
        if not (self.busy or self.head_since) and (reader is None or reader.waits):
            head = read_head(data)
            if head is not None:
                at = head.body_at
                self.express = express = self.host.enter(self, head, len(data) - at)
                if express is not None:
                    self.busy = True
                    self._ordinary += 1
                    express.feed(data, at)
                    return
        self._read_by_aiohttp(data)

    def _read_by_aiohttp(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            self._reader = reader = self.host.reader(self)
        parsed = reader.requests
        reader.data_received(data)
        if reader.requests != parsed:
            self.busy = True
            # Whether the head is too large can't be told yet: a part of what came may be the body.
            self.large = len(data) + (self.head_bytes if self.head_since else 0) > MAX_HEAD_BYTES
            self.head_since = 0.0
        if self.busy:
            return
        self.head_bytes += len(data)
        if not self.head_since:
            self.head_since = asyncio.get_running_loop().time()
            self.head_bytes = len(data)
        if self.head_bytes > MAX_HEAD_BYTES:
            self.refuse_head(header_too_large())

    @property
    def write(self) -> Callable[[bytes], None]:
        """What an answer that flows is written with."""
        transport = self.transport
        assert transport is not None
        return transport if isinstance(transport, SocketTransport) else transport.write

    @property
    def requests(self) -> int:
        """How many have begun to arrive."""
        return self._ordinary + (self._reader.requests if self._reader is not None else 0)

    @property
    def active(self) -> bool:
        """Whether a request arrives, is served or is being answered."""
        return bool(self.busy or self.head_since or (self._reader is not None and self._reader.active))

    @property
    def unread(self) -> bool:
        """Whether bytes, or the client's end, wait to be read: closing now would reset the connection."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        whose = transport if isinstance(transport, SocketTransport) else transport.get_extra_info("socket")
        poll = select.poll()
        poll.register(whose.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    @property
    def has_next(self) -> bool:
        """Whether a pipelined request waits for this one to end."""
        reader, express = self._reader, self.express
        return (reader is not None and reader.has_next) or (express is not None and express.has_next)

    def leave_express(self, ahead: bytes, *, keep: bool) -> None:
        """An ordinary request is over. `ahead`: what came behind it."""
        self.express = None
        self.busy = False
        transport = self.transport
        if transport is None:
            return
        if not keep:
            transport.close()
        elif ahead:
            # Nothing may be read before what came ahead.
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on, ahead)

    def _go_on(self, ahead: bytes) -> None:
        # The client may have left since.
        if self.transport is not None:
            self.transport.resume_reading()
            self.data_received(ahead)

    def close_if_idle(self, now: float, allowed_s: float) -> None:
        """Closes the connection if it has been idle for `allowed_s`, and cuts it if its client has read
        nothing of what is left for so long. To be called about once a second.
        """
        transport = self.transport
        if transport is None:
            return
        before, self._unsent = self._unsent, transport.get_write_buffer_size()
        if self.active or self.requests != self.idle_requests or self._unsent < before:
            self.idle_requests = self.requests
            self.idle_since = now
        elif now - self.idle_since >= allowed_s and (self._unsent or not self.unread):
            if self._unsent:
                transport.abort()
            else:
                self.force_close()

    def refuse(self, error: GatewayError, request_id: str, write_body: WriteBody = openai_body) -> None:
        """Answers a request that was not read to its end; the connection has to `linger` afterwards."""
        self.head_since = 0.0
        if self.transport is not None:
            self.transport.write(self.error_answer(error, request_id, write_body, keep=False))

    @staticmethod
    def error_answer(error: GatewayError, request_id: str, write_body: WriteBody, *, keep: bool) -> bytes:
        """A whole answer, head and body. `keep`: the connection stays."""
        status, headers, body = render(error, request_id, write_body)
        lines = b"".join([b"%b: %b\r\n" % (name.encode(), value.encode()) for name, value in headers.items()])
        return b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\n%b\r\n%b" % (
            status,
            REASONS[status],
            lines,
            len(body),
            b"" if keep else b"Connection: close\r\n",
            body,
        )

    def refuse_head(self, error: GatewayError) -> None:
        """The same for a request whose head will never be complete, so that no handler sees to the rest."""
        self.refuse(error, new_id())
        asyncio.get_running_loop().create_task(self.linger())

    async def linger(self) -> None:
        """Drops what the client still sends, until it closes or LINGER_SECONDS are over; then closes.

        Closing while bytes are unread resets the connection, and the answer could be lost before the client
        reads it.
        """
        self._gone = asyncio.get_running_loop().create_future()
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

    def force_close(self) -> None:
        """Ends the connection, whatever is under way."""
        if self._reader is not None:
            self._reader.force_close()
        elif self.transport is not None:
            self.transport.close()

    def eof_received(self) -> None:
        # A client that closed its half is taken for gone: nobody waits half-closed for an answer, but a
        # client that was killed looks like this.
        if self.busy and self.transport is not None:
            self.transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
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
        self.transport = None
        reader = self._reader
        if reader is not None:
            # It refers to this object.
            self._reader = None
            reader.connection_lost(exc)
        self.host.closed(self)

    def pause_writing(self) -> None:
        self.writing_paused = True
        if self._reader is not None:
            self._reader.pause_writing()
        feed = self.feed
        if feed is not None and not feed.closed:
            feed.writing_paused = True
            feed.transport.pause_reading()

    def resume_writing(self) -> None:
        self.writing_paused = False
        if self._reader is not None:
            self._reader.resume_writing()
        feed = self.feed
        if feed is not None and not feed.closed:
            feed.writing_paused = False
            feed.transport.resume_reading()


def header_too_large() -> InvalidRequest:
    return InvalidRequest(
        f"the request's head is larger than {MAX_HEAD_BYTES} bytes, or a header than {MAX_LINE_BYTES}",
        status=431,
        code="header_too_large",
    )
