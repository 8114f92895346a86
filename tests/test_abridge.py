"""The abridger against orjson: it refuses what orjson refuses, and what is left of a body decodes to the same
but for the middle of long strings.
"""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._abridge import CUT, END, abridge

# What a string is written with, and what must not stand in one.
PIECES = [
    "plain ",
    "zwölf ",
    "漢字",
    "😀",
    r"\n",
    r"\"",
    r"\\",
    r"\/",
    r"\u0041",
    r"\u6f22",
    r"\ud83d\ude00",
    r"\uD83D\uDE00",
    "\x7f",
    "\ud7ff\ue000\uffff",
]
BROKEN = [
    b"\n",
    b"\x00",
    b"\x1f",
    rb"\x",
    rb"\u12",
    rb"\u12g4",
    rb"\ud800",
    rb"\ud800\n",
    rb"\ud800\u0041",
    rb"\udc00",
    b"\x80",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xc3",
    b"\xe0\x80\xaf",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xf0\x80\x80\xaf",
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
    b"\xff",
]
# Written so long that a string of one of them is long, whatever its pieces are.
writings = st.lists(st.sampled_from(PIECES), min_size=1, max_size=12).flatmap(
    lambda pieces: st.integers(1, 60_000 // len("".join(pieces))).map(lambda times: "".join(pieces) * times)
)


def whole(fields: object, lengths: tuple[int, ...], original: object) -> bool:
    """Whether `fields` is `original`, but for long strings, which are cut as they should be."""
    if isinstance(original, str) and isinstance(fields, str):
        if len(original) < CUT:
            return fields == original
        return (
            len(original) == lengths[len(fields) - CUT]
            and fields[:END] == original[:END]
            and fields[-END:] == original[-END:]
            and set(fields[2 * END + 4096 : -2 * END]) <= {" "}
        )
    if isinstance(original, list) and isinstance(fields, list):
        return len(fields) == len(original) and all(
            whole(one, lengths, other) for one, other in zip(fields, original, strict=True)
        )
    if isinstance(original, dict) and isinstance(fields, dict):
        return fields.keys() == original.keys() and all(
            whole(fields[name], lengths, value) for name, value in original.items()
        )
    return fields == original


def refused(body: bytes) -> bool:
    try:
        orjson.loads(body)
    except ValueError:
        return True
    return False


@given(st.lists(writings, min_size=1, max_size=4), st.text(max_size=5), st.booleans())
@settings(max_examples=150)
def test_a_parser_reads_the_same_but_for_the_middle_of_long_strings(
    written: list[str], name: str, spaced: bool
) -> None:
    texts = ",".join(f'"{text}"' for text in written)
    colon = " :\n " if spaced else ":"
    body = f'{{"a"{colon}1,{orjson.dumps(name).decode()}{colon}[{texts},{{"b":"\\"{{"}}]}}'.encode()
    original = orjson.loads(body)
    abridged = abridge(body)
    long = [text for text in original[name][:-1] if len(text) >= CUT]
    if abridged is None:
        assert not long
    else:
        assert abridged[1] == tuple(map(len, long))
        assert whole(orjson.loads(abridged[0]), abridged[1], original)


@given(writings, st.sampled_from(BROKEN), st.floats(0, 1))
@settings(max_examples=300)
def test_a_parser_is_left_to_say_what_is_wrong_with_a_string(
    written: str, broken: bytes, place: float
) -> None:
    text = written.encode()
    at = int(place * len(text))
    body = b'{"a":"%b%b%b"}' % (text[:at], broken, text[at:])
    abridged = abridge(body)
    # What is put in may happen to complete what it is put between.
    assert abridged is None or refused(abridged[0]) == refused(body)


@pytest.mark.parametrize("broken", BROKEN)
def test_nothing_wrong_is_cut_out(broken: bytes) -> None:
    text = b"x" * 60_000
    for at in (0, 1, 15, 16, END - 1, END, END + 4096, 30_000, 59_999, 60_000):
        assert abridge(b'{"a":"%b%b%b"}' % (text[:at], broken, text[at:])) is None, at


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'"',
        b'{"a":"' + b"x" * 100_000,
        b'{"a":"' + b"x" * 100_000 + b'\\"',
        b'{"a":"' + b"x" * 100_000 + b"\\",
        b"[" + b'"short",' * 10_000 + b"0]",
        b'{"a":"' + b"x" * (CUT - 1) + b'"}',
        # Long to the bytes, but of few characters.
        b'{"a":"' + rb"\u0041" * (CUT - 1) + b'"}',
        b"[" + b",".join([b'"' + b"x" * CUT + b'"'] * 1025) + b"]",
    ],
    ids=range(10),
)
def test_a_body_from_which_nothing_is_to_be_gained_is_left_whole(body: bytes) -> None:
    assert abridge(body) is None


@pytest.mark.parametrize("outside", [b'{"a":"%b",}', b'{"a":"%b"', b'{"a" "%b"}', b'{"a":"%b"}x', b'\\"%b"'])
def test_what_is_wrong_outside_of_strings_stays_wrong(outside: bytes) -> None:
    abridged = abridge(outside % (b"x" * 100_000))
    assert abridged is not None
    assert refused(abridged[0])


def test_strings_of_the_same_length_are_told_apart() -> None:
    texts: list[Any] = ["x" * 20_000, "y" * 30_000, "x" * 20_000]
    abridged = abridge(orjson.dumps(texts))
    assert abridged is not None
    fields, lengths = orjson.loads(abridged[0]), abridged[1]
    assert lengths == (20_000, 30_000, 20_000)
    assert [len(text) - CUT for text in fields] == [0, 1, 2]
