"""The compiled reader of body framing, against h11: every split of valid bytes gives the same."""

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._framing import Framing
from octoroute._http1 import Malformed

EMPTY, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)


@st.composite
def chunked_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(bytes on the wire, payload)"""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=6))
    wire = b""
    for piece in pieces:
        size = draw(st.sampled_from(["%x", "%X", "0%x"])) % len(piece)
        extension = draw(st.sampled_from(["", ";a=b", ";a", ' ;x="y"']))
        wire += f"{size}{extension}\r\n".encode() + piece + b"\r\n"
    trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"]))
    return wire + b"0\r\n" + trailer + b"\r\n", b"".join(pieces)


@given(chunked_bodies(), st.lists(st.integers(0, 2000), max_size=8), st.binary(max_size=5))
@settings(max_examples=300)
def test_every_split_of_a_chunked_body_gives_the_same_payload_and_end(
    body: tuple[bytes, bytes], cuts: list[int], after: bytes
) -> None:
    wire, payload = body
    data = wire + after
    framing = Framing(CHUNKED)
    got, used = b"", 0
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    for start, end in pairwise(edges):
        taken, _, piece = framing.feed(data[start:end])
        used += taken
        got += piece
        if framing.done:
            break
    assert framing.done
    assert got == payload
    assert used == len(wire)
    assert framing.payload_bytes == len(payload)


@given(st.binary(min_size=1, max_size=60))
@settings(max_examples=500)
def test_chunking_that_h11_refuses_is_refused_or_incomplete(junk: bytes) -> None:
    framing = Framing(CHUNKED)
    try:
        framing.feed(junk)
    except Malformed:
        return
    if framing.done:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + junk)
        events: list[object] = []
        while not events or not isinstance(events[-1], h11.EndOfMessage):
            event = client.next_event()
            assert event is not h11.NEED_DATA
            events.append(event)


@pytest.mark.parametrize(
    "data",
    [
        b"-5\r\n",
        b"\r\n",
        b"g\r\n",
        b"0x5\r\n",
        b" 5\r\n",
        b"5\n",
        b"5\rx",
        b"ffffffffffffffffff\r\n",
        b"1ffffffff\r\n",
        b"5;" + b"a" * 5000,
        b"5;\n\r\n",
        b"2\r\nabc\r\n",
        b"2\r\nab\n",
        b"0\r\n\n",
        b"0\r\n: x\r\n\r\n",
        b"0\r\nA: " + b"x" * 9000,
        b"0\r\nA: b\nC: d\r\n\r\n",
        b"0\r\nno-colon\r\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\n" + b"a:\r\n" * 5000,
        b"5 a\r\n",
        b"5" + b" " * 5000,
    ],
)
def test_malformed_chunking_is_refused_at_any_split(data: bytes) -> None:
    with pytest.raises(Malformed):
        Framing(CHUNKED).feed(data)
    framing = Framing(CHUNKED)
    with pytest.raises(Malformed):  # noqa: PT012
        for at in range(len(data)):
            framing.feed(data[at : at + 1])


@pytest.mark.parametrize(
    ("payload", "settled"),
    [
        (b"data: a\n\n", True),
        (b"data: a\r\n\r\n", True),
        (b"data: a\r\r", True),
        (b"data: a\r\r\n", True),
        (b"data: a\n\r\n", True),
        (b": ping\n\n", True),
        (b"data: a\n", False),
        (b"data: a", False),
        (b"data: a\r\n\r", False),
    ],
)
def test_a_chunk_is_settled_when_its_last_event_is_complete(payload: bytes, settled: bool) -> None:
    wire = b"%x\r\n%b\r\n" % (len(payload), payload)
    assert Framing(CHUNKED).feed(wire)[:2] == (len(wire), len(wire) if settled else 0)
    # The end of an event counts only together with the end of its chunk.
    assert Framing(CHUNKED).feed(wire[:-1])[1] == 0
    # The same event in chunks of one byte.
    single = b"".join(b"1\r\n%c\r\n" % byte for byte in payload)
    assert Framing(CHUNKED).feed(single)[1] == (len(single) if settled else 0)


def test_a_body_of_known_length_ends_after_it() -> None:
    framing = Framing(LENGTH, 5)
    assert framing.feed(b"abc") == (3, 0, b"abc")
    assert not framing.done
    assert framing.feed(b"defgh") == (2, 2, b"de")
    assert framing.done
