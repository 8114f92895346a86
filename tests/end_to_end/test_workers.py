"""Several workers are one gateway: one port, one view of the servers; no worker's end is the end of all."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import ROOT, Gateway, endpoint, fleet_config
from tests.end_to_end.memory import corrupt
from tests.end_to_end.ports import free_port
from tests.end_to_end.processes import (
    Held,
    Stream,
    ended,
    probed,
    refuses,
    until,
    worker_at,
    worker_of,
    workers,
)
from tests.end_to_end.test_observability import scrape, scrape_until
from tests.end_to_end.wire_client import WireClient, converse

WHOLE = Held.FIRST + Held.LAST
IN_FLIGHT = "octoroute_in_flight{tier=fast}"
HOUR = {"interval_seconds": 3600.0, "unhealthy_interval_seconds": 3600.0, "load_interval_seconds": 0}
TLS = Path(__file__).parent / "tls"


async def met(port: int, count: int) -> set[str]:
    """All workers, each met on a connection of its own."""
    seen: set[str] = set()
    while len(seen) < count:
        seen.add(await worker_at(port))
    return seen


async def test_a_killed_worker_takes_only_its_own_requests_with_it(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = await gateway(fleet_config([server], server={"workers": 2}))
    async with AsyncExitStack() as stack:
        streams = await asyncio.gather(*(Stream.open(stack, one.port) for _ in range(24)))
        assert len({stream.worker for stream in streams}) == 2
        await scrape_until(one.port, lambda counts: counts[IN_FLIGHT] == 24)
        before = {stream.worker for stream in streams}
        victim, other = workers(one)
        os.kill(victim, signal.SIGKILL)
        # Streams of the victim end early, and only those: which worker it was shows with the first.
        rests = {stream: asyncio.create_task(stream.rest()) for stream in streams}
        done, _ = await asyncio.wait(rests.values(), return_when=asyncio.FIRST_EXCEPTION)
        lost = next(stream.worker for stream, rest in rests.items() if rest in done)
        left = [stream for stream in streams if stream.worker != lost]
        assert 0 < len(left) < 24
        await scrape_until(one.port, lambda counts: counts[IN_FLIGHT] == len(left))
        held.go.set()
        ends = await asyncio.gather(*rests.values(), return_exceptions=True)
        for stream, end in zip(rests, ends, strict=True):
            assert (end == WHOLE) == (stream.worker != lost), (stream.worker, lost, end)
        await scrape_until(one.port, lambda counts: counts[IN_FLIGHT] == 0)
        assert len(await met(one.port, 2) - before) == 1
        replies = await asyncio.gather(*(converse(one.port) for _ in range(24)))
        assert [reply.status for reply in replies] == [200] * 24
        assert len({worker_of(reply) for reply in replies}) == 2
    assert victim not in workers(one)
    assert other in workers(one)


async def test_connections_that_wait_for_a_killed_worker_are_served_by_its_successor(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(fleet_config([await serve("vllm")]))
    [pid] = workers(one)
    os.kill(pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(converse(one.port)) for _ in range(10)]
    async with WireClient(one.port):  # the tenth is connected before this one
        os.kill(pid, signal.SIGKILL)
    assert [(await reply).status for reply in waiting] == [200] * 10


async def test_one_worker_of_four_probes_and_another_one_when_it_dies(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    one = await gateway(fleet_config([server], server={"workers": 4}, health=HOUR))
    await met(one.port, 4)
    await server.wait_for(lambda: len(server.requests) > 0)
    assert len(server.requests) == 1
    for pid in workers(one):
        os.kill(pid, signal.SIGKILL)
        await ended(pid)
    # The one that probed is among them.
    await server.wait_for(lambda: len(server.requests) > 1)


async def test_what_one_worker_finds_out_about_a_server_all_know(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "flawed")
    one = await gateway(fleet_config([server], server={"workers": 2}, health={**HOUR, "failures": 1}))
    await probed(one, "flawed")
    server.set_fault("status-500")
    assert (await converse(one.port)).status == 502
    seen = Counter(
        [(await scrape(one.port))["octoroute_endpoint_up{endpoint=flawed,tier=fast}"] for _ in range(16)]
    )
    assert seen == {0.0: 16}
    assert {(await converse(one.port)).status for _ in range(16)} == {503}


async def test_workers_end_when_their_supervisor_is_killed(serve: StartServer, tmp_path: Path) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = Gateway(tmp_path)
    try:
        await one.start(fleet_config([server], server={"workers": 2}))
        pids = workers(one)
        async with AsyncExitStack() as stack:
            stream = await Stream.open(stack, one.port)
            one.process.kill()
            await refuses(one.port)
            held.go.set()
            assert await stream.rest() == WHOLE
        await asyncio.gather(*map(ended, pids))
    finally:
        one.kill()


async def test_a_worker_told_to_end_is_replaced_without_a_pause(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(fleet_config([await serve("vllm")]))
    first = await worker_at(one.port)
    [pid] = workers(one)
    os.kill(pid, signal.SIGTERM)
    await ended(pid)
    assert await worker_at(one.port) != first
    assert f"worker {pid} was told to end" in one.log


async def test_a_worker_with_corrupt_memory_drains_and_a_clean_one_takes_its_place(
    serve: StartServer, gateway: StartGateway
) -> None:
    """The weight of one server becomes NaN in the memory of the worker, and nowhere else."""
    weight = 7.123456789012345
    sound, flawed = await serve("vllm", "sound"), await serve("vllm", "flawed")
    held = Held(sound)
    one = await gateway(
        fleet_config(
            [endpoint(sound, weight=weight), endpoint(flawed, priority=2)],
            balanced=[endpoint(sound, name="other")],
            deep=[endpoint(sound, name="another")],
            health={**HOUR, "failures": 1},
        )
    )
    [pid] = workers(one)
    first = await worker_at(one.port)
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.port, "balanced")
        assert stream.worker == first
        # Weights are looked at when a tier is first asked, and then when something has changed.
        assert (await converse(one.port)).status == 200
        try:
            assert corrupt(pid, weight) > 0
        except PermissionError:
            pytest.skip("this system lets no process write into another's memory")
        # The backup's turn comes, so that weights are looked at again.
        flawed.set_fault("status-500")
        reply = await converse(one.port)
        assert reply.status == 500
        assert worker_of(reply) == first
        assert reply.error["code"] == "internal_error"
        # The next one serves while the corrupt one still has a stream to finish.
        held.go.set()
        answer = await converse(one.port)
        assert (answer.status, answer.text) == (200, "first last")
        assert worker_of(answer) != first
        assert await stream.rest() == WHOLE
    await ended(pid)
    await until(lambda: pid not in workers(one))
    for part in ("CRITICAL", "MEMORY CORRUPTION DETECTED", "fast", "sound", "nan", "can't be trusted"):
        assert part in one.log
    assert (await scrape(one.port))[IN_FLIGHT] == 0


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("one.pem", "two.key", "server.tls_key is '{tls}/two.key', which is not the key of the certificate"),
        ("one.key", "one.key", "server.tls_cert is '{tls}/one.key', which holds no certificate in PEM form"),
        ("one.pem", "one.pem", "server.tls_key is '{tls}/one.pem', which holds no private key in PEM form"),
    ],
)
async def test_a_bad_certificate_is_one_line_and_the_end(
    serve: StartServer, tmp_path: Path, cert: str, key: str, said: str
) -> None:
    tls = {"port": free_port(), "tls_cert": str(TLS / cert), "tls_key": str(TLS / key)}
    path = tmp_path / "config.toml"
    path.write_text(fleet_config([await serve("vllm")], server=tls))
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "octoroute", "--config", str(path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert said.format(tls=TLS) in done.stdout
    assert len(done.stdout.splitlines()) == 1


async def test_the_limit_of_open_files_is_raised_as_far_as_it_may(serve: StartServer, tmp_path: Path) -> None:
    server, one = await serve("vllm"), Gateway(tmp_path)
    usual = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, usual[1]), usual[1]))
    try:
        await one.start(fleet_config([server]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, usual)
    try:
        (worker,) = workers(one)
        assert resource.prlimit(worker, resource.RLIMIT_NOFILE) == (usual[1], usual[1])
    finally:
        await one.stop()
