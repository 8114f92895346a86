"""What the relay keeps of a stream that may have to be continued by another server."""

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octoroute._delivered import Delivered, Pattern
from octoroute._sweep import sweep
from octoroute.upstream.transcript import Transcript
from tests.test_relay import STREAM_HEAD, UNTIL_CLOSE_HEAD, Answer, chunk, events, feed


def kept(*, recoded: bool = False) -> Answer:
    """An answer whose deliveries somebody wants."""
    relay = Answer(recoded=recoded)
    relay.delivered = Delivered(1 << 20)
    return relay


@given(events, st.lists(st.integers(0, 5000), max_size=10), st.integers(1, 40), st.booleans())
@example(["data: " + "a" * 2000 + "\n\n"], [81], 1, False)  # so much that it is taken in between
@settings(max_examples=200)
def test_what_is_kept_of_a_stream_is_what_was_delivered(
    said: list[str], cuts: list[int], size: int, recoded: bool
) -> None:
    payload = "".join(said).encode()
    body = b"".join(chunk(payload[at : at + size]) for at in range(0, len(payload), size)) + b"0\r\n\r\n"
    relay = kept(recoded=recoded)
    delivered = relay.delivered
    assert delivered is not None
    feed(relay, STREAM_HEAD + body, cuts)
    items = [*relay.taken, *delivered.take()]
    assert b"".join(item for item in items if isinstance(item, bytes)) == relay.text
    assert (delivered.take(), delivered.size) == ([], 0)


def test_half_an_event_of_a_kept_stream_waits_for_its_rest() -> None:
    relay = kept()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    relay.data_received(chunk(b"data: 2\n\n")[:8])
    sweep([relay], relay.last_ns + 10_000_000_000)
    assert (relay.text, relay.clean) == (chunk(b"data: 1\n\n"), True)
    relay.data_received(chunk(b"data: 2\n\n")[8:])
    assert relay.text == chunk(b"data: 1\n\n") + chunk(b"data: 2\n\n")


def test_an_event_too_large_to_be_held_flows_though_the_stream_is_kept() -> None:
    relay = kept()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    relay.data_received(chunk(b"x" * 70_000)[:69_000])
    assert not relay.clean


def test_whole_events_of_a_recoded_stream_go_out_while_the_next_is_incomplete() -> None:
    relay = kept(recoded=True)
    relay.data_received(UNTIL_CLOSE_HEAD + b"data: 1\n\n")
    relay.data_received(b"data: 2\n\ndata: 3")
    assert relay.got[-1] == b"data: 2\n\n"
    relay.data_received(b"\n\n")
    assert relay.got[-1] == b"data: 3\n\n"


def test_many_delivered_bytes_are_offered_to_be_taken() -> None:
    relay = kept()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    for _ in range(40):
        relay.data_received(chunk(b"data: " + b"x" * 1000 + b"\n\n"))
    assert "delivered" in relay.calls


def test_an_error_event_can_be_kept_from_the_client() -> None:
    error = chunk(b'data: {"error":{"message":"no"}}\n\n')
    shown, withheld, unasked = kept(), kept(), Answer()
    withheld.withholds = unasked.withholds = True
    for relay in (shown, withheld, unasked):
        relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
        relay.data_received(error)
    assert shown.text == unasked.text == chunk(b"data: 1\n\n") + error
    assert withheld.text == chunk(b"data: 1\n\n")


def test_a_server_that_is_silent_is_told_of_again_and_again() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    relay.watch_ns = 2_000_000_000
    for silence in (1.0, 2.5, 2.7, 3.1, 3.7):
        sweep([relay], relay.last_ns + int(silence * 1e9))
    assert relay.calls == ["silence"] * 3


def test_a_server_is_not_silent_while_its_client_does_not_read_nor_just_after() -> None:
    relay = Answer()
    relay.idle_ns = 60_000_000_000
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    relay.watch_ns = 2_000_000_000
    now = relay.last_ns
    relay.writing_paused = True
    sweep([relay], now + 10_000_000_000)
    relay.writing_paused = False
    sweep([relay], now + 11_000_000_000)
    assert relay.calls == []
    sweep([relay], now + 13_000_000_000)
    assert relay.calls == ["silence"]


LEARNT = b'data: {"id":"a","created":%d,"choices":[{"delta":{"content":"%b"}}]}\n\n'
alike = st.tuples(st.just(LEARNT), st.integers(0, 10**9), st.text(max_size=8))
others = st.tuples(
    st.sampled_from(
        (
            b'data: {"id":"b","created":%d,"choices":[{"delta":{"content":"%b"}}]}\n\n',
            b'data: {"id":"a","created":%d,"choices":[{"delta":{"content":"%b"},"finish_reason":"x"}]}\n\n',
            b'data: {"id":"a","created":%d,"choices":[{"delta":{"content":"%b"}}]}\r\n\r\n',
            b": %d %b\n\n",
        )
    ),
    st.integers(0, 99),
    st.text("ab\u4e2d\\", max_size=3),
)


def written(form: bytes, number: int, text: str) -> bytes:
    return form % (number, orjson.dumps(text)[1:-1])


@given(
    st.lists(st.lists(alike | others, min_size=1, max_size=4), max_size=12),
    st.lists(st.integers(0, 9000), max_size=10),
    st.booleans(),
)
@settings(max_examples=300)
def test_the_text_of_events_that_are_alike_is_kept_in_its_order_and_all_else_as_it_came(
    chunks: list[list[tuple[bytes, int, str]]], cuts: list[int], recoded: bool
) -> None:
    relay = kept(recoded=recoded)
    delivered = relay.delivered
    assert delivered is not None
    delivered.expect(Pattern(written(LEARNT, 1, "x"), b"content"))
    body = b"".join(chunk(b"".join(written(*event) for event in events)) for events in chunks)
    feed(relay, STREAM_HEAD + body + b"0\r\n\r\n", cuts)
    transcript = Transcript(10_000, framed=not recoded)
    transcript.take_over(delivered)
    oracle = Transcript(10_000, framed=not recoded)
    oracle.absorb(relay.text)
    for name in ("text", "pieces", "finish_reason", "refusal", "between_events"):
        assert getattr(transcript, name) == getattr(oracle, name)


def test_what_came_before_it_was_known_what_events_are_like_stays_as_it_came() -> None:
    relay = kept()
    first = chunk(written(LEARNT, 1, "a"))
    relay.data_received(STREAM_HEAD + first)
    delivered = relay.delivered
    assert delivered is not None
    assert (delivered.latest, delivered.expects) == (first, False)
    delivered.expect(Pattern(written(LEARNT, 1, "a"), b"content"))
    for text in "bc":
        relay.data_received(chunk(written(LEARNT, 2, text)))
    assert (delivered.latest, delivered.expects, delivered.size) == (b"", True, 0)
    assert delivered.take() == [first, (b"content", b"bc", 2)]


def test_events_that_are_alike_leave_nothing_but_their_text() -> None:
    relay = kept()
    relay.data_received(STREAM_HEAD + chunk(written(LEARNT, 1, "a")))
    delivered = relay.delivered
    assert delivered is not None
    transcript = Transcript(10_000, framed=True)
    transcript.take_over(delivered)
    for at in range(1000):
        relay.data_received(chunk(written(LEARNT, at, "é")))
    assert delivered.take() == [(b"content", "é".encode() * 1000, 1000)]


def test_their_text_is_offered_to_be_taken_when_it_is_more_than_was_allowed() -> None:
    relay = kept()
    relay.delivered = delivered = Delivered(100)
    relay.data_received(STREAM_HEAD + chunk(written(LEARNT, 1, "a")))
    delivered.expect(Pattern(written(LEARNT, 1, "a"), b"content"))
    other = chunk(b": a comment between them\n\n")
    for text in ("b" * 60, "", "c" * 40, "d"):
        relay.data_received(chunk(written(LEARNT, 2, text)) if text else other)
        assert ("delivered" in relay.calls) is (text == "d")


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (b'data: {"content":1}\n\n', b"content"),
        (b'data: {"content":"a","x":{"content":"b"}}\n\n', b"content"),
        (b'data: {"content":"a\n\n', b"content"),
        (b'data: {"text":"a"}\n\n', b"content"),
    ],
)
def test_a_pattern_has_exactly_one_string(event: bytes, name: bytes) -> None:
    with pytest.raises(ValueError, match="string"):
        Pattern(event, name)
