"""A client that leaves takes its request with it: the server's connection ends, in prefill too."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio

from octoroute.demo import Request, SimulatedServer, Step
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config, full_port
from tests.end_to_end.processes import until
from tests.end_to_end.test_observability import scrape_until
from tests.end_to_end.wire_client import WireClient, chat, converse

PATH = "/v1/chat/completions"
NOTICE_S = 20.0  # far over what it takes, far under what the answers would take


def close(client: WireClient) -> None:
    client.writer.close()


def half_close(client: WireClient) -> None:
    client.half_close()


def reset(client: WireClient) -> None:
    sock: socket.socket = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


Leave = Callable[[WireClient], None]
LEAVES = pytest.mark.parametrize("leave", [close, half_close, reset])


@dataclass
class Fleet:
    server: SimulatedServer
    port: int

    def gone(self) -> bool:
        return self.server.completions[-1].left_at is not None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    """A vLLM server: it shows at once that the gateway has left it."""
    server = await serve_module("vllm", tokens_per_second=20, answer_tokens=10_000)
    gateway = await gateway_module(fleet_config([server], server={"request_timeout_seconds": 60}))
    return Fleet(server, gateway.port)


async def _arrival(fleet: Fleet, before: int) -> None:
    await fleet.server.wait_for(lambda: len(fleet.server.completions) > before and fleet.server.active > 0)


@LEAVES
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_leaving_before_the_first_token_ends_the_servers_work(
    fleet: Fleet, leave: Leave, stream: bool
) -> None:
    fleet.server.engine.prefill_seconds = 30.0
    before = len(fleet.server.completions)
    async with WireClient(fleet.port) as client:
        client.post(PATH, chat(stream=stream, max_tokens=10_000))
        await _arrival(fleet, before)
        leave(client)
        await fleet.server.wait_for(fleet.gone, timeout=NOTICE_S)
    await fleet.server.wait_for(lambda: fleet.server.active == 0)


@LEAVES
async def test_leaving_in_mid_stream_ends_the_servers_work(fleet: Fleet, leave: Leave) -> None:
    fleet.server.engine.prefill_seconds = 0.0
    async with WireClient(fleet.port) as client:
        client.post(PATH, chat(stream=True, max_tokens=10_000))
        await client.head()
        await client.data()
        leave(client)
        await fleet.server.wait_for(fleet.gone, timeout=NOTICE_S)
    await fleet.server.wait_for(lambda: fleet.server.active == 0)


async def test_leaving_while_the_server_is_silent_ends_its_work(fleet: Fleet) -> None:
    for fault in ("stall-before-head", "stall-after-head", "stall-mid-stream"):
        fleet.server.engine.prefill_seconds = 0.0
        fleet.server.set_fault(fault, once=True)
        before = len(fleet.server.completions)
        async with WireClient(fleet.port) as client:
            client.post(PATH, chat(stream=True, max_tokens=10_000))
            await _arrival(fleet, before)
            if fault == "stall-mid-stream":
                await client.head()
            close(client)
            await fleet.server.wait_for(fleet.gone, timeout=NOTICE_S)


async def test_the_next_client_is_served(fleet: Fleet) -> None:
    fleet.server.engine.prefill_seconds = 0.0
    assert (await converse(fleet.port, max_tokens=2)).status == 200


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_client_that_leaves_gives_its_place_back(
    serve: StartServer, gateway: StartGateway, stream: bool
) -> None:
    """On a new connection to the server, on one that was used before, and between two attempts."""
    first, second = await serve("vllm", model="twin"), await serve("vllm", model="twin")
    places = [endpoint(first, priority=2, max_in_flight=1), endpoint(second, max_in_flight=1)]
    gate = await gateway(fleet_config(places, health={"failures": 1000}))
    second.engine.prefill_seconds = 30.0
    for fault in (None, None, "status-500", "reset-before-head"):
        first.engine.prefill_seconds = 30.0
        first.set_fault(fault)
        async with WireClient(gate.port) as client:
            client.post(PATH, chat(stream=stream))
            asked = second if fault else first
            await asked.wait_for(lambda asked=asked: asked.engine.processing == 1)  # type: ignore[misc]
        await asked.wait_for(lambda asked=asked: asked.engine.processing == 0)  # type: ignore[misc]
        first.engine.prefill_seconds = 0.0
        first.set_fault(None)
        for _ in range(2):  # plain answers, whose connections are used again
            assert (await converse(gate.port)).status == 200
    assert len(second.completions) == 2


async def test_a_client_that_leaves_while_the_server_is_connected_to_gives_its_place_back(
    gateway: StartGateway, serve: StartServer
) -> None:
    spare = await serve("vllm")
    with full_port() as (_, _, base_url):
        one = await gateway(
            fleet_config(
                [endpoint(spare, base_url=base_url)],
                health={"interval_seconds": 3600.0},
                timeouts={"connect_seconds": 300.0},
            )
        )
        async with WireClient(one.port) as client:
            client.post(PATH, chat())
            await scrape_until(one.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 1)
        await scrape_until(one.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 0)
        await until(lambda: "result=client_gone" in one.log)


async def test_a_reader_that_stops_reading_stops_the_server(
    serve: StartServer, gateway: StartGateway
) -> None:
    """Back-pressure: what a client does not read is not collected in the gateway without end."""
    server = await serve("vllm")
    gate = await gateway(fleet_config([server]))
    piece = b'10000\r\ndata: {"x":"' + b"y" * (0x10000 - 16) + b'"}\n\n\r\n'
    sent = 0

    async def endless(_: Request) -> AsyncIterator[Step]:
        nonlocal sent
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        while True:
            sent += len(piece)
            yield piece

    server.script(endless)
    async with WireClient(gate.port) as client:
        client.post(PATH, chat(stream=True))
        await client.head()
        seen = -1
        while sent != seen:  # until nothing has moved for a while
            seen = sent
            await asyncio.sleep(0.3)
        assert sent < 64 << 20
    await server.wait_for(lambda: server.active == 0)
