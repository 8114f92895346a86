"""What a model server can do wrong, by name: one entry of FAULTS each.

A fault gets the exchange (the request, and the ordinary answer if it wants one) and yields the steps to play
instead. To add one, write a generator and name it in FAULTS.
"""

import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import orjson

from octoroute.demo.wire import (
    CLOSE,
    DONE,
    LAST_CHUNK,
    RESET,
    STALL,
    Answer,
    Request,
    Step,
    chunk,
    event,
    head,
)

EVENTS_BEFORE_TROUBLE = 3
JSON = ("Content-Type", "application/json")
SSE = ("Content-Type", "text/event-stream")
CHUNKED = ("Transfer-Encoding", "chunked")


class Exchange(Protocol):
    """What a fault may use. `answer` makes the ordinary answer and takes the time of one."""

    request: Request

    async def answer(self, instead: Request | None = None) -> Answer: ...

    def loading(self) -> Answer: ...

    def error_event(self, message: str) -> bytes: ...


Behaviour = Callable[[Exchange], AsyncIterator[Step]]


def completions_only(request: Request) -> bool:
    return request.method == "POST"


def every_route(request: Request) -> bool:
    return request.path != "/health"


def reused_connections(request: Request) -> bool:
    return request.nth > 1


@dataclass(frozen=True, slots=True)
class Fault:
    """`behave` is None for a port that refuses. `hits` says which requests are met; probes mostly aren't."""

    about: str
    behave: Behaviour | None
    hits: Callable[[Request], bool] = completions_only


def signal(*steps: Step) -> Behaviour:
    """Nothing of an answer, only these steps."""

    async def behave(_: Exchange) -> AsyncIterator[Step]:
        for step in steps:
            yield step

    return behave


def after_head(*steps: Step) -> Behaviour:
    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        yield (await exchange.answer()).head()
        for step in steps:
            yield step

    return behave


def mid_stream(*steps: Step, half_an_event: bool = False) -> Behaviour:
    """The first events, or half of a plain body, and then these steps."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        yield answer.head()
        if isinstance(answer.body, bytes):
            yield answer.body[: len(answer.body) // 2]
        else:
            sent = 0
            async for piece in answer.pieces():
                if sent == EVENTS_BEFORE_TROUBLE:
                    if half_an_event:
                        yield chunk(piece)[: len(piece) // 2]
                    break
                sent += 1
                yield chunk(piece)
        for step in steps:
            yield step

    return behave


def status(code: int, message: str, type_: str = "server_error", *headers: tuple[str, str]) -> Behaviour:
    body = orjson.dumps({"error": {"code": code, "message": message, "type": type_}})
    return signal(head(code, [*headers, JSON, ("Content-Length", str(len(body)))]) + body)


def framed(*, of_head: Callable[[Answer], bytes], body: Callable[[bytes], bytes], keeps: bool) -> Behaviour:
    """The whole ordinary body under another head."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        whole = b"".join([piece async for piece in answer.pieces()])
        yield of_head(Answer(answer.status, answer.headers, whole))
        yield body(whole)
        if not keeps:
            yield CLOSE

    return behave


def with_length(change: int) -> Callable[[Answer], bytes]:
    def of_head(answer: Answer) -> bytes:
        length = ("Content-Length", str(len(answer.body) + change if isinstance(answer.body, bytes) else 0))
        return head(answer.status, [*answer.headers, length])

    return of_head


def each_piece(change: Callable[[bytes], list[bytes]], *, drop: bytes = b"") -> Behaviour:
    """Every event changed, in one chunk and write for each part; a plain body is left as it is."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        yield answer.head()
        async for piece in answer.pieces():
            if isinstance(answer.body, bytes):
                yield piece
                continue
            for part in change(piece):
                if part != drop:
                    yield chunk(part)
        if not isinstance(answer.body, bytes):
            yield LAST_CHUNK
        if not answer.keeps:
            yield CLOSE

    return behave


def inside_a_character(piece: bytes) -> list[bytes]:
    """Cut after the first byte of the first character that has several."""
    at = next((at for at, byte in enumerate(piece) if byte >= 0xC0), -1)
    return [piece] if at < 0 else [piece[: at + 1], piece[at + 1 :]]


def with_crlf(piece: bytes) -> list[bytes]:
    return [piece.replace(b"\n", b"\r\n")]


def before_the_answer(steps: Callable[[Answer], list[Step]]) -> Behaviour:
    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        for step in steps(answer):
            yield step
        async for step in answer.steps():
            yield step

    return behave


async def one_byte_writes(exchange: Exchange) -> AsyncIterator[Step]:
    async for step in (await exchange.answer()).steps():
        if isinstance(step, bytes):
            for at in range(len(step)):
                yield step[at : at + 1]
        else:
            yield step


async def bytes_after_end(exchange: Exchange) -> AsyncIterator[Step]:
    """Bytes behind the end of the body, on a connection that is said to be kept."""
    answer = await exchange.answer()
    yield answer.head()
    async for piece in answer.pieces():
        yield answer.frame(piece)
    yield (
        b"" if isinstance(answer.body, bytes) else LAST_CHUNK
    ) + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


async def error_event_200(exchange: Exchange) -> AsyncIterator[Step]:
    """An error after the head: an event that says so, and the end without [DONE]."""
    if b'"stream"' not in exchange.request.body:
        yield b"".join(
            [step async for step in status(500, "the model crashed")(exchange) if isinstance(step, bytes)]
        )
        return
    yield head(200, [SSE, CHUNKED])
    yield chunk(exchange.error_event("the model crashed"))
    yield LAST_CHUNK
    yield CLOSE


async def json_for_stream(exchange: Exchange) -> AsyncIterator[Step]:
    """A plain JSON answer whatever was asked for."""
    fields = {**exchange.request.json, "stream": False}
    answer = await exchange.answer(replace(exchange.request, body=orjson.dumps(fields)))
    async for step in answer.steps():
        yield step


async def comments_only(_: Exchange) -> AsyncIterator[Step]:
    """A stream that gives signs of life and never an event."""
    yield head(200, [SSE, CHUNKED])
    while True:
        yield chunk(b": keep-alive\n\n")
        yield 0.05


async def big_event(exchange: Exchange) -> AsyncIterator[Step]:
    """One event of 1 MB before the ordinary ones."""
    answer = await exchange.answer()
    if isinstance(answer.body, bytes):
        async for step in answer.steps():
            yield step
        return
    yield answer.head()
    delta = {"index": 0, "delta": {"content": "x" * (1 << 20)}, "finish_reason": None}
    yield chunk(event({"object": "chat.completion.chunk", "choices": [delta]}))
    async for piece in answer.pieces():
        yield chunk(piece)
    yield LAST_CHUNK
    if not answer.keeps:
        yield CLOSE


async def loading(exchange: Exchange) -> AsyncIterator[Step]:
    async for step in exchange.loading().steps():
        yield step


def _http_1_0(answer: Answer) -> bytes:
    return head(answer.status, [h for h in answer.headers if h[0] != "Keep-Alive"], "HTTP/1.0")


def _two_lengths(answer: Answer) -> bytes:
    length = len(answer.body) if isinstance(answer.body, bytes) else 0
    lengths = [("Content-Length", str(length)), ("Content-Length", str(length + 1))]
    return head(answer.status, [*answer.headers, *lengths])


def _gzip_head(answer: Answer) -> bytes:
    return head(answer.status, [*answer.headers, ("Content-Encoding", "gzip"), ("Connection", "close")])


def _gzip(whole: bytes) -> bytes:
    return zlib.compress(whole, wbits=31)


_SSE_HEAD = head(200, [SSE, CHUNKED])
_SLOW_S = 1.0
_RETRY_AFTER = ("Retry-After", "7")
_EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"

FAULTS: dict[str, Fault] = {
    "refuse": Fault("the port is closed", None),
    "reset-before-head": Fault("RST before any byte", signal(RESET)),
    "reset-after-head": Fault("RST after the head", after_head(RESET)),
    "reset-mid-event": Fault("RST inside an event", mid_stream(RESET, half_an_event=True)),
    "close-before-head": Fault("FIN before any byte", signal(CLOSE)),
    "close-mid-stream": Fault("FIN after some events, no last chunk", mid_stream(CLOSE)),
    "stall-before-head": Fault("silence, no byte", signal(STALL)),
    "stall-after-head": Fault("silence after the head", after_head(STALL)),
    "stall-mid-stream": Fault("silence after some events", mid_stream(STALL)),
    "status-400": Fault("400", status(400, "that can't be done", "invalid_request_error")),
    "status-401": Fault("401", status(401, "Invalid API Key", "authentication_error")),
    "status-404": Fault("404", status(404, "no such model", "not_found_error")),
    "status-429": Fault("429", status(429, "too many requests", "rate_limit_error")),
    "status-429-retry-after": Fault(
        "429 with Retry-After", status(429, "too many requests", "rate_limit_error", _RETRY_AFTER)
    ),
    "status-500": Fault("500", status(500, "the model crashed")),
    "status-502": Fault("502", status(502, "bad gateway")),
    "status-503-loading": Fault("503 on every API route", loading, every_route),
    "slow-head": Fault("the head comes after a second", before_the_answer(lambda _: [_SLOW_S])),
    "one-byte-writes": Fault("every byte is a write", one_byte_writes),
    "split-utf8": Fault(
        "characters cut between chunks (if the text is `wide`)", each_piece(inside_a_character)
    ),
    "error-event-200": Fault("200, an error event, the end", error_event_200),
    "json-for-stream": Fault("plain JSON for a stream", json_for_stream),
    "no-done": Fault("no [DONE]", each_piece(lambda piece: [piece], drop=DONE)),
    "bytes-after-end": Fault("another answer behind the end", bytes_after_end),
    "wrong-length-short": Fault(
        "Content-Length too small", framed(of_head=with_length(-5), body=bytes, keeps=True)
    ),
    "wrong-length-long": Fault(
        "Content-Length too big, then FIN", framed(of_head=with_length(5), body=bytes, keeps=False)
    ),
    "malformed-chunk": Fault("a chunk size of zz", signal(_SSE_HEAD, b"zz\r\nhello\r\n", STALL)),
    "huge-chunk-size": Fault("a chunk size of 2^72", signal(_SSE_HEAD, b"fffffffffffffffff0\r\nhi", STALL)),
    "negative-chunk-size": Fault("a chunk size of -5", signal(_SSE_HEAD, b"-5\r\nhello\r\n", STALL)),
    "two-content-lengths": Fault(
        "two lengths that differ", framed(of_head=_two_lengths, body=bytes, keeps=True)
    ),
    "huge-head": Fault(
        "a head of 1 MB",
        signal(b"HTTP/1.1 200 OK\r\n" + b"X-Filler: " + b"a" * (1 << 20) + b"\r\n\r\n", CLOSE),
    ),
    "malformed-head": Fault("a status that is no number", signal(b"HTTP/1.1 two hundred OK\r\n\r\n", CLOSE)),
    "http-1.0": Fault("HTTP/1.0, ended by FIN", framed(of_head=_http_1_0, body=bytes, keeps=False)),
    "100-continue": Fault(
        "an interim 100 first", before_the_answer(lambda _: [b"HTTP/1.1 100 Continue\r\n\r\n"])
    ),
    "103-early-hints": Fault("an interim 103 first", before_the_answer(lambda _: [_EARLY])),
    "gzip-body": Fault("gzip though nobody asked", framed(of_head=_gzip_head, body=_gzip, keeps=False)),
    "closes-idle": Fault("FIN when a kept connection is used again", signal(CLOSE), reused_connections),
    "big-event": Fault("an event of 1 MB", big_event),
    "crlf-events": Fault("CRLF line ends", each_piece(with_crlf)),
    "comments-only": Fault("comments, never an event", comments_only),
}
