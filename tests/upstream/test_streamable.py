"""Which plain requests may be asked for as streams."""

from typing import Any

import pytest

from octoroute.upstream.streamable import CHAT, COMPLETIONS, may_stream

MESSAGES = [{"role": "user", "content": "hello"}]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "fast", "messages": MESSAGES, **more}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": False, "stream_options": None, "n": 1, "logprobs": False, "top_logprobs": None},
        {"stop": ["\n\n", "END"], "seed": 7, "max_tokens": 5, "temperature": 0.0, "logit_bias": {"7": -1}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "auto"},
        {"response_format": {"type": "json_object"}, "reasoning_effort": "low"},
        {"user": "me", "store": True, "metadata": {"a": "b"}},
    ],
)
def test_what_changes_only_what_is_said_does_no_harm(more: dict[str, Any]) -> None:
    assert may_stream(CHAT, chat(**more))


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"n": "1"},
        {"n": True},
        {"logprobs": True},
        {"n_probs": 1},
        {"verbose": True},
        {"return_tokens": True},
        {"timings_per_token": False},
        {"reasoning_format": "none"},
        {"n_indent": 1},
        {"stream_options": "all"},
        {"messages": [*MESSAGES, {"role": "assistant", "content": "I"}]},
        {"messages": []},
        {"messages": ["hello"]},
        {"something_new": 0},
    ],
)
def test_what_is_not_known_to_be_the_same_goes_as_it_came(more: dict[str, Any]) -> None:
    assert not may_stream(CHAT, chat(**more))


def test_completions_are_streams_of_one_prompt() -> None:
    assert may_stream(COMPLETIONS, {"prompt": "hello", "max_tokens": 5, "echo": False, "best_of": None})
    assert not may_stream(COMPLETIONS, {"prompt": "hello", "echo": True})
    assert not may_stream(COMPLETIONS, {"prompt": ["hello", "world"]})
    assert not may_stream(COMPLETIONS, {"prompt": [1, 2, 3]})


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/responses", "/v1/messages", "/v1/rerank"])
def test_other_routes_are_left_alone(path: str) -> None:
    assert not may_stream(path, chat(prompt="hello"))
