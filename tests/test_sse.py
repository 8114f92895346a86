"""Where events end, beside a plain oracle."""

from hypothesis import given
from hypothesis import strategies as st

from octoroute._sse import last_event_end

payloads = st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"data: x"]), max_size=12).map(b"".join)


@given(payloads)
def test_the_last_empty_line_is_found(payload: bytes) -> None:
    ends = [
        end
        for mark in (b"\n\n", b"\r\n\r\n", b"\r\r")
        if (end := payload.rfind(mark) + len(mark)) >= len(mark)
    ]
    assert last_event_end(payload) == max(ends, default=0)


def test_half_an_event_is_behind_the_end() -> None:
    assert last_event_end(b"data: 1\n\ndata: 2\n") == len(b"data: 1\n\n")
    assert last_event_end(b"data: 1\ndata: 2") == 0
