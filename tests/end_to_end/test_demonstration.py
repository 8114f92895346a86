"""`octoroute demo` shows a request and a stream, and ends well however it is ended."""

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import PIPE, STDOUT, Process

from tests.end_to_end.fleet import ROOT
from tests.end_to_end.ports import free_port


async def _demo(*arguments: str) -> Process:
    command = [sys.executable, "-m", "octoroute", "demo", *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT, cwd=ROOT)


async def _output(process: Process) -> str:
    said, _ = await process.communicate()
    return said.decode()


async def test_once_shows_both_requests_and_ends() -> None:
    process = await _demo("--port", str(free_port()), "--once")
    said = await _output(process)
    assert process.returncode == 0, said
    assert "fast tier, " in said
    assert "deep tier, gpt-oss-120b (primary): " in said
    assert len(said.rstrip().splitlines()[-1].split()) > 20
    assert "Traceback" not in said


async def test_a_signal_ends_it_without_a_traceback() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        port = free_port()
        process = await _demo("--port", str(port))
        assert process.stdout is not None
        said = b""
        while b"Ctrl-C ends it." not in said:
            said += (line := await process.stdout.readline())
            assert line, said
        process.send_signal(number)
        said += await process.stdout.read()
        assert await process.wait() == 0, said
        assert b"Traceback" not in said
        assert f"curl -N http://127.0.0.1:{port}/v1/chat/completions".encode() in said
        with socket.create_server(("127.0.0.1", port)):  # the gateway is gone too
            pass


async def test_a_port_in_use_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await _demo("--port", str(taken.getsockname()[1]))
        said = await _output(process)
    assert process.returncode == 1
    assert len(said.splitlines()) == 1
    assert "Address already in use" in said
