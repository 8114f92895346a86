"""Reads a request off its connection: the body within bounds and time, the id, the headers that go on to
the server.
"""

import asyncio
import itertools
import os
from typing import Final

from aiohttp import hdrs, web

from octoroute._request import NOT_FORWARDED
from octoroute.errors import InvalidRequest

ID_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:")

_prefix = os.urandom(6).hex()
_serial = itertools.count(1)


def seed_ids() -> None:
    """Gives this process ids of its own. To be called after a fork."""
    global _prefix
    _prefix = os.urandom(6).hex()


def request_id(request: web.BaseRequest) -> str:
    """The client's own id if it is sane (up to 128 letters, digits, `-_.:`), else a new one."""
    given = request.headers.get("X-Request-Id")
    if given and len(given) <= 128 and ID_CHARS.issuperset(given):
        return given
    return new_id()


def new_id() -> str:
    """An id that no other request of any gateway has."""
    return f"req-{_prefix}-{next(_serial):x}"


def forwarded_headers(request: web.BaseRequest) -> bytes:
    """The header lines of the request that go on to the server; those written anew are not among them."""
    return b"".join(
        b"%b: %b\r\n" % (name, value)
        for name, value in request.raw_headers
        if name.lower() not in NOT_FORWARDED
    )


async def read_body(request: web.BaseRequest, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises InvalidRequest: 413 beyond `max_bytes`, 408 if it does not come within
    `timeout_s`.
    """
    content = request.content
    if content.is_eof() and content.total_bytes <= max_bytes:
        # The usual case: head and body came in one read.
        return content.read_nowait()
    declared = request.content_length
    if declared is not None and declared > max_bytes:
        raise too_large(max_bytes)
    if hdrs.EXPECT in request.headers and request.headers[hdrs.EXPECT].lower() == "100-continue":
        transport = request.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while piece := await content.readany():
                size += len(piece)
                if size > max_bytes:
                    raise too_large(max_bytes)
                pieces.append(piece)
    except TimeoutError:
        raise body_too_late(timeout_s) from None
    except (web.RequestPayloadError, ConnectionError):
        raise InvalidRequest("the request body is malformed or incomplete", code="invalid_body") from None
    return b"".join(pieces)


def too_large(max_bytes: int) -> InvalidRequest:
    return InvalidRequest(
        f"the request body is larger than {max_bytes} bytes (server.max_body_bytes)",
        status=413,
        code="request_too_large",
    )


def body_too_late(timeout_s: float) -> InvalidRequest:
    return InvalidRequest(
        f"the request body did not come within {timeout_s:g} s", status=408, code="request_timeout"
    )
