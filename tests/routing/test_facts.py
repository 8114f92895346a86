"""Length, asked text and task type, on every route's shape and on shapes that make no sense."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute._abridge import CUT, END, abridge
from octoroute.exchange import TASK_TYPES
from octoroute.routing.facts import EDGE, KEYWORDS, facts_of, infer_task_type, opening, read_text
from tests.routing.making import chat

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "output", "x"]) | st.text(max_size=3), inner
        )
    ),
    max_leaves=12,
)
ROUTE_FIELDS = st.sampled_from(
    [
        *("messages", "prompt", "input", "system", "instructions"),
        *("message", "query", "documents", "content", "tokens", "model"),
    ]
)


@pytest.mark.parametrize(("characters", "tokens"), [(0, 0), (3, 0), (4, 1), (1023, 255), (1024, 256)])
def test_four_characters_count_as_one_token(characters: int, tokens: int) -> None:
    assert read_text(chat("x" * characters)).tokens == tokens


def test_characters_are_counted_over_all_messages_before_dividing() -> None:
    fields = {
        "messages": [
            {"role": "system", "content": "xxx"},
            {"role": "user", "content": "xxx"},
            {"role": "assistant", "content": "xx"},
        ]
    }
    assert read_text(fields).tokens == 2


@given(st.lists(st.integers(0, 3 * CUT), min_size=1, max_size=4), st.booleans())
def test_an_abridged_text_reads_like_the_whole(sizes: list[int], in_parts: bool) -> None:
    texts = [f"implement {'-' * size} poem" for size in sizes]
    if in_parts:
        content = [{"type": "text", "text": text} for text in texts]
        fields: dict[str, Any] = {"messages": [{"role": "user", "content": content}]}
    else:
        fields = {"messages": [{"role": "user", "content": text} for text in texts]}
    short, lengths = abridge(orjson.dumps(fields)) or (orjson.dumps(fields), ())
    reading, whole = read_text(orjson.loads(short), lengths), read_text(fields)
    assert reading.tokens == whole.tokens
    assert infer_task_type(reading.asked) == infer_task_type(whole.asked)
    assert opening(reading.asked, 500) == opening(whole.asked, 500)


def test_both_ends_of_an_abridged_text_are_as_long_as_what_is_looked_at() -> None:
    assert END >= EDGE


def test_characters_are_counted_not_bytes() -> None:
    assert read_text(chat("\N{ROCKET}" * 8)).tokens == 2


@pytest.mark.parametrize(
    ("fields", "tokens", "asked"),
    [
        ({"prompt": "12345678"}, 2, ["12345678"]),
        ({"prompt": ["1234", "5678"]}, 2, ["1234", "5678"]),
        ({"prompt": [1, 2, 3]}, 3, []),
        ({"prompt": [[1, 2], [3]]}, 3, []),
        ({"input": "12345678"}, 2, ["12345678"]),
        ({"input": ["1234", "5678"]}, 2, ["5678"]),
        ({"input": [1, 2, 3]}, 3, []),
        ({"input": [[1, 2], [3]]}, 3, []),
        ({"system": "1234", "messages": [{"role": "user", "content": "5678"}]}, 2, ["5678"]),
        ({"system": [{"type": "text", "text": "1234"}], "messages": []}, 1, []),
        ({"instructions": "1234", "input": [{"role": "user", "content": "5678"}]}, 2, ["5678"]),
        (
            {
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "1234"}]}
                ]
            },
            1,
            ["1234"],
        ),
        ({"input": [{"type": "function_call_output", "output": "12345678"}]}, 2, []),
        ({"query": "1234", "documents": ["1234", {"text": "5678"}]}, 3, ["1234"]),
        ({"content": "12345678"}, 2, ["12345678"]),
        ({"tokens": [5, 6]}, 2, []),
        ({"message": "12345678"}, 2, ["12345678"]),
        ({"prompt": {"id": "pmpt_1", "variables": {"city": "Rome"}}, "input": "1234"}, 1, ["1234"]),
        ({}, 0, []),
    ],
)
def test_each_routes_text_is_found_where_the_route_keeps_it(
    fields: dict[str, Any], tokens: int, asked: list[str]
) -> None:
    reading = read_text(fields)
    assert (reading.tokens, list(reading.asked)) == (tokens, asked)


def test_only_the_text_parts_of_a_content_array_count() -> None:
    content = [
        {"type": "text", "text": "what is in "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}},
        {"type": "text", "text": "this?"},
    ]
    reading = read_text({"messages": [{"role": "user", "content": content}]})
    assert reading.tokens == 4
    assert reading.asked == ["what is in ", "this?"]


def test_the_asked_text_is_the_last_user_messages() -> None:
    fields = {
        "messages": [
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "yes?"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": None, "tool_calls": []},
            {"role": "tool", "content": "a result"},
        ]
    }
    assert list(read_text(fields).asked) == ["second"]


def test_a_user_message_without_text_leaves_the_one_before_it_as_the_asked_one() -> None:
    fields = {
        "messages": [
            {"role": "user", "content": "debug this"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
            {"role": "user", "content": None},
        ]
    }
    assert list(read_text(fields).asked) == ["debug this"]


def test_the_text_inside_a_tools_result_counts() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "12345678"}]}
    assert read_text({"messages": [{"role": "user", "content": [result]}]}).tokens == 2


def test_the_conversation_is_what_was_asked_even_beside_other_fields() -> None:
    fields = {"prompt": "hello", "query": "poem", **chat("debug")}
    assert list(read_text(fields).asked) == ["debug"]


def test_lists_nested_without_end_do_not_exhaust_the_stack() -> None:
    nested: list[Any] = ["x" * 400]
    for _ in range(100_000):
        nested = [nested]
    assert read_text({"prompt": nested, "messages": nested}).tokens == 0


@given(st.dictionaries(ROUTE_FIELDS, JSON))
def test_no_shape_makes_reading_raise(fields: dict[str, Any]) -> None:
    reading = read_text(fields)
    assert reading.tokens >= 0
    assert infer_task_type(reading.asked) in TASK_TYPES


KEYWORD_CASES = [
    *((keyword, "code") for keyword in ("code", "function", "implement", "```", "programming", "debug")),
    *((keyword, "deep_analysis") for keyword in ("analyze", "analysis", "compare", "evaluate")),
    *((keyword, "creative_writing") for keyword in ("write a story", "creative", "poem", "fiction")),
    *((keyword, "document_summary") for keyword in ("summarize", "summary", "tldr")),
    *((keyword, "casual_chat") for keyword in ("hello", "hi ", "hey ")),
]


@pytest.mark.parametrize(("keyword", "task_type"), KEYWORD_CASES)
def test_each_keyword_is_found_anywhere_and_in_any_case(keyword: str, task_type: str) -> None:
    assert infer_task_type([keyword]) == task_type
    assert infer_task_type([f"zzz{keyword.upper()}zzz"]) == task_type


@pytest.mark.parametrize("first", KEYWORD_CASES)
def test_the_earlier_task_type_wins_wherever_its_keyword_stands(first: tuple[str, str]) -> None:
    order = [task_type for task_type, _ in KEYWORDS]
    for keyword, task_type in KEYWORD_CASES:
        expected = min(first[1], task_type, key=order.index)
        assert infer_task_type([f"{first[0]} {keyword}"]) == expected
        assert infer_task_type([f"{keyword} {first[0]}"]) == expected


@pytest.mark.parametrize(
    ("text", "task_type"),
    [
        ("How are you?", "casual_chat"),
        ("Tell me how are cheeses made", "question_answer"),
        ("hi", "question_answer"),
        ("hi there", "casual_chat"),
        ("they left", "casual_chat"),  # keywords are not whole words, as in 1.0
        ("What is the capital of Peru?", "question_answer"),
        ("", "question_answer"),
    ],
)
def test_greetings_are_casual_and_the_rest_are_questions(text: str, task_type: str) -> None:
    assert infer_task_type([text]) == task_type


def test_a_keyword_is_not_made_out_of_two_parts() -> None:
    assert infer_task_type(["de", "bug"]) == "question_answer"
    assert infer_task_type(["say hi", " there"]) == "question_answer"


@pytest.mark.parametrize("parts", [1, 7])
def test_a_long_text_is_looked_at_on_both_ends_only(parts: int) -> None:
    def asked(text: str) -> list[str]:
        size = -(-len(text) // parts)
        return [text[at : at + size] for at in range(0, len(text), size)]

    filler = "z" * (EDGE + 100)
    assert infer_task_type(asked("debug" + filler + filler)) == "code"
    assert infer_task_type(asked(filler + filler + "debug")) == "code"
    assert infer_task_type(asked(filler + "debug" + filler)) == "question_answer"


def test_a_text_of_twice_the_edge_is_seen_whole() -> None:
    half = "z" * (EDGE - 5)
    assert infer_task_type([half + "debug" + half + "zzzzz"]) == "code"


def test_no_keyword_is_made_where_the_two_ends_of_a_long_text_meet() -> None:
    text = "z" * (EDGE - 2) + "de" + "z" * EDGE + "bug" + "z" * (EDGE - 3)
    assert infer_task_type([text]) == "question_answer"


def test_a_given_task_type_is_taken_as_it_is() -> None:
    facts = facts_of(read_text(chat("debug this")), "high", "casual_chat")
    assert (facts.tokens, facts.importance, facts.task_type) == (2, "high", "casual_chat")


@given(st.lists(st.text(max_size=8), max_size=6), st.integers(1, 20))
def test_an_opening_is_the_beginning_of_the_joined_texts(texts: list[str], limit: int) -> None:
    assert opening(texts, limit) == "\n".join(texts)[:limit]
