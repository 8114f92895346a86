"""The official SDK, sync and async, gets answers, streams, models and its own exception classes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import openai
import pytest
import pytest_asyncio
from openai.types.chat import ChatCompletionChunk

from octoroute.demo import SimulatedServer
from octoroute.demo.answers import prompt_of_messages
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config

HELLO = prompt_of_messages([{"role": "user", "content": "hello"}])
MODELS = ["auto", "fast", "balanced", "deep"]
T = TypeVar("T")


@dataclass
class Fleet:
    servers: dict[str, SimulatedServer]
    url: str

    async def sync(self, use: Callable[[openai.OpenAI], T]) -> T:
        """Uses the sync client in a thread, since the servers live in this loop."""

        def work() -> T:
            with openai.OpenAI(base_url=self.url, api_key="any", max_retries=0) as client:
                return use(client)

        return await asyncio.to_thread(work)

    def client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url, api_key="any", max_retries=0)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    servers = {
        "fast": await serve_module("llama_cpp", "small", seed=1, wide=True),
        "balanced": await serve_module("vllm", "medium", seed=2, wide=True),
        "deep": await serve_module("vllm", "large", seed=3, wide=True),
    }
    config = fleet_config(*([server] for server in servers.values()), health={"failures": 1000})
    return Fleet(servers, (await gateway_module(config)).url + "/v1")


@pytest.mark.parametrize("tier", ["fast", "balanced", "deep"])
async def test_a_chat_completion(fleet: Fleet, tier: str) -> None:
    server = fleet.servers[tier]
    for model in (tier, tier.upper(), server.model):
        answer = await fleet.sync(
            lambda client, model=model: client.chat.completions.create(  # type: ignore[misc]
                model=model, messages=[{"role": "user", "content": "hello"}]
            )
        )
        assert answer.choices[0].message.content == server.text(HELLO)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == server.engine.answer_tokens


async def test_auto_goes_where_the_rules_say(fleet: Fleet) -> None:
    async with fleet.client() as client:
        answer = await client.chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "hello"}]
        )
    assert answer.model == "small"


@pytest.mark.parametrize("tier", ["fast", "deep"])
async def test_a_stream_with_usage(fleet: Fleet, tier: str) -> None:
    server = fleet.servers[tier]
    said, usage = "", None
    async with fleet.client() as client:
        stream = await client.chat.completions.create(
            model=tier,
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
        async for chunk in stream:
            said += "".join(choice.delta.content or "" for choice in chunk.choices)
            usage = chunk.usage or usage
    assert said == server.text(HELLO)
    assert usage is not None
    assert usage.completion_tokens == server.engine.answer_tokens


async def test_a_stream_of_the_sync_client(fleet: Fleet) -> None:
    def use(client: openai.OpenAI) -> str:
        stream = client.chat.completions.create(
            model="fast", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)

    assert await fleet.sync(use) == fleet.servers["fast"].text(HELLO)


async def test_a_tool_call(fleet: Fleet) -> None:
    async with fleet.client() as client:
        answer = await client.chat.completions.create(
            model="deep",
            messages=[{"role": "user", "content": "weather?"}],
            tools=[
                {
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                    },
                }
            ],
        )
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].type == "function"
    assert (calls[0].function.name, calls[0].function.arguments) == ("weather", '{"city":"Oslo"}')


async def test_the_list_of_models(fleet: Fleet) -> None:
    listed = await fleet.sync(lambda client: [model.id for model in client.models.list()])
    assert listed == [*MODELS, "small", "medium", "large"]
    async with fleet.client() as client:
        assert [model.id async for model in client.models.list()] == listed


async def test_leaving_a_stream_early_ends_the_servers_work(fleet: Fleet) -> None:
    server = fleet.servers["balanced"]
    server.engine.tokens_per_second, before = 20, len(server.completions)
    async with fleet.client() as client:
        stream = await client.chat.completions.create(
            model="balanced", messages=[{"role": "user", "content": "hello"}], stream=True, max_tokens=10_000
        )
        await anext(aiter(stream))
        await stream.close()
    await server.wait_for(lambda: server.active == 0)
    server.engine.tokens_per_second = 1e6
    assert len(server.completions) == before + 1
    assert server.completions[-1].left_at is not None


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("status-400", openai.BadRequestError),
        ("status-401", openai.AuthenticationError),
        ("status-404", openai.NotFoundError),
        ("status-429", openai.RateLimitError),
        ("status-500", openai.InternalServerError),
        ("status-503-loading", openai.InternalServerError),
        ("reset-before-head", openai.InternalServerError),
        ("error-event-200", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_servers_failure_is_the_sdks_exception(
    fleet: Fleet, fault: str, expected: type[openai.APIStatusError], stream: bool
) -> None:
    server = fleet.servers["deep"]
    server.set_fault(fault)
    try:
        async with fleet.client() as client:
            with pytest.raises(expected) as raised:
                await client.chat.completions.create(
                    model="deep", messages=[{"role": "user", "content": "hello"}], stream=stream
                )
    finally:
        server.set_fault(None)
    assert raised.value.response.headers["x-request-id"]


async def test_a_stream_that_breaks_is_an_exception_and_no_end(fleet: Fleet) -> None:
    server = fleet.servers["deep"]
    server.set_fault("close-mid-stream", once=True)
    chunks: list[ChatCompletionChunk] = []

    async def read(stream: openai.AsyncStream[ChatCompletionChunk]) -> None:
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401 - those before the failure count

    async with fleet.client() as client:
        stream = await client.chat.completions.create(
            model="deep", messages=[{"role": "user", "content": "hello"}], stream=True
        )
        with pytest.raises(openai.APIError) as raised:
            await read(stream)
    assert chunks
    assert not any(choice.finish_reason for chunk in chunks for choice in chunk.choices)
    assert "request id" in str(raised.value)


async def test_a_bad_request_is_the_sdks_exception_with_param(fleet: Fleet) -> None:
    async with fleet.client() as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.chat.completions.create(
                model="gpt-17", messages=[{"role": "user", "content": "hello"}]
            )
    assert raised.value.param == "model"
