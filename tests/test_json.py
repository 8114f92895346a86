"""The member scanner against orjson: the span it names decodes to the value that a parser sees."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._json import member_spans

NAMES = (b"model", b"temperature", b"max_tokens")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
texts = (
    st.text(max_size=20)
    | st.text('"\\\\a', max_size=30)
    | st.sampled_from(['"model": "x"', "\\", '\\"', "}{", "a\\\\"])
)
values = st.recursive(
    scalars | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts | st.sampled_from([name.decode() for name in NAMES]), values, max_size=6)


@given(objects, st.booleans())
@settings(max_examples=400, deadline=None)
def test_each_member_is_found_with_its_value(fields: dict[str, Any], indented: bool) -> None:
    body = orjson.dumps(fields, option=orjson.OPT_INDENT_2 if indented else None)
    found = {
        NAMES[name].decode(): orjson.loads(body[start:end])
        for name, start, end in member_spans(body, NAMES)
        if name >= 0
    }
    assert found == {key: value for key, value in fields.items() if key.encode() in NAMES}


@given(objects)
@settings(max_examples=200, deadline=None)
def test_replacing_a_span_changes_that_value_and_nothing_else(fields: dict[str, Any]) -> None:
    fields["model"] = "old"
    body = orjson.dumps(fields)
    [(start, end)] = [(start, end) for name, start, end in member_spans(body, NAMES) if name == 0]
    assert orjson.loads(body[:start] + b'"new"' + body[end:]) == {**fields, "model": "new"}


@given(st.binary(max_size=80))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_survived(junk: bytes) -> None:
    for _, start, end in member_spans(junk, NAMES) + member_spans(b'{"model":' + junk, NAMES):
        assert 0 <= start <= end


def test_a_name_that_stands_twice_is_answered_twice() -> None:
    body = b'{"model": "a", "model" :"b"}'
    assert [body[start:end] for _, start, end in member_spans(body, NAMES)] == [b'"a"', b'"b"']


def test_a_name_written_with_escapes_is_answered_as_a_name() -> None:
    body = rb'{"mod\u0065l": "a"}'
    assert [(name, body[start:end]) for name, start, end in member_spans(body, NAMES)] == [
        (-1, rb'"mod\u0065l"')
    ]


def test_nested_members_are_not_answered() -> None:
    assert member_spans(b'{"a": {"model": 1}, "b": [{"model": 2}]}', NAMES) == []


@pytest.mark.parametrize("body", [b"", b"[]", b'"model"', b"{", b'{"model"', b'{"model":', b'{"model": "'])
def test_what_is_no_whole_object_is_survived(body: bytes) -> None:
    member_spans(body, NAMES)
