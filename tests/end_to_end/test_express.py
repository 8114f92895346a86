"""Ordinary requests take a road of their own: a client can't tell it from aiohttp's."""

import re
from typing import Any

import pytest
import pytest_asyncio

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config
from tests.end_to_end.wire_client import Reply, WireClient, chat

PATH = "/v1/chat/completions"
# With a query a request is no ordinary one.
ROADS = {"ordinary": PATH, "by aiohttp": f"{PATH}?a=1"}
PASSING = {"x-request-id", "x-octoroute-overhead-ms", "content-length", "date"}
BODY = b'{"model":"fast","messages":[{"role":"user","content":"hello"}]}'
HEAD = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def port(serve_module: StartServer, gateway_module: StartGateway) -> int:
    return (await gateway_module(fleet_config([await serve_module("vllm")]))).port


def seen(reply: Reply) -> tuple[Any, ...]:
    """What a client sees of an answer, but for what differs from request to request."""
    said = reply.text if reply.status == 200 else reply.error
    return reply.status, {k: v for k, v in reply.headers.items() if k not in PASSING}, said, reply.ended


@pytest.mark.parametrize(
    "fields",
    [
        chat("hello"),
        chat("hello", stream=True),
        chat("hello", "auto"),
        chat("hello", "nobody"),
        chat(" "),
        chat("hello", temperature=3),
        {"model": "fast"},
        [],
    ],
    ids=["plain", "stream", "auto", "unknown model", "blank", "out of range", "no messages", "no object"],
)
async def test_both_roads_answer_alike(port: int, fields: Any) -> None:
    got = []
    for path in ROADS.values():
        async with WireClient(port) as client:
            client.post(path, fields)
            first = seen(await client.reply())
            # The connection is as good as before.
            client.post(path, fields)
            assert seen(await client.reply()) == first
            got.append(first)
    assert got[0] == got[1]


async def test_the_roads_may_take_turns_on_a_connection(port: int) -> None:
    async with WireClient(port) as client:
        for path in (PATH, f"{PATH}?a", PATH, "/health", f"{PATH}?a", PATH):
            if path == "/health":
                client.get(path)
            else:
                client.post(path, chat("hello", stream=True))
            assert (await client.reply()).status == 200


@pytest.mark.parametrize("first", [0, 1, 30, len(BODY) - 1])
async def test_a_body_may_come_in_pieces(port: int, first: int) -> None:
    async with WireClient(port) as client:
        client.send_raw(HEAD % (PATH.encode(), len(BODY)) + BODY[:first])
        await client.writer.drain()
        # An answer to another request shows that the gateway has read the first piece.
        async with WireClient(port) as other:
            other.post(PATH, chat())
            await other.reply()
        client.send_raw(BODY[first:])
        assert (await client.unasked_reply()).status == 200


async def test_requests_that_come_ahead_of_their_turn_are_answered_in_order(port: int) -> None:
    ordinary = HEAD % (PATH.encode(), len(BODY)) + BODY
    bad = HEAD % (PATH.encode(), 2) + b"{}"
    last = HEAD.replace(b"Host: a", b"Host: a\r\nConnection: close") % (PATH.encode(), len(BODY)) + BODY
    async with WireClient(port) as client:
        client.send_raw(HEAD % (PATH.encode(), len(BODY)) + BODY[:10])
        await client.writer.drain()
        client.send_raw(BODY[10:] + ordinary + bad + ordinary + last)
        got = await client.read_raw()
    assert re.findall(rb"HTTP/1.1 (\d+)", got) == [b"200", b"200", b"400", b"200", b"200"]


async def test_a_long_answer_outlives_the_time_that_an_idle_connection_is_kept(
    serve: StartServer, gateway: StartGateway
) -> None:
    config = fleet_config([await serve("vllm", prefill_seconds=1.2)], server={"keepalive_seconds": 0.8})
    async with WireClient((await gateway(config)).port) as client:
        for _ in range(2):
            client.post(PATH, chat("hello", stream=True))
            reply = await client.reply()
            assert (reply.status, reply.ended) == (200, True)
        # And then it is closed, not kept for ever.
        assert await client.read_raw() == b""


@pytest.mark.parametrize("path", ROADS.values(), ids=ROADS)
async def test_an_error_says_how_its_request_was_routed(port: int, path: str) -> None:
    async with WireClient(port) as client:
        # Nobody listens where the config has the deep tier.
        client.post(path, chat("hello", "deep"))
        reply = await client.reply()
    # 503, and no attempt, once it has failed too often.
    assert reply.status in (502, 503)
    told = {name: value for name, value in reply.headers.items() if name.startswith("x-octoroute-")}
    assert int(told.pop("x-octoroute-attempts")) <= 3
    assert told == {
        "x-octoroute-tier": "deep",
        "x-octoroute-strategy": "rule",
        "x-octoroute-reason": "named",
    }
