"""What the relay keeps of a stream that may have to be continued by another server."""

from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._sse import Delivered
from octoroute._sweep import sweep
from tests.test_relay import STREAM_HEAD, UNTIL_CLOSE_HEAD, Answer, chunk, events, feed


def kept(*, recoded: bool = False) -> Answer:
    """An answer whose deliveries somebody wants."""
    relay = Answer(recoded=recoded)
    relay.delivered = Delivered()
    return relay


@given(events, st.lists(st.integers(0, 5000), max_size=10), st.integers(1, 40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_what_is_kept_of_a_stream_is_what_was_delivered(
    said: list[str], cuts: list[int], size: int, recoded: bool
) -> None:
    payload = "".join(said).encode()
    body = b"".join(chunk(payload[at : at + size]) for at in range(0, len(payload), size)) + b"0\r\n\r\n"
    relay = kept(recoded=recoded)
    delivered = relay.delivered
    assert delivered is not None
    feed(relay, STREAM_HEAD + body, cuts)
    assert delivered.take() == relay.text
    assert (delivered.take(), delivered.size) == (b"", 0)


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
    relay.writing_paused = True
    sweep([relay], relay.last_ns + 10_000_000_000)
    assert relay.calls == ["silence"] * 3
