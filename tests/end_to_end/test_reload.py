"""A reload changes everything but the sockets, and nobody who is being served notices."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import ROOT, Gateway, endpoint, fleet_config
from tests.end_to_end.ports import free_port
from tests.end_to_end.processes import (
    PATH,
    Held,
    Stream,
    open_files,
    probed,
    reload,
    rewrite,
    until,
    worker_at,
    workers,
)
from tests.end_to_end.wire_client import WireClient, chat, converse, fetch

WHOLE = Held.FIRST + Held.LAST
TWO = {"workers": 2}
# Of the gateway's own questions there is one for each config, a probe.
ONCE = {"interval_seconds": 3600.0, "load_interval_seconds": 0}
RELOADS = 100


async def names(port: int) -> set[str]:
    return {entry["id"] for entry in (await fetch(port, "/v1/models")).json["data"]}


async def closed(server: SimulatedServer) -> None:
    """Returns when nothing holds a connection to it any more."""
    await server.wait_for(lambda: server.connections.open == 0)


async def by_each_worker(port: int, look: Callable[[int], Awaitable[set[str]]]) -> list[set[str]]:
    """What is seen on enough connections to have met both workers."""
    return list(await asyncio.gather(*(look(port) for _ in range(24))))


async def test_a_hundred_reloads_harm_no_stream_and_no_request(
    serve: StartServer, gateway: StartGateway
) -> None:
    """Weights change, servers come and go; requests are sent all the time, and streams outlive it all."""
    slow = await serve("vllm", "slow", idle_seconds=3600.0)
    held = Held(slow)
    servers = [
        await serve(kind, f"model-{at}", idle_seconds=3600.0)
        for at, kind in enumerate(("vllm", "llama_cpp", "vllm"))
    ]

    def config(at: int) -> str:
        """`model-0` is always there, the others come and go; `slow` is there for a while."""
        fast = [endpoint(servers[0], weight=1.0 + at)]
        fast += [endpoint(server, weight=3.0) for bit, server in enumerate(servers[1:]) if at >> bit & 1]
        return fleet_config(
            fast,
            [slow] if at < RELOADS // 2 else [endpoint(servers[0], name="balanced-one")],
            [endpoint(servers[0], name="deep-one")],
            server=TWO,
            retry={"attempts": 1},
        )

    one = await gateway(config(3))
    over = asyncio.Event()

    async def keep_asking(number: int) -> list[int]:
        seen: list[int] = []
        async with WireClient(one.port) as client:
            while not over.is_set():
                client.post(PATH, chat(f"hello {number}", stream=len(seen) % 2 == 0, max_tokens=4))
                reply = await client.reply()
                assert reply.ended
                seen.append(reply.status)
        return seen

    async with AsyncExitStack() as stack:
        streams = [await Stream.open(stack, one.port, "balanced") for _ in range(8)]
        askers = [asyncio.create_task(keep_asking(number)) for number in range(4)]
        for at in range(RELOADS):
            reply = await reload(one, config(at))
            assert reply.status == 200, reply.body
            assert reply.json["workers"] == {"reloaded": 2, "total": 2}
        over.set()
        for statuses in await asyncio.gather(*askers):
            assert set(statuses) == {200}
        held.go.set()
        assert await asyncio.gather(*(stream.rest() for stream in streams)) == [WHOLE] * 8
    # The last config has no `slow`; no connection outlives the last stream, and none that was idle is left.
    await closed(slow)
    await reload(one, fleet_config([await serve("vllm", "another")], server=TWO))
    for server in servers:
        await closed(server)
    # Every request has given its place back, in whichever worker it was.
    told = (await fetch(one.port, "/admin/status")).json
    assert [entry["in_flight"] for entry in told["endpoints"]] == [0] * 3
    for pid in (one.process.pid, *workers(one)):
        assert not [file for file in open_files(pid) if "octoroute-config" in file]
    assert "WARN" not in one.log


async def test_idle_connections_to_a_server_that_left_are_closed_at_once(
    serve: StartServer, gateway: StartGateway
) -> None:
    stays, leaves = [await serve("vllm", name, idle_seconds=3600.0) for name in ("stays", "leaves")]
    one = await gateway(fleet_config([stays], [leaves], health=ONCE))
    await probed(one, "stays", "leaves")
    assert (await converse(one.port, model="leaves")).status == 200
    assert (await converse(one.port, model="stays")).status == 200
    assert (leaves.connections.open, stays.connections.open) == (1, 1)
    answer = (await reload(one, fleet_config([endpoint(stays, weight=2.0)], health=ONCE))).json
    assert answer["endpoints"] == {
        "added": ["balanced/nobody-balanced"],
        "removed": ["balanced/leaves"],
        "changed": ["fast/stays"],
    }
    await leaves.wait_for(lambda: leaves.connections.open == 0)
    assert (await converse(one.port, model="leaves")).status == 400
    # A probe has a connection of its own; the request goes over the one that was there.
    assert (await converse(one.port, model="stays")).status == 200
    posts = [request.connection for request in stays.completions]
    assert posts[0] == posts[1]


async def test_a_plain_request_to_a_server_that_left_is_still_answered_by_it(
    serve: StartServer, gateway: StartGateway
) -> None:
    leaves, comes = await serve("vllm", "leaves", idle_seconds=3600.0), await serve("vllm", "comes")
    held = Held(leaves)
    one = await gateway(fleet_config([leaves]))
    running = asyncio.create_task(converse(one.port))
    await leaves.wait_for(lambda: bool(leaves.completions))
    assert (await reload(one, fleet_config([comes]))).status == 200
    assert (await converse(one.port)).json_model() == "comes"
    held.go.set()
    assert (await running).text == "first last"
    await leaves.wait_for(lambda: leaves.connections.open == 0)


async def test_a_bad_file_changes_nothing_and_the_answer_says_why(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "good")
    one = await gateway(fleet_config([server], server=TWO))
    before = await names(one.port)
    bad = fleet_config([endpoint(server, name="other", weight=-1)], server={**TWO, "max_mesages": 3})
    reply = await reload(one, bad)
    assert (reply.status, reply.error["code"]) == (422, "invalid_config")
    for part in ("nothing was changed", "models.fast[0].weight", "max_mesages"):
        assert part in reply.error["message"]
    assert await by_each_worker(one.port, names) == [before] * 24
    assert (await converse(one.port)).status == 200
    (one.folder / "config.toml").unlink()
    one.process.send_signal(signal.SIGHUP)
    await until(lambda: "nothing was changed" in one.log.rpartition("invalid_config")[2])
    assert await names(one.port) == before


@pytest.mark.parametrize("how", ["SIGHUP", "command"])
async def test_all_workers_follow(serve: StartServer, gateway: StartGateway, how: str) -> None:
    server = await serve("vllm")
    one = await gateway(fleet_config([endpoint(server, name="before")], server=TWO))
    rewrite(one, fleet_config([endpoint(server, name="after")], server=TWO))
    if how == "SIGHUP":
        one.process.send_signal(signal.SIGHUP)
        await until(lambda: "2 of 2 workers use the new config" in one.log)
    else:
        code, said = await command(one)
        assert (code, said.splitlines()[0]) == (0, "2 of 2 workers use the new config.")
        assert "servers added: fast/after" in said
    for found in await by_each_worker(one.port, names):
        assert "after" in found
        assert "before" not in found


async def command(gateway: Gateway, name: str = "reload") -> tuple[int, str]:
    """`octoroute reload`, or another: its exit code and what it prints."""
    arguments = [sys.executable, "-m", "octoroute", name, "--config", str(gateway.folder / "config.toml")]
    done = await asyncio.to_thread(
        subprocess.run, arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


async def test_the_command_says_when_nobody_answers(serve: StartServer, gateway: StartGateway) -> None:
    one = await gateway(fleet_config([await serve("vllm")]))
    port = free_port()
    path = one.folder / "config.toml"
    path.write_text(path.read_text().replace(f"port = {one.port}", f"port = {port}"))
    code, said = await command(one)
    assert code == 1
    assert f"no gateway answers at 127.0.0.1 port {port}: connection refused" in said


async def test_keys_that_need_a_restart_keep_their_value_and_are_named(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    one = await gateway(fleet_config([server], server=TWO))
    other = {"workers": 1, "host": "localhost", "max_messages": 1}
    answer = (await reload(one, fleet_config([server], server=other))).json
    assert answer["needs_restart"] == ["server.host", "server.workers"]
    assert answer["changed"] == ["server.max_messages"]
    assert "server.workers has changed, but keeps its value until a restart" in one.log
    assert len(workers(one)) == 2
    two_messages = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert (await converse(one.port, messages=two_messages)).status == 400


async def test_a_worker_that_starts_later_has_the_new_config(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    one = await gateway(fleet_config([endpoint(server, name="before")]))
    first = await worker_at(one.port)
    assert (await reload(one, fleet_config([endpoint(server, name="after")]))).status == 200
    [pid] = workers(one)
    rewrite(one, "what is in the file by now is not asked for")
    os.kill(pid, signal.SIGKILL)
    assert await worker_at(one.port) != first
    assert "after" in await names(one.port)


async def test_health_and_log_settings_follow_too(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm")
    one = await gateway(fleet_config([server], health=ONCE))
    await server.wait_for(lambda: probes(server) == 1)
    other = fleet_config(
        [server],
        health={**ONCE, "path": "/models?new"},
        observability={"log_format": "json"},
    )
    assert (await reload(one, other)).status == 200
    await server.wait_for(lambda: probes(server) == 2)
    assert server.requests[-1].target == "/v1/models?new"
    await converse(one.port)
    await until(lambda: '"logger":"octoroute.request"' in one.log)


def probes(server: SimulatedServer) -> int:
    return len(server.requests) - len(server.completions)
