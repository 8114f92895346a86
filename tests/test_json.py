"""The splicer against orjson: what it leaves decodes to what a parser sees, what it puts in stands where it
should.
"""

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._json import Splicer, Unreadable

SPLICER = Splicer(b'"new"', b"0.25", b"512", b'{"include_usage":true}')
NAMES = ["model", "temperature", "max_tokens", "max_completion_tokens", "stream_options", "stream"]

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
objects = st.dictionaries(texts | st.sampled_from(NAMES), values, min_size=1, max_size=6)


def spliced(body: bytes, *, fill: bool = True, ask: bool = False, more: bytes = b"") -> bytes:
    return b"".join(SPLICER.splice(body, fill, ask, more))


def expected(fields: dict[str, Any], *, fill: bool, ask: bool, streams: bool = False) -> dict[str, Any]:
    """What a server shall read, plainly."""
    wanted = dict(fields)
    if "model" in fields:
        wanted["model"] = "new"
    if fill and fields.get("temperature") is None:
        wanted["temperature"] = 0.25
    if fill and fields.get("max_tokens") is None and fields.get("max_completion_tokens") is None:
        wanted["max_tokens"] = 512
    if ask:
        wanted["stream_options"] = {"include_usage": True}
    if streams:
        wanted |= {"stream": True, "counts": True}
    return wanted


@given(objects, st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.sampled_from([0, 20_000]))
@settings(max_examples=400)
def test_a_server_reads_our_values_and_all_others_of_the_client(
    fields: dict[str, Any], indented: bool, fill: bool, ask: bool, streams: bool, padding: int
) -> None:
    fields |= {"messages": "x" * padding}
    body = orjson.dumps(fields, option=orjson.OPT_INDENT_2 if indented else None)
    read = orjson.loads(spliced(body, fill=fill, ask=ask, more=b',"counts":true' if streams else b""))
    assert read == expected(fields, fill=fill, ask=ask, streams=streams)


def test_bytes_that_are_not_ours_stay_as_they_are() -> None:
    body = b' { "x" : 1e400 , "model":"a"\t, "temperature" : null,"max_tokens":7 } \n'
    assert spliced(body) == b' { "x" : 1e400 , "model":"new"\t, "temperature" : 0.25,"max_tokens":7 } \n'


def test_a_small_body_is_one_piece_and_a_large_one_is_not_copied() -> None:
    small = b'{"model":"a","temperature":0,"max_tokens":1}'
    large = small[:-1] + b',"messages":"%b"}' % (b"x" * 20_000)
    assert len(SPLICER.splice(small, True, False)) == 1
    views = [piece for piece in SPLICER.splice(large, True, False) if isinstance(piece, memoryview)]
    assert {id(view.obj) for view in views} == {id(large)}


def test_of_a_name_that_stands_twice_the_last_counts() -> None:
    body = b'{"temperature":null,"temperature":1,"model":"a","max_tokens":3,"model":"b"}'
    assert spliced(body) == body.replace(b'"a"', b'"new"').replace(b'"b"', b'"new"')


def test_nested_members_are_left_alone() -> None:
    body = b'{"a":{"model":1},"b":[{"model":2}],"temperature":0,"max_tokens":1}'
    assert spliced(body) == body


@pytest.mark.parametrize("name", NAMES[:-1])
def test_a_name_that_is_hidden_behind_escapes_is_refused(name: str) -> None:
    for at, letter in enumerate(name):
        hidden = f"{name[:at]}\\u{ord(letter):04{'x' if at % 2 else 'X'}}{name[at + 1 :]}"
        assert orjson.loads(f'{{"{hidden}":1}}') == {name: 1}
        with pytest.raises(Unreadable) as caught:
            spliced(f'{{"{hidden}":1}}'.encode())
        assert caught.value.name == name


@pytest.mark.parametrize(
    "name", ["mod\\u0065", "\\u006dodels", "model\\n", "m\\u00e9del", "\\u0000", "\\\\model", "str\\u0065am"]
)
def test_other_names_may_have_escapes(name: str) -> None:
    body = f'{{"{name}":1,"temperature":0,"max_tokens":1}}'.encode()
    orjson.loads(body)
    assert spliced(body) == body


def test_a_name_that_stands_all_over_is_refused() -> None:
    with pytest.raises(Unreadable):
        spliced(b'{%b"x":1}' % (b'"model":1,' * 33))


@given(st.binary(max_size=80))
@settings(max_examples=500)
def test_any_bytes_are_survived(junk: bytes) -> None:
    for body in (junk, b'{"model":' + junk, b'{"\\u' + junk):
        with suppress(Unreadable):
            spliced(body)
