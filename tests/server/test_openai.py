"""What is checked in a body of the OpenAI API, rule by rule, and what is left to the server."""

import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.errors import InvalidRequest
from octoroute.server.openai import check_chat, check_numbers, check_prompt, model_list, parse_body

USER = {"role": "user", "content": "hello"}
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
blank = st.text(alphabet=" \t\r\n\u3000\u00a0", max_size=4)


def check(fields: dict[str, Any], max_messages: int = 100, max_content_chars: int = 500_000) -> None:
    check_chat({"messages": [USER], **fields}, max_messages, max_content_chars)


def refused(fields: dict[str, Any], **limits: int) -> str | None:
    """The `param` of the refusal."""
    with pytest.raises(InvalidRequest) as raised:
        check(fields, **limits)
    assert (raised.value.status, raised.value.type) == (400, "invalid_request_error")
    return raised.value.param


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_a_json_object_is_read(value: dict[str, Any]) -> None:
    assert parse_body(orjson.dumps(value)) == value


@given(st.binary(max_size=30))
def test_anything_else_is_refused_and_nothing_else_raised(body: bytes) -> None:
    try:
        assert isinstance(parse_body(body), dict)
    except InvalidRequest as error:
        assert error.code == "invalid_json"  # noqa: PT017


@given(json_values)
def test_messages_of_any_shape_raise_nothing_else(messages: Any) -> None:
    try:
        check_chat({"messages": messages}, 100, 1000)
    except InvalidRequest as error:
        assert (error.param or "").startswith("messages")  # noqa: PT017


@pytest.mark.parametrize("messages", [None, [], "hi", {}, 7, True])
def test_messages_are_an_array_that_is_not_empty(messages: Any) -> None:
    assert refused({"messages": messages}) == "messages"


@given(st.integers(1, 30), st.integers(1, 30))
def test_the_number_of_messages_has_a_bound(count: int, bound: int) -> None:
    fields = {"messages": [USER] * count}
    if count <= bound:
        check(fields, max_messages=bound)
    else:
        assert refused(fields, max_messages=bound) == "messages"


@given(
    st.lists(st.text(min_size=1, max_size=20).filter(str.strip), min_size=1, max_size=5), st.integers(1, 60)
)
def test_the_characters_of_all_messages_together_have_a_bound(texts: list[str], bound: int) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in texts]
    strings = [{"role": "user", "content": text} for text in texts]
    for messages in (parts, strings):
        if sum(map(len, texts)) <= bound:
            check({"messages": messages}, max_content_chars=bound)
        else:
            assert refused({"messages": messages}, max_content_chars=bound) == "messages"


@given(blank, st.sampled_from(["user", "system", "developer"]))
def test_a_speakers_content_is_not_blank(text: str, role: str) -> None:
    contents: list[Any] = [text, [{"type": "text", "text": text}], []]
    for content in contents:
        messages = [USER, {"role": role, "content": content}]
        assert refused({"messages": messages}) == "messages[1].content"
    assert refused({"messages": [{"role": role}]}) == "messages[0].content"


@given(blank, st.sampled_from(["assistant", "tool", "function"]))
def test_the_content_of_others_may_be_blank(text: str, role: str) -> None:
    check(
        {"messages": [USER, {"role": role, "content": text}, {"role": role}, {"role": role, "content": None}]}
    )


def test_a_picture_without_words_is_not_blank() -> None:
    check({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]})


@pytest.mark.parametrize("message", ["hi", None, 3, ["a"]])
def test_a_message_is_an_object(message: Any) -> None:
    assert refused({"messages": [USER, message]}) == "messages[1]"


@pytest.mark.parametrize("content", [3, True, {"text": "a"}])
def test_content_is_text_or_parts(content: Any) -> None:
    assert refused({"messages": [{"role": "user", "content": content}]}) == "messages[0].content"


RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (math.nextafter(0, 1), 1.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}


@pytest.mark.parametrize("name", RANGES)
@given(number=st.floats() | st.integers())
def test_a_number_is_inside_its_range(name: str, number: float) -> None:
    low, high = RANGES[name]
    if low <= number <= high:
        check({name: number})
    else:
        assert refused({name: number}) == name


@pytest.mark.parametrize("name", RANGES)
def test_the_ends_of_a_range_are_exact(name: str) -> None:
    low, high = RANGES[name]
    check({name: low})
    check({name: high})
    for outside in (math.nextafter(low, -3), math.nextafter(high, 3), math.nan, math.inf, -math.inf):
        assert refused({name: outside}) == name


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@given(number=st.integers())
def test_max_tokens_is_above_zero(name: str, number: int) -> None:
    if number > 0:
        check({name: number})
    else:
        assert refused({name: number}) == name


@pytest.mark.parametrize("name", [*RANGES, "max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", ["1", True, [1], {}])
def test_a_number_is_a_number(name: str, value: Any) -> None:
    assert refused({name: value}) == name


@pytest.mark.parametrize("value", ["true", 1, [], {}])
def test_stream_is_a_boolean(value: Any) -> None:
    assert refused({"stream": value}) == "stream"


@pytest.mark.parametrize("name", [*RANGES, "max_tokens", "max_completion_tokens", "stream"])
def test_null_means_absent(name: str) -> None:
    check({name: None})


@given(st.dictionaries(st.sampled_from(["n", "seed", "tools", "stop", "logit_bias", "x"]), json_values))
def test_fields_of_the_servers_own_are_not_looked_at(fields: dict[str, Any]) -> None:
    check(fields)


@pytest.mark.parametrize("prompt", ["a", "", ["a", "b"], [1, 2], [[1], [2]]])
def test_a_prompt_is_text_texts_or_tokens(prompt: Any) -> None:
    check_prompt({"prompt": prompt})
    check_numbers({"prompt": prompt})


@pytest.mark.parametrize("fields", [{}, {"prompt": None}, {"prompt": 7}, {"prompt": {}}])
def test_a_completion_needs_a_prompt(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_prompt(fields)
    assert raised.value.param == "prompt"


def test_the_list_of_models_has_each_name_once() -> None:
    listed = orjson.loads(model_list(("fast", "balanced", "deep"), ["b", "a", "b"]))
    assert listed["object"] == "list"
    assert [(one["id"], one["owned_by"]) for one in listed["data"]] == [
        *((word, "octoroute") for word in ("auto", "fast", "balanced", "deep")),
        ("b", "user"),
        ("a", "user"),
    ]
    assert all((one["object"], one["created"]) == ("model", 0) for one in listed["data"])
