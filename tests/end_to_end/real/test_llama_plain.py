"""Plain requests that go to a real llama.cpp as streams: the answers are its own, and it stops when their
client leaves.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.llama import LlamaServer
from tests.end_to_end.real.tap import Tap
from tests.end_to_end.wire_client import WireClient, ask

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
TEMPLATE = Path(__file__).parent / "templates" / "tools_and_thinking.jinja"
CONFIG = """
[server]
host = "127.0.0.1"
port = 0
request_timeout_seconds = 60

[routing]
strategy = "rule"

[[models.fast]]
name = "smol"
base_url = "http://127.0.0.1:{port}/v1"
max_tokens = 256
kind = "llama_cpp"

[[models.balanced]]
name = "nobody"
base_url = "http://127.0.0.1:9/v1"
max_tokens = 256

[[models.deep]]
name = "none"
base_url = "http://127.0.0.1:9/v1"
max_tokens = 256
"""
# Two runs of one prompt may differ, for it was read in other batches.
RUNS = 4
STORY = "Tell me a story about a lighthouse."
EMOJI = "Repeat this line many times: \U0001f600\U0001f680\U0001f419 \u4f60\u597d"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": CITY}}]
THINKING = {"chat_template_kwargs": {"enable_thinking": True}}
MANY_TOKENS = 2000
POLLS = 4
BETWEEN_POLLS_S = 1.0  # llama.cpp notices no leaving client while it is asked more often


class Tapped:
    """A gateway, the tap behind it and the server behind that."""

    def __init__(self, gateway: Gateway, tap: Tap, server: LlamaServer) -> None:
        self.gateway, self.tap, self.server = gateway, tap, server

    async def answers(self, path: str, fields: dict[str, Any]) -> tuple[Any, Any]:
        """The gateway's and the server's own."""
        mine = await ask(self.gateway.port, path, {**fields, "model": "fast"})
        own = await ask(int(self.server.url.rpartition(":")[2]), path, {**fields, "model": "smol"})
        assert mine.status == own.status
        assert mine.headers.get("content-type") == own.headers.get("content-type")
        return comparable(mine.body), comparable(own.body)


def comparable(body: bytes) -> Any:
    """As pairs, for the order of members; without what differs from run to run."""
    found = json.loads(body)
    for name in ("id", "created"):
        if name in found:
            found[name] = type(found[name]).__name__
    if "timings" in found:
        found["timings"] = {
            name: value if name == "predicted_n" else 0 for name, value in found["timings"].items()
        }
        found["usage"]["prompt_tokens_details"]["cached_tokens"] = 0
    for choice in found.get("choices", []):
        for call in choice.get("message", {}).get("tool_calls", []):
            # The order is that of the call's own members.
            assert len(call.pop("id")) == 32
    return json.dumps(found)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tapped(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tapped]:
    folder = tmp_path_factory.mktemp("plain")
    with LlamaServer("smol", 2, folder / "llama.log", TEMPLATE) as server:
        async with Tap(int(server.url.rpartition(":")[2])) as tap:
            gateway = Gateway(folder / "gateway")
            try:
                await gateway.start(CONFIG.format(port=tap.port))
                yield Tapped(gateway, tap, server)
                await gateway.stop()
            finally:
                gateway.kill()


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "seed": 1, **more}


def completion(prompt: str, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "temperature": 0, "seed": 1, **more}


EXACT: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "cut off": (CHAT, chat(STORY, max_tokens=40)),
    "one token": (CHAT, chat(STORY, max_tokens=1)),
    "stop": (CHAT, chat("Count from one to twenty.", max_tokens=80, stop=["five", "\n\n"])),
    "to its end": (CHAT, chat("Say only: yes.", max_tokens=100)),
    "emoji": (CHAT, chat(EMOJI, max_tokens=60)),
    "sampled": (CHAT, chat(STORY, max_tokens=30) | {"temperature": 0.0, "top_k": 5, "min_p": 0.1}),
    "json": (CHAT, chat("A person", response_format={"type": "json_object"}, max_tokens=60)),
    "thinking": (CHAT, chat(STORY, max_tokens=40, **THINKING)),
    "tool call": (CHAT, chat("Weather in Paris?", tools=TOOLS, max_tokens=100)),
    "tool demanded": (CHAT, chat("Paris?", tools=TOOLS, tool_choice="required", max_tokens=100)),
    "completion": (COMPLETIONS, completion("Once upon a time", max_tokens=30)),
    "stopped": (COMPLETIONS, completion("1, 2, 3, 4,", max_tokens=20, stop=[" 7, 8, 9"])),
    "stopped at once": (COMPLETIONS, completion("1, 2, 3, 4,", max_tokens=20, stop=[" "])),
    "ended": (COMPLETIONS, completion("A: Paris. Full stop.<|im_end|>", max_tokens=40)),
}
# A stream does not tell all of these: the request goes once more, or goes as it came at once.
DOUBTFUL: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "half a character": (CHAT, chat(EMOJI, max_tokens=8)),
    "half a stop": (COMPLETIONS, completion("1, 2, 3, 4,", max_tokens=9, stop=[" 7, 8, 9"])),
    "half a call": (CHAT, chat("Weather in Paris?", tools=TOOLS, max_tokens=20)),
    "logprobs": (CHAT, chat(STORY, max_tokens=4, logprobs=True, top_logprobs=2)),
    "two": (CHAT, chat(STORY, max_tokens=4, n=2)),
    "the prompt is too long": (CHAT, chat("word " * 9000, max_tokens=4)),
}


@pytest.mark.parametrize("name", EXACT)
async def test_an_answer_is_put_together_as_the_server_would_have_sent_it(tapped: Tapped, name: str) -> None:
    path, fields = EXACT[name]
    for _ in range(RUNS):
        tapped.tap.exchanges.clear()
        mine, own = await tapped.answers(path, fields)
        streams = ["stream" in one.request for one in tapped.tap.exchanges if one.asked.startswith(b"POST")]
        if mine == own and streams == [True]:
            return
    assert (mine, streams) == (own, [True])


async def test_a_client_that_leaves_ends_the_work_though_another_streams(tapped: Tapped) -> None:
    asking = chat("Count from one to a thousand.", max_tokens=MANY_TOKENS, ignore_eos=True, model="fast")
    async with WireClient(tapped.gateway.port) as other, WireClient(tapped.gateway.port) as client:
        other.post(CHAT, {**asking, "stream": True})
        await other.head()
        client.post(CHAT, asking)
        await busy(tapped.server, 2)
        client.writer.close()
        await busy(tapped.server, 1)


async def busy(server: LlamaServer, count: int) -> None:
    """So many slots work soon: long before the answers could be complete."""
    for _ in range(POLLS):
        await asyncio.sleep(BETWEEN_POLLS_S)  # the server's state can only be asked for
        if await asyncio.to_thread(server.busy_slots) == count:
            return
    pytest.fail(f"{count} slots were to work, {POLLS} s ago")


@pytest.mark.parametrize("name", DOUBTFUL)
async def test_what_a_stream_does_not_tell_is_asked_for_as_it_came(tapped: Tapped, name: str) -> None:
    path, fields = DOUBTFUL[name]
    for _ in range(RUNS):
        mine, own = await tapped.answers(path, fields)
        if mine == own:
            return
    assert mine == own
