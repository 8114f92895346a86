"""SIGTERM: nothing new is taken, what runs ends whole, and no client is cut that could be served."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import STOP_SECONDS, Gateway, fleet_config
from tests.end_to_end.processes import PATH, Held, Stream, ended, refuses, until, workers
from tests.end_to_end.wire_client import WireClient, chat

TLS = Path(__file__).parent / "tls"
WHOLE = Held.FIRST + Held.LAST
# The kernel deals connections out at random: one of two workers has none of so many in 1 of 10 million runs.
STREAMS = 24


@dataclass
class Fleet:
    """A gateway in front of a server whose answers end when the test says so. How it ends is looked at."""

    server: SimulatedServer
    held: Held
    gateway: Gateway
    stack: AsyncExitStack

    @property
    def port(self) -> int:
        return self.gateway.port

    async def client(self) -> WireClient:
        return await self.stack.enter_async_context(WireClient(self.port))

    def told(self) -> None:
        self.gateway.process.terminate()

    async def code(self) -> int:
        return await asyncio.to_thread(self.gateway.process.wait, STOP_SECONDS)


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(serve: StartServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    server = await serve("vllm")
    gateway = Gateway(tmp_path / "gateway")
    await gateway.start(fleet_config([server], server={"workers": 2, "drain_seconds": 60}))
    async with AsyncExitStack() as stack:
        try:
            yield Fleet(server, Held(server), gateway, stack)
        finally:
            gateway.kill()
    assert "Traceback" not in gateway.log, gateway.log


async def test_streams_that_run_end_whole_while_new_connections_are_refused(fleet: Fleet) -> None:
    streams = await asyncio.gather(*(Stream.open(fleet.stack, fleet.port) for _ in range(STREAMS)))
    assert len({stream.worker for stream in streams}) == 2
    fleet.told()
    await refuses(fleet.port)
    assert fleet.gateway.process.poll() is None
    fleet.held.go.set()
    assert await asyncio.gather(*(stream.rest() for stream in streams)) == [WHOLE] * STREAMS
    assert await fleet.code() == 0


async def test_an_answer_that_ends_after_the_signal_tells_its_client_to_close(fleet: Fleet) -> None:
    client = await fleet.client()
    client.post(PATH, chat())
    await fleet.server.wait_for(lambda: fleet.server.active > 0)
    fleet.told()
    await refuses(fleet.port)
    fleet.held.go.set()
    reply = await client.reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await client.read_raw() == b""
    assert await fleet.code() == 0


async def test_a_request_body_that_is_still_arriving_is_read_to_its_end(fleet: Fleet) -> None:
    fleet.held.go.set()
    body = b'{"model":"fast","messages":[{"role":"user","content":"hello"}]}'
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    client = await fleet.client()
    client.send_raw(head % (PATH.encode(), len(body)) + body[:20])
    other = await Stream.open(fleet.stack, fleet.port)
    await other.rest()
    fleet.told()
    await refuses(fleet.port)
    client.send_raw(body[20:])
    reply = await client.unasked_reply()
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert await fleet.code() == 0


async def test_idle_connections_are_closed(fleet: Fleet) -> None:
    fresh, used = await fleet.client(), await fleet.client()
    used.get("/health")
    assert "connection" not in (await used.reply()).headers
    fleet.told()
    assert set(await asyncio.gather(fresh.read_raw(), used.read_raw())) == {b""}
    assert await fleet.code() == 0


@pytest.mark.parametrize("known", [True, False], ids=["kept-alive", "not yet accepted"])
async def test_a_request_that_comes_in_the_last_moment_is_served(fleet: Fleet, known: bool) -> None:
    """The workers sleep while the request and the signal come, so that they find both at once."""
    clients = []
    if known:
        for _ in range(8):
            clients.append(await fleet.client())
            clients[-1].get("/health")
            await clients[-1].reply()
    asleep = workers(fleet.gateway)
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    if not known:
        clients = [await fleet.client() for _ in range(8)]
    fleet.held.go.set()
    for client in clients:
        client.post(PATH, chat())
        await client.writer.drain()
    fleet.told()
    # The supervisor is awake: when it says so, it has closed its sockets and passed the signal on.
    await until(lambda: "octoroute ends" in fleet.gateway.log)
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    replies = await asyncio.gather(*(client.reply() for client in clients))
    # One that was answered just before the worker took notice of the signal is not told.
    told = {(reply.status, reply.headers.get("connection")) for reply in replies}
    assert told <= {(200, "close"), (200, None)}
    assert {await client.read_raw() for client in clients} == {b""}
    assert await fleet.code() == 0


async def test_clients_that_ask_one_after_the_other_are_all_told(fleet: Fleet) -> None:
    fleet.held.go.set()
    asked = 0

    async def ask_until_told() -> str:
        nonlocal asked
        client = await fleet.client()
        while True:
            client.post(PATH, chat(stream=asked % 2 == 0))
            reply = await client.reply()
            assert (reply.status, reply.ended) == (200, True)
            asked += 1
            if "connection" in reply.headers:
                return reply.headers["connection"]
            await asyncio.sleep(0.1)  # what a client does between two requests

    clients = [asyncio.create_task(ask_until_told()) for _ in range(16)]
    await until(lambda: asked > 16)
    fleet.told()
    assert await asyncio.gather(*clients) == ["close"] * 16
    assert await fleet.code() == 0


async def test_a_tls_handshake_that_has_begun_ends_in_an_answer(
    serve: StartServer, gateway: StartGateway
) -> None:
    """The client is connected, and slow with the rest."""
    tls = {"tls_cert": str(TLS / "one.pem"), "tls_key": str(TLS / "one.key")}
    one = await gateway(fleet_config([await serve("vllm")], server=tls))
    assert one.tls is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    # Accepted after the first.
    _, second = await asyncio.open_connection("127.0.0.1", one.port, ssl=one.tls)
    second.close()
    await second.wait_closed()
    one.process.terminate()
    await refuses(one.port)
    await writer.start_tls(one.tls)
    writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()
    assert await asyncio.to_thread(one.process.wait, STOP_SECONDS) == 0


async def test_a_worker_that_hangs_is_killed_in_the_end(serve: StartServer, gateway: StartGateway) -> None:
    """After server.drain_seconds, and five more."""
    one = await gateway(fleet_config([await serve("vllm")], server={"workers": 2, "drain_seconds": 0.1}))
    hung, _ = workers(one)
    os.kill(hung, signal.SIGSTOP)
    one.process.terminate()
    assert await asyncio.to_thread(one.process.wait, STOP_SECONDS) == 0
    await ended(hung)
    assert "1 workers did not end in time and are killed" in one.log


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_at_once(fleet: Fleet, number: int, code: int) -> None:
    await Stream.open(fleet.stack, fleet.port)
    pids = workers(fleet.gateway)
    fleet.gateway.process.send_signal(number)
    await refuses(fleet.port)
    fleet.gateway.process.send_signal(number)
    assert await fleet.code() == code
    await asyncio.gather(*map(ended, pids))


async def test_what_outlives_drain_seconds_is_cut(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm")
    Held(server)
    one = await gateway(fleet_config([server], server={"drain_seconds": 0.2}))
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        one.process.terminate()
        assert await asyncio.to_thread(one.process.wait, STOP_SECONDS) == 0
    assert "1 connections were still busy after 0.2 s and are cut" in one.log
    assert "did not end in time" not in one.log
