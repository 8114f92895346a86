"""The seam to aiohttp: answers that are written past it keep its connections in order.

The gateway runs in the test's own process, so that the silence after which a client hears a comment can be
shortened.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import h11
import orjson
import pytest
import pytest_asyncio

from octoroute.config import parse
from octoroute.demo import CLOSE, SimulatedServer, Step
from octoroute.demo.wire import LAST_CHUNK, chunk, head
from octoroute.exchange import RequestView
from octoroute.gateway import Gateway
from octoroute.server.app import Api
from octoroute.server.wire import ClientWire
from octoroute.upstream import forward, resume
from octoroute.upstream.connection import PING_NS
from tests.end_to_end.conftest import StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.processes import until
from tests.end_to_end.wire_client import WireClient, chat

PATH = "/v1/chat/completions"
SSE = ("Content-Type", "text/event-stream")
STREAM_HEAD = head(200, [SSE, ("Transfer-Encoding", "chunked")])
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
PING = b": keep-alive\n\n"
# Requests that take the short road, and those that take aiohttp's.
KEPT: dict[str, str] = {}
LAST = {"connection": "close"}


@dataclass
class Near:
    """A gateway in this process."""

    port: int
    servers: list[SimulatedServer]

    def script(self, *steps: Step) -> None:
        for server in self.servers:
            server.script(lambda _: steps)


@asynccontextmanager
async def running(config: str, servers: list[SimulatedServer]) -> AsyncIterator[Near]:
    gateway = Gateway(parse(config, source="test", folder=Path()))
    listener = await asyncio.get_running_loop().create_server(Api(gateway), "127.0.0.1", 0)
    gateway.start()
    yield Near(listener.sockets[0].getsockname()[1], servers)
    listener.close()
    await gateway.close()


@pytest_asyncio.fixture(loop_scope="session")
async def near(serve: StartServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Near]:
    monkeypatch.setattr(forward, "PING_NS", 200_000_000)
    servers = [await serve("vllm"), await serve("vllm")]
    async with running(fleet_config(servers), servers) as one:
        yield one


def post(fields: dict[str, object], version: str = "1.1", extra: str = "") -> bytes:
    """A request's bytes, to be sent without waiting for answers to earlier ones."""
    body = orjson.dumps(fields)
    lines = f"POST {PATH} HTTP/{version}\r\nHost: a\r\nContent-Type: application/json\r\n{extra}"
    return f"{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def test_pipelined_requests_are_answered_in_their_order(near: Near) -> None:
    async with WireClient(near.port) as client:
        client.send_raw(
            post(chat("one"), extra="X-Request-Id: one\r\n")
            + b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-Id: two\r\n\r\n"
            + post(chat("three", stream=True), extra="X-Request-Id: three\r\n")
            + post(chat("four"), extra="X-Request-Id: four\r\nConnection: close\r\n")
        )
        got = await client.read_raw()
    places = [got.lower().index(b"x-request-id: " + name) for name in (b"one", b"two", b"three", b"four")]
    assert places == sorted(places)
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 4


def _alive(kind: type) -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, kind)]


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """What refers to itself stays in memory until the collector's turn, prompts of megabytes too."""
    gc.collect()
    before = _alive(RequestView)  # other test modules may hold some
    gc.disable()
    try:
        yield
        await until(lambda: not _alive(ClientWire))  # its end is seen a moment later
        assert _alive(RequestView) == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("fault", "road"),
    [
        (None, KEPT),
        ("reset-before-head", KEPT),
        ("reset-mid-stream", KEPT),
        ("status-404", KEPT),
        (None, LAST),
        ("status-404", LAST),
        ("reset-before-head", LAST),
        ("reset-mid-stream", LAST),
    ],
)
async def test_a_request_leaves_nothing_to_the_garbage_collector(
    near: Near, fault: str | None, road: dict[str, str]
) -> None:
    for server in near.servers:
        server.set_fault(fault)
    async with nothing_left():
        for stream in (False, True):
            async with WireClient(near.port) as client:
                client.post(PATH, chat(stream=stream), headers=road)
                with suppress(ConnectionError, h11.RemoteProtocolError):
                    await client.reply()


@pytest.mark.parametrize("fault", [None, "stall-mid-stream"])
async def test_neither_do_a_hedge_and_a_rescue(serve: StartServer, fault: str | None) -> None:
    servers = [await serve("vllm", prefill_seconds=0.2) for _ in range(2)]
    recovery = {"hedge": 0.05, "hedge_budget": 1.0, "stall_seconds": 0.2}
    async with running(fleet_config(servers, recovery=recovery), servers) as near, nothing_left():
        if fault is not None:
            servers[0].set_fault(fault, once=True)
        for _ in range(2):
            async with WireClient(near.port) as client:
                client.post(PATH, chat(stream=True))
                assert (await client.reply()).events[-1] == "[DONE]"


async def test_a_connection_is_kept_after_every_kind_of_answer(near: Near) -> None:
    async with WireClient(near.port) as client:
        for fields, status in (
            (chat(), 200),
            (chat(stream=True), 200),
            (chat(model="nobody"), 400),
            (chat(stream=True), 200),
            (chat(), 200),
        ):
            client.post(PATH, fields)
            reply = await client.reply()
            assert (reply.status, reply.ended) == (status, True)


async def test_a_client_that_asks_for_the_end_of_its_connection_gets_it(near: Near) -> None:
    for stream in (False, True):
        async with WireClient(near.port) as client:
            client.send_raw(post(chat(stream=stream), extra="Connection: close\r\n"))
            got = await client.read_raw()
        assert b"\r\nconnection: close\r\n" in got.lower()


async def test_an_http_1_0_client_gets_the_bare_payload_and_the_end(near: Near) -> None:
    near.script(STREAM_HEAD, chunk(EVENT), chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    async with WireClient(near.port) as client:
        client.send_raw(post(chat(stream=True), version="1.0"))
        got = await client.read_raw()
    assert got.partition(b"\r\n\r\n")[2] == EVENT + b"data: [DONE]\n\n"
    assert b"transfer-encoding" not in got.lower()


async def test_a_stream_that_ends_with_its_connection_is_framed_anew(near: Near) -> None:
    near.script(head(200, [SSE]), EVENT, EVENT, CLOSE)
    async with WireClient(near.port) as client:
        client.post(PATH, chat(stream=True))
        reply = await client.reply()
        assert (reply.status, reply.ended, reply.body) == (200, True, EVENT + EVENT)
        # Framed by the gateway, it ends without ending the client's connection.
        client.post(PATH, chat(stream=True))
        assert (await client.reply()).ended


async def test_a_client_that_waits_hears_a_comment_and_then_the_answer(near: Near) -> None:
    go = asyncio.Event()
    near.script(go, STREAM_HEAD, chunk(EVENT), LAST_CHUNK)
    async with WireClient(near.port) as client:
        client.post(PATH, chat(stream=True))
        assert (await client.head()).headers["content-type"] == "text/event-stream"
        assert await client.data_of(len(PING)) == PING
        go.set()
        got = b""
        while data := await client.data():
            got += data
        assert got.replace(PING, b"") == EVENT


@pytest.mark.parametrize("behind", [b"", chunk(PING)], ids=["alone", "with a comment"])
async def test_the_head_of_a_slow_stream_comes_before_its_first_event(
    near: Near, monkeypatch: pytest.MonkeyPatch, behind: bytes
) -> None:
    monkeypatch.setattr(forward, "PING_NS", PING_NS)
    go = asyncio.Event()
    near.script(STREAM_HEAD + behind, go, chunk(EVENT), LAST_CHUNK)
    async with WireClient(near.port) as client:
        client.post(PATH, chat(stream=True))
        assert (await client.head()).status == 200
        go.set()
        got = b""
        while data := await client.data():
            got += data
        assert got.replace(PING, b"") == EVENT


async def test_a_stream_that_fails_at_once_after_its_head_is_told_as_a_status(near: Near) -> None:
    near.script(STREAM_HEAD, CLOSE)
    async with WireClient(near.port) as client:
        client.post(PATH, chat(stream=True))
        reply = await client.reply()
        assert (reply.status, reply.error["code"]) == (502, "upstream_failed")


async def test_silence_in_the_middle_of_a_stream_is_broken_by_comments_between_events(near: Near) -> None:
    go = asyncio.Event()
    near.script(STREAM_HEAD, chunk(EVENT), go, chunk(EVENT), LAST_CHUNK)
    async with WireClient(near.port) as client:
        client.post(PATH, chat(stream=True))
        await client.head()
        assert await client.data_of(len(EVENT) + len(PING)) == EVENT + PING
        go.set()
        got = b""
        while data := await client.data():
            got += data
        assert got.replace(PING, b"") == EVENT


async def test_another_endpoint_answers_though_a_comment_is_out_already(near: Near) -> None:
    stuck = asyncio.Event()
    first = {"is": True}

    def one_dies(_: object) -> list[Step]:
        if first.pop("is", False):
            return [stuck, CLOSE]
        return [STREAM_HEAD, chunk(EVENT), LAST_CHUNK]

    for server in near.servers:
        server.script(one_dies)
    async with WireClient(near.port) as client:
        client.post(PATH, chat(stream=True))
        await client.head()
        assert await client.data_of(len(PING)) == PING
        stuck.set()
        got = b""
        while data := await client.data():
            got += data
        assert got.replace(PING, b"") == EVENT


async def test_a_broken_stream_that_waits_for_a_place_is_not_silent(
    serve: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "PING_NS", 100_000_000)
    first, second = [await serve("vllm") for _ in range(2)]
    last = endpoint(second, name="other", model=first.model, max_in_flight=1)
    config = fleet_config([endpoint(first, priority=2), last])
    first.script(lambda _: [STREAM_HEAD, chunk(EVENT), CLOSE])
    over = asyncio.Event()
    second.script(lambda _: [over, STREAM_HEAD, chunk(EVENT), LAST_CHUNK])
    async with (
        running(config, [first, second]) as near,
        WireClient(near.port) as other,
        WireClient(near.port) as client,
    ):
        other.post(PATH, chat(model="other", stream=True))
        await second.wait_for(lambda: len(second.completions) == 1)
        client.post(PATH, chat(stream=True))
        await client.head()
        begun = EVENT + 2 * PING
        assert await client.data_of(len(begun)) == begun
        second.script(None)
        over.set()
        got = b""
        while data := await client.data():
            got += data
    assert got.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_an_error_after_a_comment_comes_as_an_event_and_names_the_request(
    near: Near, status: int
) -> None:
    go = asyncio.Event()
    near.script(go, head(status, [("Content-Length", "2")]) + b"{}")
    async with WireClient(near.port) as client:
        client.post(PATH, chat(stream=True), headers={"x-request-id": "mine"})
        await client.head()
        await client.data_of(len(PING))
        go.set()
        reply_body = b""
        while data := await client.data():
            reply_body += data
    assert reply_body.count(b"data: ") == 1
    assert b'"error"' in reply_body
    assert b"mine" in reply_body
    assert b"finish_reason" not in reply_body


async def test_a_plain_answer_that_breaks_off_has_no_orderly_end(near: Near) -> None:
    large = b'{"x": "' + b"y" * 200_000
    near.script(
        head(200, [("Content-Type", "application/json"), ("Content-Length", "300000")]) + large, CLOSE
    )
    async with WireClient(near.port) as client:
        client.post(PATH, chat())
        assert not (await client.reply()).ended
