"""Lines out of templates, held against Python's own formatting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute._line import Template


def template(bare: str = "abc", **changes: bytes) -> Template:
    words = {"end": b";", "absent": b"-", "empty": b"!", "quotes": b""} | changes
    return Template(
        [(b"t=", "text"), (b" n=", "count"), (b" x=", "tenths"), (b" w=", "word")],
        *(words["end"], words["absent"], words["empty"], words["quotes"], bare, "<{}>".format),
    )


@given(st.integers(0, 2**62), st.floats(0, 1e9))
def test_numbers_are_those_of_python(number: int, tenths: float) -> None:
    line = template().line(("a", number, tenths, "w")).decode()
    count, shown = line.split(" ")[1:3]
    assert count == f"n={number}"
    assert abs(float(shown[2:]) - tenths) <= 0.0500001
    assert shown[-2] == "."


@pytest.mark.parametrize("number", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_number_that_is_none_is_absent(number: float) -> None:
    assert template().line(("a", -1, number, "")) == b"t=a n=- x=- w=-;"


def test_texts_are_left_to_the_caller_unless_they_are_bare() -> None:
    shown = [
        template().line((text, 0, 0.0, "w")).split(b" ")[0] for text in ("cab", "abd", "", "-", "\u00e9")
    ]
    assert shown == [b"t=cab", b"t=<abd>", b"t=!", b"t=<->", "t=<\u00e9>".encode()]
    assert template(quotes=b'"').line(("a", 0, 0.0, "w")).startswith(b't="a" ')


def test_a_long_line_is_whole() -> None:
    text = "a" * 100_000
    assert len(template().line((text, 1, 1.0, text))) == 2 * len(text) + len("t= n=1 x=1.0 w=;")


def test_values_have_to_fit_the_template() -> None:
    with pytest.raises(ValueError, match="3 values for 4 parts"):
        template().line(("a", 1, 1.0))


@given(st.floats(0, 4e9))
def test_time_is_cut_to_milliseconds(now: float) -> None:
    clock = Template([(b"", "time")], b"", b"-", b"", b"", "", str)
    stamp = clock.line((now,)).decode()
    assert stamp[19:] == f".{int(now * 1000) % 1000:03d}Z"
    assert clock.line((now,)).decode() == stamp
