"""Behaviours of a server that gives the whole answer in an odd form: odd framing, timing, events."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import orjson

from octoroute.demo.behaviours import CHUNKED, Behaviour, Exchange, end_of, first_wide
from octoroute.demo.wire import CLOSE, DONE, LAST_CHUNK, Answer, Step, chunk, event, head

BIG_TEXT = "x" * (1 << 20)


async def json_for_stream(exchange: Exchange) -> AsyncIterator[Step]:
    """A plain JSON answer whatever was asked for."""
    fields = {**exchange.request.json, "stream": False}
    answer = await exchange.answer(replace(exchange.request, body=orjson.dumps(fields)))
    async for step in answer.steps():
        yield step


def framed(*, of_head: Callable[[Answer], bytes], body: Callable[[bytes], bytes], keeps: bool) -> Behaviour:
    """The whole ordinary body under another head."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        all_of_it = b"".join([piece async for piece in answer.pieces()])
        yield of_head(Answer(answer.status, answer.headers, all_of_it))
        yield body(all_of_it)
        if not keeps:
            yield CLOSE

    return behave


def with_length(change: int) -> Callable[[Answer], bytes]:
    def of_head(answer: Answer) -> bytes:
        length = ("Content-Length", str(len(answer.body) + change if isinstance(answer.body, bytes) else 0))
        return head(answer.status, [*answer.headers, length])

    return of_head


def with_headers(*headers: tuple[str, str]) -> Callable[[Answer], bytes]:
    """A head with these headers and no length."""

    def of_head(answer: Answer) -> bytes:
        return head(answer.status, [*answer.headers, *headers])

    return of_head


def in_one_chunk(body: bytes) -> bytes:
    return chunk(body) + LAST_CHUNK


def each_piece(change: Callable[[bytes], list[bytes]], *, pause: float = 0.0) -> Behaviour:
    """Every event changed, in one chunk and write for each part; a plain body is left as it is."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        yield answer.head()
        async for piece in answer.pieces():
            if isinstance(answer.body, bytes):
                yield piece
                continue
            for part in change(piece):
                yield chunk(part)
            if pause:
                yield pause
        async for step in end_of(answer):
            yield step

    return behave


def inside_a_character(piece: bytes) -> list[bytes]:
    """Cut after the first byte of the first character that has several."""
    at = first_wide(piece)
    return [piece] if at < 0 else [piece[: at + 1], piece[at + 1 :]]


def with_crlf(piece: bytes) -> list[bytes]:
    return [piece.replace(b"\n", b"\r\n")]


def without_space(piece: bytes) -> list[bytes]:
    return [piece.replace(b"data: ", b"data:")]


def without_done(piece: bytes) -> list[bytes]:
    return [] if piece == DONE else [piece]


def done_and_more(piece: bytes) -> list[bytes]:
    """Behind [DONE], in the same body: text that is no part of the answer."""
    late = {"index": 0, "delta": {"content": " and more"}, "finish_reason": None}
    return (
        [piece, event({"object": "chat.completion.chunk", "choices": [late]})] if piece == DONE else [piece]
    )


def before_the_answer(*steps: Step) -> Behaviour:
    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        for step in steps:
            yield step
        async for step in answer.steps():
            yield step

    return behave


def after_the_answer(*steps: Step) -> Behaviour:
    """The ordinary answer, on a connection that is said to be kept, and then these steps."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        answer.keeps = True
        async for step in answer.steps():
            yield step
        for step in steps:
            yield step

    return behave


def in_writes_of(size: int) -> Behaviour:
    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        async for step in (await exchange.answer()).steps():
            if isinstance(step, bytes):
                for at in range(0, len(step), size):
                    yield step[at : at + size]
            else:
                yield step

    return behave


def slow_body(parts: int, pause: float) -> Behaviour:
    """A plain body in parts, an event at a time for a stream; a pause before each."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        yield answer.head()
        async for piece in answer.pieces():
            size = -(-len(piece) // parts) if isinstance(answer.body, bytes) else len(piece)
            for at in range(0, len(piece), max(1, size)):
                yield pause
                yield answer.frame(piece[at : at + size])
        async for step in end_of(answer):
            yield step

    return behave


async def big_event(exchange: Exchange) -> AsyncIterator[Step]:
    """One event of 1 MB before the ordinary ones."""
    answer = await exchange.answer()
    yield answer.head()
    if not isinstance(answer.body, bytes):
        delta = {"index": 0, "delta": {"content": BIG_TEXT}, "finish_reason": None}
        yield chunk(event({"object": "chat.completion.chunk", "choices": [delta]}))
    async for piece in answer.pieces():
        yield answer.frame(piece)
    async for step in end_of(answer):
        yield step


async def wrong_model(exchange: Exchange) -> AsyncIterator[Step]:
    """The ordinary answer under another model's name, as of a server that has swapped its model."""
    answer = await exchange.answer()
    name = orjson.dumps(exchange.request.json.get("model"))
    named = b'"model":' + name

    def renamed(data: bytes) -> bytes:
        return data.replace(named, b'"model":"another-model"')

    if isinstance(answer.body, bytes):
        yield Answer(answer.status, answer.headers, renamed(answer.body)).head()
        yield renamed(answer.body)
    else:
        yield answer.head()
        async for piece in answer.pieces():
            yield chunk(renamed(piece))
    async for step in end_of(answer):
        yield step


def huge_chunk_extension(size: int) -> Behaviour:
    """The ordinary answer, its first chunk with an extension as long as that."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        yield head(answer.status, [*answer.headers, CHUNKED])
        first = True
        async for piece in answer.pieces():
            extension = b";a=" + b"b" * size if first else b""
            yield b"%x%b\r\n%b\r\n" % (len(piece), extension, piece)
            first = False
        yield LAST_CHUNK
        if not answer.keeps:
            yield CLOSE

    return behave
