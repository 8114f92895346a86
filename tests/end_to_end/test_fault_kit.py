"""`octoroute demo servers` and `octoroute demo check`, as somebody with another gateway would use them."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import h11
import orjson
import pytest

from octoroute.demo import FAULTS, SimulatedServer
from octoroute.demo.checking import CASES, Case, Check, GatewayMissingError, Place, Row
from octoroute.demo.client import Target
from octoroute.demo.judging import Verdict
from octoroute.demo.report import bad, markdown, total
from octoroute.demo.serving import FaultRoute
from tests.end_to_end.conftest import StartServer
from tests.end_to_end.fleet import ROOT
from tests.end_to_end.ports import free_port
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat, converse

ONE_STREAM, BOTH_PLAIN = Case(Place.ONE, True), Case(Place.BOTH, False)


async def _command(*arguments: str) -> Process:
    command = [sys.executable, "-m", "octoroute", "demo", *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, cwd=ROOT)


async def _send(port: int, method: str, path: str) -> Reply:
    async with WireClient(port) as client:
        client.get(path, method)
        return await client.reply()


class Pipe:
    """The simplest gateway: a connection for each connection, to the next server in turn."""

    def __init__(self, *servers: SimulatedServer) -> None:
        self._servers = servers
        self._turn = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        server = self._servers[self._turn % len(self._servers)]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", server.port)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(self._copy(reader, back), self._copy(there, writer))
        finally:
            writer.close()
            back.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
            sink.close()
        except OSError:
            sink.close()


class Wary(Pipe):
    """Takes its servers for dead at first."""

    def __init__(self, *servers: SimulatedServer) -> None:
        super().__init__(*servers)
        self.refusals = 3

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.refusals:
            return await super().serve(reader, writer)
        self.refusals -= 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
        return None


@asynccontextmanager
async def _piped(*servers: SimulatedServer, kind: type[Pipe] = Pipe) -> AsyncIterator[Check]:
    pipe = await asyncio.start_server(kind(*servers).serve, "127.0.0.1", 0)
    port = pipe.sockets[0].getsockname()[1]
    try:
        target = Target(f"http://127.0.0.1:{port}", servers[0].model)
        yield Check(servers, target, patience_s=1.0, settle_s=0.5)
    finally:
        pipe.close()


async def _rows(check: Check, *names: str) -> dict[str, Row]:
    return {row.name: row async for row in check.run(names)}


async def test_a_gateway_that_only_copies_is_seen_through(serve: StartServer) -> None:
    servers = [await serve("vllm", wide=True) for _ in range(2)]
    async with _piped(*servers) as check:
        rows = await _rows(
            check,
            "reset-before-head",
            "close-mid-stream",
            "stall-mid-stream",
            "status-500",
            "empty-200",
            "refuse",
        )
    found = {
        (name, case): judgement.verdict
        for name, row in rows.items()
        for case, judgement in row.judgements.items()
        if judgement is not None
    }
    assert found["reset-before-head", ONE_STREAM] is Verdict.CUT
    assert found["close-mid-stream", ONE_STREAM] is Verdict.CUT
    assert found["stall-mid-stream", ONE_STREAM] is Verdict.HANG
    assert found["status-500", BOTH_PLAIN] is Verdict.ERROR
    assert found["empty-200", ONE_STREAM] is Verdict.SILENTLY_CUT
    assert found["refuse", ONE_STREAM] is Verdict.CUT
    assert len(found) == len(rows) * len(CASES)
    assert "stall-mid-stream, one of two, stream: HANGS" in bad(rows.values())
    assert "| **HANGS** |" in markdown(list(rows.values()))
    assert total(list(rows.values())).startswith("6 faults, 24 cases: ")


async def test_what_a_gateway_never_does_is_not_met(serve: StartServer) -> None:
    servers = [await serve("vllm", wide=True) for _ in range(2)]
    async with _piped(*servers) as check:
        rows = await _rows(check, "closes-idle")
    assert set(rows["closes-idle"].judgements.values()) == {None}


async def test_a_gateway_that_is_not_there_or_not_in_front_of_the_servers_is_told(serve: StartServer) -> None:
    mine, other = await serve("vllm", seed=1), await serve("vllm", seed=2)
    for port, words in ((free_port(), "nobody answers"), (other.port, "did not pass on")):
        check = Check([mine], Target(f"http://127.0.0.1:{port}", mine.model), patience_s=2, settle_s=1)
        with pytest.raises(GatewayMissingError, match=words):
            await _rows(check, "status-500")


async def test_a_gateway_that_takes_its_servers_for_dead_at_first_is_waited_for(serve: StartServer) -> None:
    servers = [await serve("vllm", wide=True) for _ in range(2)]
    async with _piped(*servers, kind=Wary) as check:
        rows = await _rows(check, "no-done")
    found = rows["no-done"].judgements[ONE_STREAM]
    assert found is not None
    assert found.verdict is Verdict.SAME_NO_DONE


async def test_a_gateway_that_is_gone_in_the_middle_is_told(serve: StartServer) -> None:
    servers = [await serve("vllm", wide=True) for _ in range(2)]
    pipe = await asyncio.start_server(Pipe(*servers).serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{pipe.sockets[0].getsockname()[1]}"
    check = Check(servers, Target(url, servers[0].model), patience_s=1.0, settle_s=0.5)
    rows = check.run(["no-done", "status-400"])
    assert (await anext(rows)).name == "no-done"
    pipe.close()
    with pytest.raises(GatewayMissingError, match="any more"):
        await anext(rows)


async def test_the_command_checks_an_octoroute_of_its_own() -> None:
    names = "reset-mid-stream,refuse,status-500,no-done"
    process = await _command("check", "--only", names, "--patience", "10")
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert "4 faults, 16 cases: " in said
    assert all(name in said for name in names.split(","))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "flood"], "there is no fault 'flood'"),
        (["--listen", "127.0.0.1:1,2,3"], "takes two addresses"),
        (["--listen", "8000,8001"], "an address is HOST:PORT"),
        (["--patience", "0"], "over 0 to 3600 seconds"),
    ],
)
async def test_wrong_usage_of_the_check_is_told(arguments: list[str], words: str) -> None:
    process = await _command("check", *arguments)
    said = (await process.communicate())[0].decode()
    assert (process.returncode, words in said) == (2, True), said


async def test_the_command_for_servers_says_how_to_use_them_and_ends_in_order() -> None:
    first, second = free_port(), free_port()
    process = await _command("servers", "--listen", f"127.0.0.1:{first},{second}", "--kind", "llama_cpp")
    assert process.stdout is not None
    said = b""
    while b"Ctrl-C ends it." not in said:
        said += (line := await process.stdout.readline())
        assert line, said
    assert f"http://127.0.0.1:{second}/v1".encode() in said
    assert (await converse(second)).status == 200
    assert (await converse(second, "hello fault:status-502")).status == 502
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_a_fault_is_chosen_by_words_in_the_request(serve: StartServer) -> None:
    server = await serve("llama_cpp")
    FaultRoute(server)
    assert (await converse(server.port, "hello fault:status-500, please")).status == 500
    assert (await ask(server.port, fields=chat(model="fault:status-429"))).status == 429
    assert (await converse(server.port, "hello fault:nonsense")).status == 200
    with pytest.raises((h11.RemoteProtocolError, ConnectionError)):
        await converse(server.port, "hello fault:reset-before-head")


async def test_a_fault_is_set_by_the_servers_own_route(serve: StartServer) -> None:
    server = await serve("llama_cpp")
    FaultRoute(server)
    assert set((await _send(server.port, "GET", "/faults")).json) == set(FAULTS)
    assert (await _send(server.port, "PUT", "/faults/status-500?count=1")).status == 200
    assert [(await converse(server.port)).status for _ in range(2)] == [500, 200]
    assert (await _send(server.port, "PUT", "/faults/status-500")).status == 200
    assert [(await converse(server.port)).status for _ in range(2)] == [500, 500]
    assert (await _send(server.port, "DELETE", "/faults")).status == 200
    assert (await converse(server.port)).status == 200
    for path, status in (
        ("/faults/flood", 404),
        ("/faults/refuse?count=0", 400),
        ("/faults/refuse?count=1", 400),
    ):
        reply = await _send(server.port, "PUT", path)
        assert (reply.status, "error" in orjson.loads(reply.body)) == (status, True)
    assert (await _send(server.port, "OPTIONS", "/faults")).status == 405


async def test_a_port_that_refuses_by_the_route_opens_by_itself(serve: StartServer) -> None:
    server = await serve("llama_cpp")
    FaultRoute(server)
    assert (await _send(server.port, "PUT", "/faults/refuse?seconds=0.2")).status == 200
    with pytest.raises(ConnectionRefusedError):
        await converse(server.port)
    while True:
        try:
            assert (await converse(server.port)).status == 200
            return
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
