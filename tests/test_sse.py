"""Where events end, beside a plain oracle."""

import re

from hypothesis import given
from hypothesis import strategies as st

from octoroute._sse import first_data_event, last_event_end

payloads = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"data: x"]), max_size=12).map(b"".join)
# CR LF CR is not taken for one: where lines end with CR LF, the LF is about to come.
EMPTY_LINE = re.compile(rb"(?=(\n\n|\n\r\n|\r\r\n?))")
EVENT = re.compile(rb"(.*?)(?:\n\n|\n\r\n|\r\r\n?)", re.DOTALL)


def found_alike(payload: bytes) -> None:
    assert last_event_end(payload) == max((found.end(1) for found in EMPTY_LINE.finditer(payload)), default=0)
    events = [found[1] for found in EVENT.finditer(payload)]
    with_data = [one for one in events if re.search(rb"(?:^|[\r\n])data", one)]
    found = first_data_event(payload)
    assert (None if found is None else found.rstrip(b"\r\n")) == (
        with_data[0].rstrip(b"\r\n") if with_data else None
    )


@given(payloads)
def test_the_last_empty_line_and_the_first_event_with_data_are_found(payload: bytes) -> None:
    found_alike(payload)


def test_half_an_event_is_behind_the_end() -> None:
    assert last_event_end(b"data: 1\n\ndata: 2\n") == len(b"data: 1\n\n")
    assert last_event_end(b"data: 1\ndata: 2") == 0


def test_an_lf_behind_two_crs_belongs_to_the_event_that_they_end() -> None:
    assert last_event_end(b"data: 1\r\r") == len(b"data: 1\r\r")
    assert last_event_end(b"data: 1\r\r\n") == len(b"data: 1\r\r\n")
