"""A server that does not speak HTTP costs its own answer only: an honest error, and the next one is right."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, STALL, Request, SimulatedServer, Step
from octoroute.demo.answers import prompt_of_messages
from octoroute.demo.wire import chunk, head
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config
from tests.end_to_end.wire_client import WireClient, chat, converse
from tests.sanitized import unless_sanitized

NO_HTTP = [
    "malformed-head",
    "huge-head",
    "two-content-lengths",
    "length-and-chunked",
    "malformed-chunk",
    "negative-chunk-size",
    "huge-chunk-size",
    "huge-chunk-extension",
    "wrong-length-short",
    "wrong-length-long",
    "close-mid-head",
    "close-mid-stream",
    "empty-200",
]
CHUNKS = [("Transfer-Encoding", "chunked")]
SSE = head(200, [("Content-Type", "text/event-stream"), *CHUNKS])
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
# What can't be the next bytes of a chunked body.
NO_CHUNK: dict[str, list[Step]] = {
    "a size that is no number": [b"zz\r\nhello\r\n", STALL],
    "a negative size": [b"-5\r\nhello\r\n", STALL],
    "a size of 2^72": [b"f" * 18 + b"\r\nhi", STALL],
    "an extension of 1 MB": [b"5;a=" + b"b" * (1 << 20), STALL],
    "a trailer of 1 MB": [b"0\r\nA: " + b"b" * (1 << 20), STALL],
    "the end of the connection": [CLOSE],
    "half a chunk and the end of the connection": [b"5\r\nhel", CLOSE],
}
READERS = 20
# A read of uvloop's (256 KB) and its like in the allocator, for each; what their servers send has no end.
MAX_HELD_BYTES = READERS * (1280 << 10)


@dataclass
class Fleet:
    server: SimulatedServer
    port: int
    pid: int


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    """One server, which keeps its connections and never becomes unhealthy."""
    server = await serve_module("vllm", "only", slots=READERS)
    config = fleet_config([server], server={"request_timeout_seconds": 5}, health={"failures": 1000})
    gateway = await gateway_module(config)
    return Fleet(server, gateway.port, gateway.process.pid)


async def _next_works(fleet: Fleet) -> None:
    text = fleet.server.text(prompt_of_messages([{"role": "user", "content": "hello"}]))
    assert (await converse(fleet.port)).text == text
    last = fleet.server.completions[-2:]
    assert last[0].connection != last[1].connection, "the connection was used again"


@pytest.mark.parametrize("fault", NO_HTTP)
async def test_an_answer_that_is_no_http_becomes_a_502_and_its_connection_is_not_used_again(
    fleet: Fleet, fault: str
) -> None:
    fleet.server.set_fault(fault)
    reply = await converse(fleet.port)
    fleet.server.set_fault(None)
    assert reply.status == 502
    assert reply.error["type"] in ("api_error", "server_error")
    assert reply.headers["x-request-id"] in reply.error["message"]
    assert f":{fleet.server.port}" not in reply.error["message"]
    await _next_works(fleet)


@pytest.mark.parametrize("wrong", NO_CHUNK)
async def test_a_stream_that_becomes_no_http_ends_with_an_error(fleet: Fleet, wrong: str) -> None:
    seen = asyncio.Event()
    fleet.server.script(lambda _: [SSE, chunk(EVENT), seen, *NO_CHUNK[wrong]])
    async with WireClient(fleet.port) as client:
        client.post("/v1/chat/completions", chat(stream=True))
        reply = await client.head()
        assert (reply.status, await client.data_of(len(EVENT))) == (200, EVENT)
        seen.set()
        while data := await client.data():
            reply.body += data
    fleet.server.script(None)
    assert reply.headers["x-request-id"] in reply.events[-1]["error"]["message"]
    assert b"[DONE]" not in reply.body
    await _next_works(fleet)


async def test_words_of_ours_are_not_put_into_a_compressed_stream(fleet: Fleet) -> None:
    squeezed = head(200, [("Content-Type", "text/event-stream"), ("Content-Encoding", "gzip"), *CHUNKS])
    body = bytes(range(200, 250)) * 1400 + b"\n\n"  # looks like a complete event by chance
    fleet.server.script(lambda _: [squeezed, chunk(body), 0.05, CLOSE])
    async with WireClient(fleet.port) as client:
        client.post("/v1/chat/completions", chat(stream=True))
        reply = await client.reply()
    fleet.server.script(None)
    assert (reply.status, reply.body, reply.ended) == (200, body, False)
    await _next_works(fleet)


async def test_what_follows_the_end_of_an_answer_reaches_nobody(fleet: Fleet) -> None:
    for stream in (False, True):
        fleet.server.set_fault("bytes-after-end", once=True)
        reply = await converse(fleet.port, stream=stream)
        assert (reply.status, reply.ended, b"evil" in reply.body) == (200, True, False)
        await _next_works(fleet)


@unless_sanitized("they keep freed memory for a while, to find who still uses it")
async def test_clients_that_stop_reading_hold_no_more_than_their_bound_of_memory(fleet: Fleet) -> None:
    piece = chunk(b'data: {"x":"' + b"y" * (0x10000 - 16) + b'"}\n\n')
    sent = 0

    async def endless(_: Request) -> AsyncIterator[Step]:
        nonlocal sent
        yield SSE
        while True:
            sent += len(piece)
            yield piece

    before = _resident_bytes(fleet.pid)
    fleet.server.script(endless)
    async with AsyncExitStack() as stack:
        for _ in range(READERS):
            client = await stack.enter_async_context(WireClient(fleet.port))
            client.post("/v1/chat/completions", chat(stream=True))
            assert (await client.head()).status == 200
        seen = -1
        while sent != seen:  # until nothing has moved for a while: the kernel's buffers are full
            seen = sent
            await asyncio.sleep(0.3)
        assert fleet.server.active >= READERS  # and a probe, perhaps
        assert _resident_bytes(fleet.pid) - before < MAX_HELD_BYTES
        fleet.server.script(None)
        assert (await converse(fleet.port, stream=True)).status == 200
    await fleet.server.wait_for(lambda: fleet.server.active == 0)


def _resident_bytes(pid: int) -> int:
    """Of the supervisor and its workers."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        pids = [pid, *map(int, children.read().split())]
    total = 0
    for one in pids:
        with open(f"/proc/{one}/status") as status:
            total += next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))
    return total << 10
