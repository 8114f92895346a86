"""An HTTP client for looking at gateways: one connection a request, nothing retried, nothing hidden.

Gives back what came, however it ended; what that is worth is judged in judging.py.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

import orjson

READ_SIZE = 1 << 16
MAX_HEAD_BYTES = 1 << 17
CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Target:
    """A gateway: where it listens, what a request to it must carry. Raises ValueError for what is no URL."""

    url: str
    model: str
    api_key: str = ""
    host: str = field(init=False)
    port: int = field(init=False)
    tls: bool = field(init=False)
    prefix: str = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{self.url!r} is no URL of a gateway; such a one is http://127.0.0.1:3000")
        tls = parts.scheme == "https"
        prefix = parts.path.rstrip("/").removesuffix("/v1")
        for name, value in (("host", parts.hostname), ("tls", tls), ("prefix", prefix)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "port", parts.port or (443 if tls else 80))

    def request(self, prompt: str, *, stream: bool, **more: object) -> bytes:
        """A chat completion as bytes to send."""
        messages = [{"role": "user", "content": prompt}]
        fields = {"model": self.model, "messages": messages, "stream": stream, **more}
        if not stream:
            del fields["stream"]
        body = orjson.dumps(fields)
        authorization = f"Authorization: Bearer {self.api_key}\r\n" if self.api_key else ""
        return (
            f"POST {self.prefix}{CHAT} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{authorization}"
            "Accept: application/json, text/event-stream\r\nConnection: close\r\n\r\n"
        ).encode() + body


class End(Enum):
    """How an answer ended."""

    WHOLE = "whole"  # as its framing says
    CUT = "cut"  # the connection ended first
    SILENCE = "silence"  # nothing more came while we had patience
    LEFT = "left"  # we left
    NO_ANSWER = "no answer"  # no head came before the connection ended


@dataclass(slots=True)
class Seen:
    """What came. `headers` have lower-case names."""

    end: End
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def header(self, name: str) -> str:
        return self.headers.get(name, "")


class _MalformedError(Exception):
    """The gateway's own bytes are no HTTP."""


async def exchange(
    target: Target,
    request: bytes,
    patience_s: float,
    leave: Callable[[int], bool] = lambda _: False,
) -> Seen:
    """Sends a request and reads its answer, for as long as `patience_s`.

    `leave` is asked with the number of body bytes after each read, whether to go without the rest. Raises
    OSError where there is nobody to connect to.
    """
    context = ssl.create_default_context() if target.tls else None
    async with asyncio.timeout(patience_s):
        reader, writer = await asyncio.open_connection(
            target.host, target.port, ssl=context, limit=MAX_HEAD_BYTES
        )
    seen = Seen(End.NO_ANSWER)
    try:
        writer.write(request)
        async with asyncio.timeout(patience_s):
            await _read(reader, seen, leave)
    except TimeoutError:
        seen.end = End.SILENCE
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, _MalformedError):
        seen.end = End.CUT if seen.status else End.NO_ANSWER
    finally:
        # At once: what is unread does not matter any more.
        writer.transport.abort()
    return seen


async def _read(reader: asyncio.StreamReader, seen: Seen, leave: Callable[[int], bool]) -> None:
    status = 100
    while status < 200:
        status, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
    seen.status, seen.headers = status, headers
    body = bytearray()
    try:
        if "chunked" in seen.header("transfer-encoding").lower():
            await _read_chunks(reader, body, leave)
        else:
            await _read_length(reader, seen.header("content-length"), body, leave)
        seen.end = End.LEFT if leave(len(body)) else End.WHOLE
    finally:
        seen.body = bytes(body)


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise _MalformedError
    pairs = (line.partition(":") for line in lines if line)
    return int(words[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def _read_length(
    reader: asyncio.StreamReader, length: str, body: bytearray, leave: Callable[[int], bool]
) -> None:
    """As many bytes as the head says; up to the end of the connection where it does not say."""
    left = int(length) if length.isdigit() else None
    while left != 0 and not leave(len(body)):
        data = await reader.read(READ_SIZE if left is None else min(left, READ_SIZE))
        body += data
        if not data:
            if left is not None:
                raise asyncio.IncompleteReadError(b"", left)
            return
        if left is not None:
            left -= len(data)


async def _read_chunks(reader: asyncio.StreamReader, body: bytearray, leave: Callable[[int], bool]) -> None:
    while not leave(len(body)):
        line = await reader.readuntil(b"\r\n")
        try:
            left = int(line.split(b";")[0], 16)
        except ValueError:
            raise _MalformedError from None
        if left == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":  # trailers
                pass
            return
        while left:
            data = await reader.read(min(left, READ_SIZE))
            if not data:
                raise asyncio.IncompleteReadError(b"", left)
            body += data
            left -= len(data)
        if await reader.readexactly(2) != b"\r\n":
            raise _MalformedError
