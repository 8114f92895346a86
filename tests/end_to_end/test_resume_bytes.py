"""A stream that breaks goes on, wherever in its bytes the break falls."""

import asyncio
import os
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, Request, Step
from octoroute.demo.answers import count_tokens
from octoroute.demo.wire import chunk, event
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.test_resume import AT_ONCE, PATH, PATIENT, SSE_HEAD, TOKENS, USAGE, Pair, plain, summary
from tests.end_to_end.wire_client import chat


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["llama_cpp", "vllm"])
async def pair(
    request: pytest.FixtureRequest, serve_module: StartServer, gateway_module: StartGateway
) -> Pair:
    servers = [await serve_module(request.param, seed=7, wide=True, answer_tokens=TOKENS) for _ in range(2)]
    first, second = servers
    # A stream that breaks before its first event is tried again, which the budget may forbid.
    members = [endpoint(first, priority=2), endpoint(second)]
    config = fleet_config(members, health=PATIENT, retry={"budget": 100})
    return Pair(first, second, (await gateway_module(config)).port)


async def test_the_break_may_fall_behind_any_byte(pair: Pair) -> None:
    asked = chat("hello", stream=True, max_tokens=64, **USAGE)
    whole = await pair.record(PATH, asked)
    expected = summary(await pair.cut(PATH, asked, len(whole)))
    assert expected[:4] == (200, True, 1, "[DONE]")
    assert (expected[7], len(expected[8])) == (["stop"], 1)
    # Every byte takes too long for every run: OCTOROUTE_EVERY_BYTE=1 has them all.
    step = 1 if os.environ.get("OCTOROUTE_EVERY_BYTE") else 7
    cuts = list(range(whole.index(b"\r\n\r\n"), len(whole) + 1, step))

    async def work() -> None:
        while cuts:
            at = cuts.pop()
            assert summary(await pair.cut(PATH, asked, at)) == expected, f"cut behind {whole[:at]!r}"

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())


async def test_a_completion_goes_on_from_its_prompt_and_text(pair: Pair) -> None:
    asked = {"model": "fast", "prompt": "hello", "stream": True, "max_tokens": 64, **USAGE}
    whole = await pair.record("/v1/completions", asked)
    expected = summary(await pair.cut("/v1/completions", asked, len(whole)))

    def rest(request: Request) -> list[Step]:
        """What is left of the text behind the prompt, as one event."""
        if request.path == "/tokenize":
            text = request.json.get("content") or request.json["prompt"]
            return [plain(orjson.dumps({"tokens": list(range(count_tokens(text)))}))]
        said = request.json["prompt"].removeprefix("hello")
        left = expected[5].removeprefix(said)
        assert said + left == expected[5]
        usage = {"prompt_tokens": 2 + count_tokens(said), "completion_tokens": count_tokens(left)}
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "text": left, "finish_reason": "stop"}]}]
        chunks.append({"choices": [], "usage": {**usage, "total_tokens": sum(usage.values())}})
        names = {"id": "other", "created": 1, "model": "other"}
        events = b"".join(event({**names, **one}) for one in chunks) + b"data: [DONE]\n\n"
        return [SSE_HEAD, chunk(events), b"0\r\n\r\n", CLOSE]

    pair.second.script(rest)
    try:
        for at in range(whole.index(b"\r\n\r\n") + 270, len(whole), 97):
            assert summary(await pair.cut("/v1/completions", asked, at)) == expected, f"cut behind {at}"
    finally:
        pair.second.script(None)
