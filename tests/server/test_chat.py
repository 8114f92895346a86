"""What a body of POST /chat may be, and how a chat completion is read for its answer."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.errors import InvalidRequest, UpstreamFailed
from octoroute.exchange import IMPORTANCES, TASK_TYPES
from octoroute.server.chat import MAX_MESSAGE_CHARACTERS, Message, check_message, read_completion


def refused(fields: dict[str, Any]) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        check_message(fields)
    assert raised.value.status == 400
    return raised.value


def test_a_message_alone_is_a_question_of_the_usual_importance() -> None:
    assert check_message({"message": "a"}) == Message("a", None, "question_answer")
    assert check_message({"message": "a", "importance": None, "task_type": None, "x": 1}) == check_message(
        {"message": "a"}
    )


@given(st.sampled_from(IMPORTANCES), st.sampled_from(TASK_TYPES))
def test_importance_and_task_type_are_taken_as_given(importance: str, task_type: str) -> None:
    fields = {"message": "a", "importance": importance, "task_type": task_type}
    assert check_message(fields) == Message("a", importance, task_type)


@given(st.text(alphabet=" \t\r\n\u3000\u00a0", max_size=5))
def test_a_blank_message_is_refused(text: str) -> None:
    assert refused({"message": text}).param == "message"


@pytest.mark.parametrize("value", [None, 3, ["a"], {"text": "a"}, True])
def test_a_message_is_text(value: Any) -> None:
    assert refused({"message": value}).param == "message"
    assert refused({}).param == "message"


def test_a_message_has_a_bound_in_characters_not_bytes() -> None:
    check_message({"message": "\u00e9" * MAX_MESSAGE_CHARACTERS})
    assert str(MAX_MESSAGE_CHARACTERS) in str(refused({"message": "a" * (MAX_MESSAGE_CHARACTERS + 1)}))


@pytest.mark.parametrize("value", ["HIGH", "", "urgent", 3, ["low"], {}])
@pytest.mark.parametrize(("name", "allowed"), [("importance", IMPORTANCES), ("task_type", TASK_TYPES)])
def test_another_value_is_refused_with_the_allowed_ones(
    name: str, allowed: tuple[str, ...], value: Any
) -> None:
    error = refused({"message": "a", name: value})
    assert error.param == name
    assert all(one in str(error) for one in allowed)


def completion(content: Any, finish_reason: str | None = "stop") -> bytes:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return orjson.dumps({"choices": [choice]})


@given(st.text())
def test_the_text_of_a_completion_is_the_answer(text: str) -> None:
    assert read_completion(completion(text)) == (text, False)


def test_an_answer_at_max_tokens_was_cut_off() -> None:
    assert read_completion(completion("a", "length")) == ("a", True)


def test_an_answer_without_text_is_empty() -> None:
    assert read_completion(completion(None)) == ("", False)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"7", b'{"choices":[]}', b'{"choices":[7]}', b'{"choices":[{"message":[]}]}']
)
def test_what_is_no_completion_is_the_servers_failure(body: bytes) -> None:
    with pytest.raises(UpstreamFailed):
        read_completion(body)
    with pytest.raises(UpstreamFailed):
        read_completion(completion([{"type": "text"}]))
