"""Behaviours of a server that breaks off: it gives a part of the ordinary answer, and then trouble."""

from collections.abc import AsyncIterator, Callable

from octoroute.demo.behaviours import Behaviour, Exchange, first_wide, wants_stream
from octoroute.demo.wire import CLOSE, LAST_CHUNK, Step, chunk

EVENTS_BEFORE_TROUBLE = 3
MOMENT_S = 0.02
Cut = Callable[[bytes], bytes]


def after_head(*steps: Step) -> Behaviour:
    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        yield (await exchange.answer()).head()
        for step in steps:
            yield step

    return behave


def inside_head(*steps: Step) -> Behaviour:
    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        yield (await exchange.answer()).head()[:-20]
        for step in steps:
            yield step

    return behave


async def _beginning(exchange: Exchange, cut: Cut | None = None) -> AsyncIterator[Step]:
    """The head and the first events, or half of a plain body. `cut` gives what is sent of the event after
    them; where it gives nothing, that event is sent whole and the next one tried.
    """
    answer = await exchange.answer()
    yield answer.head()
    if isinstance(answer.body, bytes):
        yield answer.body[: len(answer.body) // 2]
        return
    sent = 0
    async for piece in answer.pieces():
        if sent >= EVENTS_BEFORE_TROUBLE:
            if cut is None:
                break
            framed = chunk(piece)
            if part := cut(framed):
                yield part
                break
        sent += 1
        yield chunk(piece)
    # A client has these before the trouble comes: it is in mid-stream for the gateway too.
    yield MOMENT_S


def mid_stream(*steps: Step, cut: Cut | None = None) -> Behaviour:
    """The beginning of the answer, and then these steps."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        async for step in _beginning(exchange, cut):
            yield step
        for step in steps:
            yield step

    return behave


async def error_event_mid_stream(exchange: Exchange) -> AsyncIterator[Step]:
    """The first events, one that says that the server failed, and an end in order. A plain body just ends."""
    async for step in _beginning(exchange):
        yield step
    if wants_stream(exchange.request):
        yield chunk(exchange.error_event("the model crashed"))
        yield LAST_CHUNK
    yield CLOSE


def all_but_the_end(*steps: Step) -> Behaviour:
    """Everything, [DONE] too, but the framing's end; a plain body lacks its last byte."""

    async def behave(exchange: Exchange) -> AsyncIterator[Step]:
        answer = await exchange.answer()
        yield answer.head()
        if isinstance(answer.body, bytes):
            yield answer.body[:-1]
        else:
            async for piece in answer.pieces():
                yield chunk(piece)
        for step in steps:
            yield step

    return behave


def half(framed: bytes) -> bytes:
    return framed[: len(framed) // 2]


def up_to_inside_a_character(framed: bytes) -> bytes:
    """Up to the first byte of the first character that has several; nothing where there is none."""
    return framed[: first_wide(framed) + 1]
