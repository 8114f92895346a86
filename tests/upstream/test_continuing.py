"""Which streams may be continued, and what is asked then."""

from typing import Any

import pytest

from octoroute.upstream.continuing import CHAT, COMPLETIONS, asked_limit, continuation, limit_to, may_continue
from octoroute.upstream.transcript import Transcript

USER = {"role": "user", "content": "hello"}


def so_far(text: str, reasoning: str = "") -> Transcript:
    transcript = Transcript(1000, framed=False)
    transcript.text, transcript.reasoning = text, reasoning
    return transcript


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"n": 1, "logprobs": False, "top_logprobs": 0, "grammar": "", "response_format": {"type": "text"}},
        {"tools": [{}], "tool_choice": "auto"},
        {"stop": ["x"], "seed": 1, "best_of": None},
    ],
)
def test_a_stream_of_plain_text_may_be_continued(more: dict[str, Any]) -> None:
    assert may_continue(CHAT, {"messages": [USER], **more})
    assert may_continue(COMPLETIONS, {"prompt": "hello", **more})


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"n": "two"},
        {"logprobs": True},
        {"logprobs": 1},
        {"grammar": "root ::= x"},
        {"response_format": {"type": "json_schema"}},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function"}},
        {"echo": True},
        {"guided_json": {"type": "object"}},
    ],
)
def test_what_depends_on_more_than_the_text_may_not(more: dict[str, Any]) -> None:
    assert not may_continue(CHAT, {"messages": [USER], **more})


def test_other_routes_and_prompts_that_are_no_text_may_not() -> None:
    assert not may_continue("/v1/responses", {"input": "hello"})
    assert not may_continue(COMPLETIONS, {"prompt": ["a", "b"]})
    assert not may_continue(COMPLETIONS, {"prompt": [1, 2]})


def test_a_chat_goes_on_from_the_assistants_beginning() -> None:
    fields = {"messages": [USER], "stream": True, "seed": 3}
    asked = continuation(CHAT, fields, so_far("你好 "), "vllm")
    assert asked == {
        "messages": [USER, {"role": "assistant", "content": "你好 "}],
        "stream": True,
        "seed": 3,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    assert fields == {"messages": [USER], "stream": True, "seed": 3}


def test_where_nothing_was_said_the_same_is_asked_again() -> None:
    fields = {"messages": [USER]}
    assert continuation(CHAT, fields, so_far(""), "vllm") == fields


def test_a_completion_goes_on_from_prompt_and_text() -> None:
    asked = continuation(COMPLETIONS, {"prompt": "hel"}, so_far("lo"), "")
    assert asked == {"prompt": "hello"}


def test_reasoning_stands_beside_the_text() -> None:
    asked = continuation(CHAT, {"messages": [USER]}, so_far("Yes", "I think"), "llama_cpp")
    assert asked is not None
    assert asked["messages"][-1] == {"role": "assistant", "content": "Yes", "reasoning_content": "I think"}


@pytest.mark.parametrize(
    ("kind", "flag", "delivered", "last"),
    [
        ("vllm", True, "two", "One, two"),
        ("llama_cpp", False, "two", "One, two"),
        ("llama_cpp", False, "One, two", "One, two"),  # it begins its answer with the message
    ],
)
def test_a_message_that_the_client_began_is_gone_on_from(
    kind: str, flag: bool, delivered: str, last: str
) -> None:
    fields = {"messages": [USER, {"role": "assistant", "content": "One, "}], "continue_final_message": flag}
    asked = continuation(CHAT, fields, so_far(delivered), kind)
    assert asked is not None
    assert asked["messages"] == [USER, {"role": "assistant", "content": last}]


def test_a_complete_message_of_the_assistant_is_left_alone() -> None:
    fields = {"messages": [USER, {"role": "assistant", "content": "Hi"}]}
    asked = continuation(CHAT, fields, so_far("again"), "vllm")
    assert asked is not None
    assert [message["content"] for message in asked["messages"]] == ["hello", "Hi", "again"]


def test_a_begun_message_that_is_no_text_can_not_be_gone_on_from() -> None:
    fields = {"messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}
    assert continuation(CHAT, fields, so_far("b"), "llama_cpp") is None


def test_the_limit_is_what_is_left_of_it() -> None:
    assert asked_limit({"max_tokens": 9, "max_completion_tokens": 5}, 64) == 5
    assert asked_limit({"n_predict": -1}, 64) == 64
    asked: dict[str, Any] = {"max_completion_tokens": 9, "min_tokens": 6}
    limit_to(asked, 5, 4)
    assert asked == {"max_completion_tokens": 5, "min_tokens": 2}
    silent: dict[str, Any] = {"max_tokens": None}
    limit_to(silent, 60, 4)
    assert silent == {"max_tokens": 60}


def test_llama_cpp_is_given_thoughts_under_its_own_name() -> None:
    delivered = so_far("", "I think")
    delivered.reasoning_name = "reasoning"
    asked = continuation(CHAT, {"messages": [USER]}, delivered, "llama_cpp")
    assert asked is not None
    assert asked["messages"][-1] == {"role": "assistant", "content": "", "reasoning_content": "I think"}


def test_a_budget_for_thoughts_would_begin_anew() -> None:
    assert may_continue(CHAT, {"messages": [USER], "reasoning_budget_tokens": -1})
    assert not may_continue(CHAT, {"messages": [USER], "reasoning_budget_tokens": 20})
