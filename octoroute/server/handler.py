"""aiohttp's part of a client's connection, for requests that are not ordinary. The one seam to how aiohttp
works inside.

What it relies on of aiohttp is pinned by tests/end_to_end/test_downstream.py: `_messages`, `_request_count`,
`_request_in_progress`, `_close`, `_waiter` (aiohttp waits for a request), `_process_keepalive`,
`data_received`, `connection_lost`, `pause_writing`, `resume_writing`, `force_close`, `handle_error`,
`log_exception`, and that a returned response is asked for `prepare`, `write_eof` and `keep_alive` only.
"""

from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from octoroute.errors import GatewayError, Internal, InvalidRequest, WriteBody
from octoroute.server.reading import new_id
from octoroute.server.wire import MAX_LINE_BYTES, ClientWire, header_too_large


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


KEEP: Final = Written(keep_alive=True)
CLOSE: Final = Written(keep_alive=False)


class Refused(Written):
    """What a handler gives back when `ClientWire.refuse` has written the answer."""

    def __init__(self, wire: ClientWire) -> None:
        super().__init__(keep_alive=False)
        self._wire = wire

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002
        await self._wire.linger()


class ClientHandler(web.RequestHandler):
    """Reads what comes of `wire`, and has it answered by the server's handler."""

    __slots__ = ("wire",)

    def __init__(self, wire: ClientWire, server: web.Server, keepalive_s: float) -> None:
        super().__init__(
            server,
            loop=server._loop,
            access_log=None,  # type: ignore[arg-type]  # as aiohttp says: no log
            keepalive_timeout=keepalive_s,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=256,
        )
        self.wire = wire
        assert wire.transport is not None
        self.connection_made(wire.transport)
        if wire.writing_paused:
            self.pause_writing()

    @property
    def requests(self) -> int:
        """How many have begun to arrive."""
        return self._request_count

    @property
    def waits(self) -> bool:
        """Whether somebody else may read the next request: aiohttp waits for one, or has not begun to."""
        return (self._waiter is not None or not self._request_count) and not (self._messages or self._close)

    @property
    def active(self) -> bool:
        """Whether a request waits or is answered."""
        return bool(self._request_in_progress or self._messages)

    @property
    def has_next(self) -> bool:
        """Whether a request waits."""
        return bool(self._messages)

    def _process_keepalive(self) -> None:
        # The wire closes itself when it is idle; 0 is for aiohttp: every answer ends its connection.
        self._keepalive_handle = None
        if not self._keepalive_timeout:
            super()._process_keepalive()

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """aiohttp could not read a request: an error object instead of its text page, and no traceback."""
        return refuse(self.wire, unreadable(status, exc), new_id())

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """aiohttp drops what is left of a request's body; that it can't be read is the client's doing."""
        if not isinstance(kwargs.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kwargs)


def wire_of(request: web.BaseRequest) -> ClientWire:
    """The connection that a request came by."""
    handler = request.protocol
    assert isinstance(handler, ClientHandler)
    return handler.wire


def refuse(wire: ClientWire, error: GatewayError, request_id: str, *write_body: WriteBody) -> Refused:
    """Answers a request that was not read to its end."""
    wire.refuse(error, request_id, *write_body)
    return Refused(wire)


def unreadable(status: int, exc: BaseException | None) -> GatewayError:
    """What aiohttp's parser refused. Never repeats the client's bytes."""
    if isinstance(exc, LineTooLong) or "Too many headers" in str(exc):
        return header_too_large()
    if status < 500:
        return InvalidRequest("the request is not valid HTTP/1.x", status=status, code="bad_request")
    return Internal("the gateway failed")
