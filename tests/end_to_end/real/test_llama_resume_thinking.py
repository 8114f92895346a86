"""A real llama.cpp falls silent while the model thinks, or answers behind its thoughts. Another goes on.

As in test_llama_resume.py what is compared is what was on the wire. Both servers are one process: what it is
asked does not tell.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.llama import LlamaServer
from tests.end_to_end.real.tap import Tap
from tests.end_to_end.real.test_llama_resume import SEED, config, port_of
from tests.end_to_end.wire_client import ask

TEMPLATE = Path(__file__).parent / "templates" / "tools_and_thinking.jinja"
CITIES: Final = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo"}


def conversation() -> list[dict[str, str]]:
    """So many answers with thoughts that a small model gives one too."""
    messages = []
    for country, city in CITIES.items():
        thought = f"The user asks for the capital of {country}. It is {city}."
        said = f"The capital of {country} is {city}."
        messages.append({"role": "user", "content": f"What is the capital of {country}?"})
        messages.append({"role": "assistant", "reasoning_content": thought, "content": said})
    return [*messages, {"role": "user", "content": "What is the capital of Spain?"}]


ASKED: Final[dict[str, Any]] = {
    "model": "fast",
    "messages": conversation(),
    "stream": True,
    "max_tokens": 60,
    "temperature": 0,
    "chat_template_kwargs": {"enable_thinking": True},
    "stream_options": {"include_usage": True},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def taps(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Gateway, list[Tap]]]:
    folder = tmp_path_factory.mktemp("thinking")
    with LlamaServer("smol", 2, folder / "llama.log", TEMPLATE) as server:
        async with Tap(port_of(server)) as one, Tap(port_of(server)) as two:
            gateway = Gateway(folder / "gateway")
            try:
                await gateway.start(config([one.port, two.port], stall=0.5))
                yield gateway, [one, two]
                await gateway.stop()
            finally:
                gateway.kill()


async def first_cut(taps: list[Tap]) -> int:
    """Which one was cut; the other is not."""
    waits = [asyncio.create_task(tap.cut.wait()) for tap in taps]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    which = 0 if waits[0].done() else 1
    taps[1 - which].cut_behind = None
    waits[1 - which].cancel()
    return which


def told(chunks: list[Any], name: str) -> str:
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    return "".join(delta.get(name) or "" for delta in deltas)


@pytest.mark.parametrize(
    ("part", "least", "most"), [("thinking", 900, 3_000), ("behind it", 4_300, 5_500)], ids=str
)
@pytest.mark.parametrize("run", range(3))
async def test_thoughts_and_text_go_on_from_where_they_stopped(
    taps: tuple[Gateway, list[Tap]], part: str, least: int, most: int, run: int
) -> None:
    gateway, both = taps
    behind = random.Random(f"{SEED}/{part}/{run}").randrange(least, most)
    for tap in both:
        tap.exchanges.clear()
        tap.cut.clear()
        tap.cut_behind = behind
    first = asyncio.create_task(first_cut(both))
    reply = await ask(gateway.port, "/v1/chat/completions", ASKED)
    which = await first
    chunks = reply.events[:-1]
    assert (reply.status, reply.ended, reply.events[-1]) == (200, True, "[DONE]"), reply.body[-500:]
    (begun,), (continued,) = both[which].chats, both[1 - which].chats
    for name in ("reasoning_content", "content"):
        assert told(chunks, name) == told(begun.chunks, name) + told(continued.chunks, name)
    assert told(begun.chunks, "reasoning_content")
    assert bool(told(begun.chunks, "content")) == (part != "thinking")
    assert continued.request["messages"][-1] == {
        "role": "assistant",
        "content": told(begun.chunks, "content"),
        "reasoning_content": told(begun.chunks, "reasoning_content"),
    }
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]
    assert told(chunks, "content")
