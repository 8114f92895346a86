"""A new process of the installed program takes over: no connection is refused, no stream is cut."""

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from octoroute import __version__
from tests.end_to_end.conftest import StartServer
from tests.end_to_end.fleet import STOP_SECONDS, fleet_config
from tests.end_to_end.generations import Start, Ticking, counted
from tests.end_to_end.ports import free_port
from tests.end_to_end.processes import (
    PATH,
    Held,
    Stream,
    children,
    ended,
    refuses,
    rewrite,
    until,
    worker_at,
)
from tests.end_to_end.test_reload import command
from tests.end_to_end.wire_client import WireClient, chat, converse

WHOLE = Held.FIRST + Held.LAST
TWO = {"workers": 2}


@pytest_asyncio.fixture(loop_scope="session")
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:
        yield Start(stack, tmp_path)


@pytest.mark.parametrize(("upgrades", "streams"), [(4, 40), pytest.param(100, 200, marks=pytest.mark.long)])
async def test_upgrades_break_no_stream_and_refuse_nobody(
    serve: StartServer, start: Start, upgrades: int, streams: int
) -> None:
    """Half of the streams run through all of them, half end and begin anew; others ask all the time, over one
    connection or a new one each time.
    """
    server, ticking = await serve("vllm"), Ticking()
    server.script(ticking.play)
    one = await start(fleet_config([server], server=TWO, retry={"attempts": 1}))
    port = one.gateway.port
    over = asyncio.Event()

    async def come_anew() -> int:
        asked = 0
        while not over.is_set():
            assert (await converse(port)).status == 200
            asked += 1
        return asked

    async def stay() -> int:
        asked = 0
        while not over.is_set():
            async with WireClient(port) as client:
                while not over.is_set():
                    client.post(PATH, chat())
                    reply = await client.reply()
                    assert (reply.status, reply.ended) == (200, True)
                    asked += 1
                    if reply.headers.get("connection") == "close":
                        break
        return asked

    async def stream_anew() -> int:
        asked = 0
        while not over.is_set():
            assert await counted(port, asyncio.Event(), 100) <= 101
            asked += 1
        return asked

    begun = [asyncio.Event() for _ in range(streams // 2)]
    long = [asyncio.create_task(counted(port, event)) for event in begun]
    await asyncio.gather(*(event.wait() for event in begun))
    askers = [asyncio.create_task(each()) for each in (come_anew, come_anew, stay, stay)]
    askers += [asyncio.create_task(stream_anew()) for _ in range(streams // 2)]
    for at in range(upgrades):
        await (one.upgrade() if at % 2 == 0 else one.signalled())
        for asker in askers:
            assert not asker.done(), asker.exception()
    assert len(one.pids) == upgrades + 1
    # The first process lives for its streams alone.
    assert one.gateway.process.poll() is None
    await asyncio.gather(*map(ended, one.pids[1:-1]))
    over.set()
    ticking.stop.set()
    ticks = await asyncio.gather(*long)
    asked = await asyncio.gather(*askers)
    assert min(ticks) > upgrades
    assert min(asked) > 0
    await ended(one.pids[0])
    print(f"{upgrades} upgrades; {len(ticks)} streams through all of them with {sum(ticks)} events;")
    print(f"{sum(asked[4:])} shorter streams; {sum(asked[:4])} plain requests")


async def test_a_process_that_was_replaced_says_so_to_who_asks_it_for_a_reload_or_an_upgrade(
    serve: StartServer, start: Start
) -> None:
    one = await start(fleet_config([await serve("vllm")], server=TWO))
    async with WireClient(one.gateway.port) as first, WireClient(one.gateway.port) as second:
        for client in (first, second):
            client.get("/health")
            assert (await client.reply()).status == 200
        await one.upgrade()
        for client, path in ((first, "/admin/reload"), (second, "/admin/upgrade")):
            client.post(path, {})
            reply = await client.reply()
            assert (reply.status, reply.json["error"]["code"]) == (503, "gateway_ends")
            assert reply.headers["retry-after"] == "1"


async def test_connections_that_wait_to_be_accepted_are_served_by_the_new_process(
    serve: StartServer, start: Start
) -> None:
    one = await start(fleet_config([await serve("vllm")], server=TWO))
    asleep = children(one.pid)
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(WireClient(one.gateway.port)) for _ in range(30)]
        for client in clients:
            client.post(PATH, chat())
            await client.writer.drain()
        await one.signalled()
        replies = await asyncio.gather(*(client.reply() for client in clients))
    assert [reply.status for reply in replies] == [200] * 30
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)


async def test_the_command_says_who_serves(serve: StartServer, start: Start) -> None:
    one = await start(fleet_config([await serve("vllm")]))
    code, said = await command(one.gateway, "upgrade")
    first, second = said.splitlines()
    one.pids.append(int(first.split()[1]))
    assert (code, first) == (0, f"process {one.pid} (octoroute {__version__}) serves from here.")
    assert second.startswith(f"process {one.pids[0]} ")
    await ended(one.pids[0])
    assert (await converse(one.gateway.port)).status == 200


async def test_a_config_with_problems_changes_nothing_and_the_answer_names_them(
    serve: StartServer, start: Start
) -> None:
    server = await serve("vllm")
    held = Held(server)
    config = fleet_config([server], server=TWO)
    one = await start(config)
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.gateway.port)
        first = await worker_at(one.gateway.port)
        rewrite(one.gateway, config.replace('"rule"', '"guess"'))
        reply = await one.upgrade()
        assert (reply.status, reply.error["code"]) == (500, "upgrade_failed")
        assert 'routing.strategy is "guess"' in reply.error["message"]
        assert "upgrade: nothing was changed" in one.gateway.log
        rewrite(one.gateway, config)
        seen = {await worker_at(one.gateway.port) for _ in range(30)}
        assert first in seen
        assert (await one.upgrade()).status == 200
        held.go.set()
        assert await stream.rest() == WHOLE


async def test_a_program_that_can_not_start_changes_nothing_and_one_that_can_is_taken(
    serve: StartServer, start: Start, tmp_path: Path
) -> None:
    """As a package manager would do it: the script is another one by now, be it a broken one."""
    program = tmp_path / "octoroute"
    # As pip writes it where the interpreter's path has a space: a script to the shell, a string to Python.
    start_python = f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n"
    good = f"{start_python}import sys\nfrom octoroute.cli import main\nsys.exit(main())\n"

    def install(text: str) -> None:
        new = tmp_path / "new"
        new.write_text(text)
        new.chmod(0o755)
        new.replace(program)

    install(good)
    one = await start(fleet_config([await serve("vllm")]), str(program))
    install(good.replace("octoroute.cli", "octoroute.not_there"))
    reply = await one.upgrade()
    assert reply.error["code"] == "upgrade_failed"
    assert "ModuleNotFoundError: No module named 'octoroute.not_there'" in reply.error["message"]
    install(good.replace("sys.exit", "print('another version', file=sys.stderr)\nsys.exit"))
    program.rename(tmp_path / "away")
    assert "No such file" in (await one.upgrade()).error["message"]
    (tmp_path / "away").rename(program)
    assert (await one.upgrade()).status == 200
    assert f"process {one.pid}: another version" in one.gateway.log
    assert (await converse(one.gateway.port)).status == 200
    # What failed is in the log, and expected there.
    log = one.gateway.folder / "log"
    log.write_text(one.gateway.log.replace("Traceback", "traceback"))


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1)])
async def test_the_new_process_may_have_another_count_of_workers(
    serve: StartServer, start: Start, before: int, after: int
) -> None:
    server = await serve("vllm")
    one = await start(fleet_config([server], server={"workers": before}))
    rewrite(one.gateway, fleet_config([server], server={"workers": after}))
    assert (await one.upgrade()).status == 200
    await ended(one.pids[0])
    seen: set[str] = set()
    while len(seen) < after:
        seen.add(await worker_at(one.gateway.port))
    replies = await asyncio.gather(*(converse(one.gateway.port) for _ in range(30)))
    assert [reply.status for reply in replies] == [200] * 30
    assert len(children(one.pid)) == after


async def test_the_new_process_may_listen_elsewhere(serve: StartServer, start: Start) -> None:
    server = await serve("vllm")
    one = await start(fleet_config([server], server=TWO))
    old, new = one.gateway.port, free_port()
    (one.gateway.folder / "config.toml").write_text(fleet_config([server], server={**TWO, "port": new}))
    assert (await one.upgrade()).status == 200
    assert (await converse(new)).status == 200
    await refuses(old)


async def test_a_unix_socket_is_handed_on_with_its_file(
    serve: StartServer, start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "gateway.sock"
    server = await serve("vllm")
    one = await start(fleet_config([server], server=TWO))
    to_unix = fleet_config([server], server={**TWO, "host": f"unix:{path}"})
    (one.gateway.folder / "config.toml").write_text(to_unix)
    assert (await one.upgrade()).status == 200

    async def status() -> bytes:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line

    for _ in range(2):
        assert b"200" in await status()
        inode = path.stat().st_ino
        await one.signalled()
        await ended(one.pids[-2])
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert path.stat().st_ino == inode
    assert b"200" in await status()
    await one.end()
    assert not path.exists()


async def test_a_signal_to_the_whole_service_leaves_the_old_process_its_streams(
    serve: StartServer, start: Start
) -> None:
    """As systemd sends it: the process that was replaced is told to end a second time, in a way."""
    server = await serve("vllm")
    held = Held(server)
    one = await start(fleet_config([server], server={**TWO, "drain_seconds": 20}))
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.gateway.port)
        assert (await one.upgrade()).status == 200
        for pid in one.pids:
            for each in (pid, *children(pid)):
                with suppress(ProcessLookupError):  # the first may have ended the others
                    os.kill(each, signal.SIGTERM)
        await refuses(one.gateway.port)
        await ended(one.pid)
        held.go.set()
        assert await stream.rest() == WHOLE


async def test_a_replaced_process_that_is_told_twice_ends_at_once(serve: StartServer, start: Start) -> None:
    server = await serve("vllm")
    Held(server)
    one = await start(fleet_config([server]))
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.gateway.port)
        assert (await one.upgrade()).status == 200
        one.gateway.process.terminate()
        # Signals that come together are one: the first must have been seen.
        await until(lambda: "goes on with what it has begun" in one.gateway.log)
        one.gateway.process.terminate()
        assert await asyncio.to_thread(one.gateway.process.wait, STOP_SECONDS) == 143
    one.gateway.process.returncode = 0


async def test_systemd_is_told_who_serves(
    serve: StartServer, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        async def heard() -> list[str]:
            data = await asyncio.get_running_loop().sock_recv(listener, 4096)
            return data.decode().splitlines()

        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        config = fleet_config([await serve("vllm")], server=TWO)
        one = await start(config)
        assert await heard() == ["READY=1"]
        os.kill(one.pid, signal.SIGHUP)
        assert (await heard())[0] == "RELOADING=1"
        assert await heard() == ["READY=1"]
        assert (await one.upgrade()).status == 200
        told = [await heard(), await heard()]
        assert told == [["READY=1"], [f"MAINPID={one.pid}"]]
        await ended(one.pids[0])
        await one.end()
        assert await heard() == ["STOPPING=1"]
