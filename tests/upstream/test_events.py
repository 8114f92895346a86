"""Events are told apart in any splitting, with any ends of line."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from octoroute.upstream.events import EventReader, write_event

EVENTS = [
    (b"data: {}\n\n", b"{}"),
    (b"data:[DONE]\r\n\r\n", b"[DONE]"),
    (b": ping\n\n", None),
    (b"event: error\rdata: a\rdata: b\r\r", b"a\nb"),
    ("data: 你好 🐙\n\n".encode(), "你好 🐙".encode()),
]


@given(st.lists(st.sampled_from(EVENTS), max_size=6), st.lists(st.integers(0, 200), max_size=6))
def test_events_are_the_same_however_they_come(
    said: list[tuple[bytes, bytes | None]], cuts: list[int]
) -> None:
    payload = b"".join(event for event, _ in said)
    reader = EventReader()
    edges = sorted({0, len(payload), *(cut % (len(payload) + 1) for cut in cuts)})
    pieces = [payload[a:b] for a, b in pairwise(edges)]
    found = [event for piece in pieces for event in reader.feed(piece)]
    assert b"".join(event for event, _ in found) + reader.rest == payload
    # A cut between CR and LF makes the LF the beginning of the next event; its data is the same.
    assert [data for _, data in found if data is not None] == [data for _, data in said if data is not None]


def test_the_beginning_of_an_event_waits_for_its_rest() -> None:
    reader = EventReader()
    assert reader.feed(b"data: 1\n\ndata: 2\n") == [(b"data: 1\n\n", b"1")]
    assert reader.rest == b"data: 2\n"
    assert reader.feed(b"\n") == [(b"data: 2\n\n", b"2")]


def test_what_is_written_is_read_back() -> None:
    assert EventReader().feed(write_event(b'{"a":"\\n"}')) == [(b'data: {"a":"\\n"}\n\n', b'{"a":"\\n"}')]
