"""A stream that flows token by token, and what happens to its sockets in the middle of it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, Request, SimulatedServer, Step
from octoroute.demo.answers import prompt_of_messages
from octoroute.demo.wire import DONE, LAST_CHUNK, chunk, head
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.test_client_gone import LEAVES, NOTICE_S, Leave
from tests.end_to_end.wire_client import Reply, WireClient, chat, converse

PATH = "/v1/chat/completions"
SSE = head(200, [("Content-Type", "text/event-stream"), ("Transfer-Encoding", "chunked")])
TOKENS = 60
# Events that come one by one before anything happens.
MANY = 40
PAUSE_S = 0.002


class Fleet:
    """Two servers of one model; `first` is always tried first."""

    def __init__(self, first: SimulatedServer, second: SimulatedServer, port: int) -> None:
        self.first, self.second, self.port = first, second, port

    def text(self) -> str:
        return self.first.text(prompt_of_messages([{"role": "user", "content": "hello"}]), TOKENS)


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(serve: StartServer, gateway: StartGateway) -> Fleet:
    options = {"tokens_per_second": 1 / PAUSE_S, "answer_tokens": TOKENS, "slots": 64}
    first, second = [await serve("vllm", **options) for _ in range(2)]
    config = fleet_config(
        [endpoint(first, priority=2), endpoint(second)],
        health={"failures": 1000, "interval_seconds": 3600.0, "load_interval_seconds": 0},
    )
    return Fleet(first, second, (await gateway(config)).port)


def numbered(at: int, size: int = 0) -> bytes:
    return chunk(b'data: {"choices":[{"index":0,"delta":{"content":"%d %b"}}]}\n\n' % (at, b"x" * size))


async def steps(count: int, *then: Step) -> AsyncIterator[Step]:
    yield SSE
    for at in range(count):
        yield numbered(at)
        yield PAUSE_S
    for step in then:
        yield step


def numbers(reply: Reply) -> list[int]:
    return [int(word) for word in reply.text.replace("x", " ").split()]


async def _begin(client: WireClient) -> Reply:
    """A stream of which many events have come."""
    client.post(PATH, chat(stream=True))
    reply = await client.head()
    while reply.body.count(b"data:") < MANY:
        reply.body += await client.data()
    return reply


async def _rest(client: WireClient, reply: Reply) -> Reply:
    while data := await client.data():
        reply.body += data
    return reply


async def test_its_connection_serves_the_next_stream_too(fleet: Fleet) -> None:
    # The first of them teaches that this server keeps its connections.
    for _ in range(2):
        assert (await converse(fleet.port, stream=True)).text == fleet.text()
        await asyncio.sleep(0.2)
    opened = fleet.first.connections.total
    for stream in (True, False, True):
        assert (await converse(fleet.port, stream=stream)).text == fleet.text()
    assert fleet.first.connections.total == opened


async def test_its_server_dies_and_another_goes_on(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        reply = await _begin(client)
        await fleet.first.stop()
        await _rest(client, reply)
    assert (reply.text, reply.events[-1]) == (fleet.text(), "[DONE]")
    assert fleet.second.completions


@LEAVES
async def test_its_client_leaves_and_the_server_hears_of_it(fleet: Fleet, leave: Leave) -> None:
    fleet.first.script(lambda _: steps(100_000))
    async with WireClient(fleet.port) as client:
        await _begin(client)
        leave(client)
        await fleet.first.wait_for(lambda: fleet.first.active == 0, timeout=NOTICE_S)
    fleet.first.script(None)
    assert (await converse(fleet.port, stream=True)).text == fleet.text()


async def test_its_client_stops_reading_and_gets_all_of_it_later(fleet: Fleet) -> None:
    sent = 0
    full = asyncio.Event()

    async def endless(_: Request) -> AsyncIterator[Step]:
        nonlocal sent
        yield SSE
        while not full.is_set():
            yield numbered(sent, size=4096)
            sent += 1
            if sent < MANY:
                yield PAUSE_S
        yield chunk(DONE)
        yield LAST_CHUNK

    fleet.first.script(endless)
    async with WireClient(fleet.port) as client:
        reply = await _begin(client)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        seen = -1
        while sent != seen:  # until nothing has moved for a while: the kernel's buffers are full
            seen = sent
            await asyncio.sleep(0.3)
        full.set()
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await _rest(client, reply)
    assert (numbers(reply), reply.events[-1]) == (list(range(sent)), "[DONE]")


async def test_one_of_its_events_is_larger_than_a_read(fleet: Fleet) -> None:
    big = numbered(MANY, size=1 << 20)
    tail = [numbered(at) for at in range(MANY + 1, TOKENS)]
    fleet.first.script(lambda _: steps(MANY, big, PAUSE_S, *tail, chunk(DONE), LAST_CHUNK))
    reply = await converse(fleet.port, stream=True)
    assert (numbers(reply), reply.events[-1]) == (list(range(TOKENS)), "[DONE]")


@pytest.mark.parametrize("wrong", [b"zz\r\n", b"-5\r\nhello\r\n"])
async def test_what_is_no_http_ends_it_with_an_error(fleet: Fleet, wrong: bytes) -> None:
    for server in (fleet.first, fleet.second):
        server.script(lambda _: steps(MANY, wrong, CLOSE))
    reply = await converse(fleet.port, stream=True)
    assert numbers_before_error(reply) == list(range(MANY))
    assert reply.headers["x-request-id"] in reply.events[-1]["error"]["message"]


def numbers_before_error(reply: Reply) -> list[int]:
    return [int(event["choices"][0]["delta"]["content"]) for event in reply.events[:-1]]


@pytest.mark.parametrize("at_once", [1, 60])
async def test_the_last_events_and_the_end_of_the_connection_come_together(
    fleet: Fleet, at_once: int
) -> None:
    tail = b"".join(numbered(at) for at in range(MANY, MANY + at_once))
    fleet.first.script(lambda _: steps(MANY, tail + chunk(DONE) + LAST_CHUNK, CLOSE))
    reply = await converse(fleet.port, stream=True)
    assert (numbers(reply), reply.events[-1]) == (list(range(MANY + at_once)), "[DONE]")


async def test_many_at_the_same_time(fleet: Fleet) -> None:
    replies = await asyncio.gather(*(converse(fleet.port, stream=True) for _ in range(64)))
    assert {reply.text for reply in replies} == {fleet.text()}
