"""HTTP/1.1 as bytes: requests read from a socket, answers as steps to play on one.

An ordinary answer, a fault and a test's script are all the same thing: a sequence of steps. A step of
bytes is one write, and so one TCP segment where it fits. Nothing here does I/O or knows what a model is.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any, Protocol

import orjson

MAX_HEAD_BYTES = 1 << 20
LAST_CHUNK = b"0\r\n\r\n"


class Signal(Enum):
    """Steps that are not bytes: end the connection in order (FIN), end our side of it alone, cut it (RST),
    or say nothing any more.
    """

    CLOSE = "close"
    HALF_CLOSE = "half-close"
    RESET = "reset"
    STALL = "stall"


CLOSE, HALF_CLOSE, RESET, STALL = Signal.CLOSE, Signal.HALF_CLOSE, Signal.RESET, Signal.STALL


class Waitable(Protocol):
    """What a step may wait for; an asyncio.Event is one."""

    async def wait(self) -> Any: ...


Step = bytes | float | Waitable | Signal  # a float is a pause in seconds


class BadRequestError(Exception):
    """What arrived is not a request that these servers read."""


@dataclass(slots=True, eq=False)
class Request:
    """A request as it arrived. `nth` counts the requests of its connection from 1; times are the loop's.

    `left_at` is when the client closed or half-closed its side before the answer was complete, else None.
    """

    method: str
    target: str
    version: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    connection: int = 0
    nth: int = 1
    arrived_at: float = 0.0
    left_at: float | None = None
    fault: str | None = None

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        """The decoded body. Raises ValueError where it is not JSON."""
        return orjson.loads(self.body)

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever its case."""
        name = name.lower()
        return next((value for key, value in self.headers if key.lower() == name), None)


class RequestReader:
    """Bytes in, requests out. Reads Content-Length and chunked bodies; keeps what follows."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Request | None = None
        self._scanned = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def waits_for_continue(self) -> bool:
        """Whether the client has sent a head that asks for `100 Continue`, and no body yet."""
        if self._head is None or self._buffer:
            return False
        return (self._head.header("expect") or "").lower() == "100-continue"

    def next(self) -> Request | None:
        """The next complete request, if there is one. Raises BadRequestError."""
        if self._head is None:
            self._head = self._read_head()
        request = self._head
        if request is None:
            return None
        if "chunked" in (request.header("transfer-encoding") or "").lower():
            body = self._read_chunks()
        else:
            body = self._read_length(request.header("content-length") or "0")
        if body is None:
            return None
        request.body = body
        self._head = None
        return request

    def _read_head(self) -> Request | None:
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            self._scanned = len(self._buffer)
            if self._scanned > MAX_HEAD_BYTES:
                raise BadRequestError("the head is too long")
            return None
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        self._scanned = 0
        first = lines[0].split(" ")
        if len(first) != 3 or not first[2].startswith("HTTP/1."):
            raise BadRequestError("the request line is malformed")
        headers = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequestError("a header line has no colon")
            headers.append((name, value.strip()))
        return Request(first[0], first[1], first[2], tuple(headers))

    def _read_length(self, text: str) -> bytes | None:
        if not text.isdigit():
            raise BadRequestError("the length is not a number")
        length = int(text)
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _read_chunks(self) -> bytes | None:
        body, at = bytearray(), 0
        while True:
            end = self._buffer.find(b"\r\n", at)
            if end < 0:
                return None
            try:
                size = int(bytes(self._buffer[at:end]).split(b";")[0], 16)
            except ValueError:
                raise BadRequestError("a chunk's size is malformed") from None
            if len(self._buffer) < end + 2 + size + 2:
                return None
            body += self._buffer[end + 2 : end + 2 + size]
            at = end + 2 + size + 2
            if size == 0:
                del self._buffer[:at]
                return bytes(body)


@dataclass(slots=True)
class Answer:
    """An answer before it is framed. A body of bytes gets a Content-Length; an iterator is sent in chunks.

    `keeps` says whether the connection may be used again, which the head need not tell the truth about.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterator[bytes]
    keeps: bool = True
    without_body: bool = field(default=False)

    @property
    def framing(self) -> tuple[str, str]:
        if isinstance(self.body, bytes):
            return ("Content-Length", str(len(self.body)))
        return ("Transfer-Encoding", "chunked")

    def head(self) -> bytes:
        return head(self.status, [*self.headers, self.framing])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body without framing: the events of a stream, or the whole of a plain answer."""
        if isinstance(self.body, bytes):
            yield self.body
            return
        async for piece in self.body:
            yield piece

    def frame(self, piece: bytes) -> bytes:
        return piece if isinstance(self.body, bytes) else chunk(piece)

    async def steps(self) -> AsyncIterator[Step]:
        """The answer as a well-behaved server sends it."""
        yield self.head()
        if not self.without_body:
            async for piece in self.pieces():
                yield self.frame(piece)
            if not isinstance(self.body, bytes):
                yield LAST_CHUNK
        if not self.keeps:
            yield CLOSE


def head(status: int, headers: Iterable[tuple[str, str]], version: str = "HTTP/1.1") -> bytes:
    lines = [f"{version} {status} {reason(status)}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: Any) -> bytes:
    """One server-sent event with a JSON value."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"
