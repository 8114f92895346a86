"""The compiled relay beside h11, which reads the same bytes: valid answers mean the same to both in every
split, and of bytes that h11 refuses nothing but the valid beginning is passed on.
"""

import re
from itertools import pairwise

import h11
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.test_framing import chunked_bodies
from tests.test_http1 import values
from tests.test_relay import Answer, feed


class Reading:
    """What h11 makes of an answer: its payload, whether that is whole, whether bytes are left behind it."""

    def __init__(self, wire: bytes) -> None:
        self.payload = b""
        self.whole = self.refused = False
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        client.send(h11.EndOfMessage())
        client.receive_data(wire)
        try:
            while True:
                event = client.next_event()
                if event is h11.NEED_DATA:
                    return
                if isinstance(event, h11.Data):
                    self.payload += event.data
                elif isinstance(event, h11.EndOfMessage):
                    self.whole = True
                    return
        except h11.RemoteProtocolError:
            self.refused = True


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A valid answer whose body ends by itself."""
    lines = [f"HTTP/1.1 {draw(st.sampled_from([200, 201, 400, 503]))} {draw(values)}".encode()]
    lines.append(draw(st.sampled_from([b"Content-Type: text/event-stream", b"X-Any: thing"])))
    if draw(st.booleans()):
        body, _ = draw(chunked_bodies())
        lines.append(b"Transfer-Encoding: chunked")
    else:
        body = draw(st.binary(max_size=300))
        lines.append(b"Content-Length: %d" % len(body))
    informational = draw(st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    return informational + b"\r\n".join(lines) + b"\r\n\r\n" + body


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """An answer with a few bytes changed, added or taken away where it matters."""
    wire = bytearray(draw(answers()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(wire) - 1, 0)))
        length = draw(st.integers(0, 2))
        wire[at : at + length] = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"0", b"f", b";", b":", b" ", b"\0", b"-", b"\xff"])
        )
    return bytes(wire)


def legal_only_for_us(wire: bytes) -> bool:
    """White space before a chunk extension: RFC 9112, section 7.1.1, wants it read, and h11 refuses it."""
    return re.search(rb"[0-9a-fA-F][ \t]+;", wire) is not None


cuts = st.lists(st.integers(0, 5000), max_size=10)


def payload_of(relay: Answer) -> bytes:
    """What the client reads out of the relayed bytes, which end wherever they end."""
    if relay.framing.kind != 2:
        return relay.text
    reading = Reading(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + relay.text)
    assert not reading.refused, relay.text
    return reading.payload


@given(answers(), cuts)
@settings(max_examples=300)
def test_a_valid_answer_means_the_same_to_both_in_every_split(wire: bytes, at: list[int]) -> None:
    assume(not legal_only_for_us(wire))
    expected = Reading(wire)
    assert expected.whole
    relay = Answer()
    feed(relay, wire, at)
    assert (relay.failures, relay.ended, relay.reusable) == ([], True, True)
    assert payload_of(relay) == expected.payload
    assert wire.endswith(relay.text)


@given(answers())
@settings(max_examples=60)
def test_a_valid_answer_may_come_in_single_bytes_or_be_cut_in_two_anywhere(wire: bytes) -> None:
    whole = Answer()
    whole.data_received(wire)
    single = Answer()
    feed(single, wire, list(range(len(wire))))
    assert (single.text, single.ended) == (whole.text, True)
    for cut in range(1, len(wire)):
        halves = Answer()
        feed(halves, wire, [cut])
        assert (halves.text, halves.ended) == (whole.text, True)


@given(spoilt(), cuts)
@settings(max_examples=800)
def test_bytes_that_h11_refuses_are_never_passed_on(wire: bytes, at: list[int]) -> None:
    assume(not legal_only_for_us(wire))
    expected = Reading(wire)
    relay = Answer()
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in at)})
    for start, end in pairwise(edges):
        if relay.ended or relay.failures:
            break
        relay.data_received(wire[start:end])
    if relay.ended:
        assert expected.whole, "it took for whole what h11 did not"
        assert payload_of(relay) == expected.payload
    else:
        assert expected.payload.startswith(payload_of(relay))
    if expected.refused:
        assert not relay.ended


@given(spoilt(), cuts)
@settings(max_examples=300)
def test_every_split_of_malformed_bytes_comes_to_the_same_end(wire: bytes, at: list[int]) -> None:
    ends = []
    for split in (at, [], list(range(len(wire)))):
        relay = Answer()
        edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in split)})
        for start, end in pairwise(edges):
            if relay.ended or relay.failures:
                break
            relay.data_received(wire[start:end])
        ends.append((relay.ended, bool(relay.failures), relay.ended and relay.text))
    assert ends[0] == ends[1] == ends[2]
