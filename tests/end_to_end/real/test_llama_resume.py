"""Real llama.cpp servers killed in the middle of streams whose clients notice nothing.

Two runs of one prompt give two texts, so what is compared is what was on the wire: the client has exactly
the text of the first server's delivered events and then the second's, which was sent exactly the first's.

OCTOROUTE_KILLS=50 kills 50 times instead of 12.
"""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.llama import LlamaServer
from tests.end_to_end.real.tap import Tap
from tests.end_to_end.wire_client import Reply, WireClient

KILLS = int(os.environ.get("OCTOROUTE_KILLS", "12"))
SEED = int(os.environ.get("OCTOROUTE_SEED", "1"))
MODEL = "smol"
TOKENS = 48
PROMPTS = (
    "Tell me a story about a lighthouse.",
    "\u8bf7\u7528\u4e2d\u6587\u4ecb\u7ecd\u4e00\u4e0b\u957f\u57ce\u3002",
    "Repeat this line many times: \U0001f600\U0001f680\U0001f419 \u4f60\u597d \U0001f469\u200d\U0001f52c",
)
CONFIG = """
[server]
host = "127.0.0.1"
port = 0
request_timeout_seconds = 60

[routing]
strategy = "rule"

[health]
interval_seconds = 0.5
failures = 1000

[recovery]
stall_seconds = {stall}
"""
ENDPOINT = """
[[models.{tier}]]
name = "{name}"
base_url = "http://127.0.0.1:{port}/v1"
max_tokens = 256
"""


class Servers:
    """Two servers of one model. One that was killed is started again before the next test needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started = 0
        self.running = [self._start(), self._start()]

    def _start(self) -> LlamaServer:
        self.started += 1
        return LlamaServer(MODEL, 2, self.folder / f"{self.started}.log")

    def signal(self, which: int, number: signal.Signals) -> None:
        os.kill(self.running[which].pid, number)

    def replace(self, which: int) -> LlamaServer:
        self.running[which].kill()
        self.running[which] = self._start()
        return self.running[which]


def port_of(server: LlamaServer) -> int:
    return int(server.url.rpartition(":")[2])


def config(ports: list[int], stall: float = 0.0) -> str:
    tiers = [ENDPOINT.format(tier="fast", name=MODEL, port=port) for port in ports]
    tiers += [ENDPOINT.format(tier=tier, name=f"nobody-{tier}", port=9) for tier in ("balanced", "deep")]
    return CONFIG.format(stall=stall) + "".join(tiers)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Servers]:
    pair = await asyncio.to_thread(Servers, tmp_path_factory.mktemp("llama"))
    try:
        yield pair
    finally:
        for server in pair.running:
            server.kill()


class Tapped:
    """A gateway in front of the two, each behind a tap."""

    def __init__(self, servers: Servers, taps: list[Tap], gateway: Gateway) -> None:
        self.servers = servers
        self.taps = taps
        self.gateway = gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tapped(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tapped]:
    async with Tap(port_of(servers.running[0])) as one, Tap(port_of(servers.running[1])) as two:
        gateway = Gateway(tmp_path_factory.mktemp("gateway"))
        try:
            await gateway.start(config([one.port, two.port]))
            yield Tapped(servers, [one, two], gateway)
            await gateway.stop()
        finally:
            gateway.kill()


def asking(prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "model": "fast",
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
        **more,
    }


def check_form(reply: Reply) -> list[Any]:
    """The chunks of a stream that is one in every respect."""
    chunks = reply.events[:-1]
    assert (reply.status, reply.ended, reply.events[-1]) == (200, True, "[DONE]"), reply.body[-500:]
    assert reply.body.count(b"[DONE]") == 1
    assert len({(chunk["id"], chunk["model"]) for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert sum("role" in choice["delta"] for choice in choices) <= 1
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["length"]
    return chunks


@pytest.mark.parametrize("kill", range(KILLS))
async def test_a_server_killed_at_a_random_byte_is_not_missed(tapped: Tapped, kill: int) -> None:
    chance = random.Random(f"{SEED}/{kill}")
    prompt = PROMPTS[kill % len(PROMPTS)]
    for tap in tapped.taps:
        tap.exchanges.clear()
        tap.cut.clear()
        # A chunk of llama.cpp is about 250 bytes: somewhere in the first 14.
        tap.cut_behind = chance.randrange(600, 3_600)
    killed = asyncio.create_task(first_cut(tapped))
    async with WireClient(tapped.gateway.port) as client:
        client.post("/v1/chat/completions", asking(prompt, temperature=chance.choice((0.0, 0.8))))
        reply = await client.reply()
    which = await killed
    first, second = tapped.taps[which], tapped.taps[1 - which]
    server = await asyncio.to_thread(tapped.servers.replace, which)
    first.target = port_of(server)
    chunks = check_form(reply)
    assert len(first.chats) == 1, [bytes(one.asked[:40]) for one in first.exchanges]
    (begun,) = first.chats
    if begun.chunks and "usage" in begun.chunks[-1]:
        # Only [DONE] was missing.
        assert (reply.text, second.chats) == (begun.text, [])
        return
    assert len(second.chats) == 1, [bytes(one.asked[:40]) for one in second.exchanges]
    (continued,) = second.chats
    assert reply.text == begun.text + continued.text
    if begun.text:
        assert continued.request["messages"] == [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": begun.text},
        ]
    usage = chunks[-1]["usage"]
    assert usage["total_tokens"] == continued.chunks[-1]["usage"]["total_tokens"]
    assert usage["completion_tokens"] == TOKENS


async def first_cut(tapped: Tapped) -> int:
    """Kills the server that reached its cut; the other one runs on uncut. Which it was."""
    waits = [asyncio.create_task(tap.cut.wait()) for tap in tapped.taps]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    which = 0 if waits[0].done() else 1
    tapped.taps[1 - which].cut_behind = None
    tapped.servers.signal(which, signal.SIGKILL)
    waits[1 - which].cancel()
    return which


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM], ids=["stopped", "terminated"])
async def test_a_server_that_falls_silent_is_not_waited_for(
    servers: Servers, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGSTOP: nothing but silence tells. SIGTERM: it refuses connections, and leaves its streams open."""
    gateway = Gateway(tmp_path)
    try:
        stall = 1.0 if number is signal.SIGSTOP else 0.0
        await gateway.start(config([port_of(server) for server in servers.running], stall))
        async with WireClient(gateway.port) as client:
            client.post("/v1/chat/completions", asking(PROMPTS[0], max_tokens=100))
            head = await client.head()
            body = await client.data()
            busy = [await asyncio.to_thread(server.busy_slots) for server in servers.running]
            assert sorted(busy) == [0, 1]
            which = busy.index(1)
            servers.signal(which, number)
            while data := await client.data():
                body += data
        check_form(Reply(head.status, head.headers, body))
        assert "resumed=1" in gateway.log or await flushed(gateway)
        await gateway.stop()
    finally:
        gateway.kill()
    servers.signal(which, signal.SIGCONT)
    await asyncio.to_thread(servers.replace, which)


async def flushed(gateway: Gateway) -> bool:
    """Whether the log says that a stream was resumed; it is written ten times a second."""
    while "resumed=" not in gateway.log:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    return "resumed=1" in gateway.log
