"""The official OpenAI SDK, sync and async, against real llama.cpp servers through the gateway."""

from collections.abc import AsyncIterator, Iterator

import openai
import pytest
import pytest_asyncio

from tests.end_to_end.fleet import Gateway

# The model and the text that are asked for, and the server that must answer.
TARGETS = [
    ("auto", "Hello there!", "smol-fast"),
    ("auto", "Write a Python function that adds two numbers.", "smol-balanced"),
    ("auto", "Write a story about a lighthouse.", "smol-deep"),
    ("fast", "Name a colour.", "smol-fast"),
    ("balanced", "Name a colour.", "smol-balanced"),
    ("deep", "Name a colour.", "smol-deep"),
    ("smol-deep", "Name a colour.", "smol-deep"),
]
MORE_THAN_THE_CONTEXT = "word " * 9000


@pytest.fixture
def client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="session")
async def async_client(gateway: Gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as one:
        yield one


@pytest.mark.parametrize(("model", "text", "server"), TARGETS)
def test_an_answer_comes_from_the_server_that_was_asked_for(
    client: openai.OpenAI, model: str, text: str, server: str
) -> None:
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=12
    )
    assert answer.model == server
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize(("model", "text", "server"), TARGETS)
def test_a_stream_comes_from_the_server_that_was_asked_for(
    client: openai.OpenAI, model: str, text: str, server: str
) -> None:
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": text}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {server}
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices)
    assert [choice.finish_reason for choice in choices if choice.finish_reason] in (["length"], ["stop"])
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize(("model", "text", "server"), TARGETS)
async def test_the_async_client_gets_the_same_answers(
    async_client: openai.AsyncOpenAI, model: str, text: str, server: str
) -> None:
    answer = await async_client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=12
    )
    assert answer.model == server
    assert answer.choices[0].message.content


@pytest.mark.parametrize(("model", "text", "server"), TARGETS)
async def test_the_async_client_gets_the_same_streams(
    async_client: openai.AsyncOpenAI, model: str, text: str, server: str
) -> None:
    stream = await async_client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": text}], max_tokens=12, stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {server}
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")


def test_the_model_list_has_the_four_words_and_then_the_servers(client: openai.OpenAI) -> None:
    models = [(model.id, model.owned_by) for model in client.models.list()]
    words = [(word, "octoroute") for word in ("auto", "fast", "balanced", "deep")]
    assert models[:4] == words
    assert sorted(models[4:]) == [(name, "user") for name in ("smol-balanced", "smol-deep", "smol-fast")]


@pytest.mark.parametrize("stream", [False, True])
def test_the_server_s_own_400_for_a_prompt_over_its_context_comes_through(
    client: openai.OpenAI, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="fast", messages=[{"role": "user", "content": MORE_THAN_THE_CONTEXT}], stream=stream
        )
    error = caught.value.body
    assert isinstance(error, dict)
    assert error["type"] == "exceed_context_size_error"
    assert error["n_prompt_tokens"] > error["n_ctx"] == 8192


def test_a_model_nobody_serves_is_a_400_that_lists_what_there_is(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="smol-fast"):
        client.chat.completions.create(model="gpt-17", messages=[{"role": "user", "content": "Hello"}])
