"""Behaviours of a server that gives no answer: refusals, errors, emptiness."""

from collections.abc import AsyncIterator

import orjson

from octoroute.demo.behaviours import JSON, SSE_HEAD, Behaviour, Exchange, signal, wants_stream
from octoroute.demo.wire import CLOSE, LAST_CHUNK, Step, chunk, head


def status(code: int, message: str, type_: str = "server_error", *headers: tuple[str, str]) -> Behaviour:
    body = orjson.dumps({"error": {"code": code, "message": message, "type": type_}})
    return whole(code, body, JSON, *headers)


def whole(code: int, body: bytes, *headers: tuple[str, str]) -> Behaviour:
    return signal(head(code, [*headers, ("Content-Length", str(len(body)))]) + body)


async def loading(exchange: Exchange) -> AsyncIterator[Step]:
    async for step in exchange.loading().steps():
        yield step


async def comments_only(_: Exchange) -> AsyncIterator[Step]:
    """A stream that gives signs of life and never an event."""
    yield SSE_HEAD
    while True:
        yield chunk(b": keep-alive\n\n")
        yield 0.05


async def error_event_200(exchange: Exchange) -> AsyncIterator[Step]:
    """An error after the head: an event that says so, and the end without [DONE]."""
    if not wants_stream(exchange.request):
        async for step in status(500, "the model crashed")(exchange):
            yield step
        return
    yield SSE_HEAD
    yield chunk(exchange.error_event("the model crashed"))
    yield LAST_CHUNK
    yield CLOSE


async def empty_200(exchange: Exchange) -> AsyncIterator[Step]:
    """A head that promises an answer, and a body without a byte."""
    if wants_stream(exchange.request):
        yield SSE_HEAD + LAST_CHUNK
    else:
        yield head(200, [JSON, ("Content-Length", "0")])
    yield CLOSE
