"""The compiled reader of response heads, against h11 as the oracle: invalid bytes are refused."""

import h11
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from octoroute._http1 import Malformed, parse_head

EMPTY, LENGTH, CHUNKED, UNTIL_CLOSE = range(4)

names = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_!#$%&'*+.^`|~", min_size=1, max_size=20)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
framing_names = {"content-length", "transfer-encoding", "connection"}


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    status = draw(st.integers(200, 599))
    lines = [f"HTTP/1.1 {status} {draw(values)}"]
    for _ in range(draw(st.integers(0, 6))):
        name = draw(names.filter(lambda name: name.lower() not in framing_names))
        lines.append(f"{name}:{draw(st.sampled_from(['', ' ', '  ', chr(9)]))}{draw(values)}")
    framing = draw(st.sampled_from(["length", "chunked", "none"]))
    if framing == "length":
        lines.append(f"Content-Length: {draw(st.integers(0, 10**6))}")
    elif framing == "chunked":
        lines.append(draw(st.sampled_from(["Transfer-Encoding: chunked", "transfer-encoding:chunked"])))
    if draw(st.booleans()):
        lines.append(
            f"Connection: {draw(st.sampled_from(['close', 'keep-alive', 'Close', 'X-Thing, close']))}"
        )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def h11_response(data: bytes) -> h11.Response | None:
    """h11's reading of a response head; None where h11 refuses it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    try:
        event = client.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Response) else None


@given(heads())
@settings(max_examples=300)
def test_a_valid_head_reads_as_h11_reads_it(data: bytes) -> None:
    expected = h11_response(data)
    assume(expected is not None)
    assert expected is not None
    head, used = parse_head(data + b"body")
    assert head is not None
    assert used == len(data)
    assert head.status == expected.status_code
    assert head.reason == expected.reason
    assert head.headers == [(name, value) for name, value in expected.headers]


@given(heads(), st.data())
@settings(max_examples=150)
def test_a_head_that_is_cut_anywhere_is_waited_for(data: bytes, draw: st.DataObject) -> None:
    cut = draw.draw(st.integers(0, len(data) - 1))
    assert parse_head(data[:cut]) == (None, 0)


@given(st.binary(max_size=200))
@settings(max_examples=500)
def test_bytes_that_h11_refuses_are_refused_or_waited_for(junk: bytes) -> None:
    data = b"HTTP/1.1 200 OK\r\n" + junk + b"\r\n\r\n"
    try:
        head, _ = parse_head(data)
    except Malformed:
        return
    if head is not None:
        assert h11_response(data) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/2 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nname : v\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: v\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno-colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 257 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 70_000,
    ],
)
def test_a_malformed_head_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_head(data)


def test_only_headers_that_are_meant_for_the_client_go_on() -> None:
    head, _ = parse_head(
        b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nConnection: keep-alive, X-Hop\r\n"
        b"Keep-Alive: timeout=5\r\nX-Hop: 1\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Transfer-Encoding: chunked\r\nX-Octoroute-Tier: forged\r\n"
        b"X-Request-Id: theirs\r\nX-Kept: yes\r\n\r\n"
    )
    assert head is not None
    assert head.end_to_end == (
        b"Server: llama.cpp\r\nContent-Type: text/event-stream; charset=utf-8\r\nX-Kept: yes\r\n"
    )
    assert head.event_stream
    assert not head.json


@pytest.mark.parametrize(
    ("lines", "framing", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", LENGTH, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", EMPTY, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", CHUNKED, True),
        (b"HTTP/1.1 200 OK\r\n", UNTIL_CLOSE, False),
        (b"HTTP/1.1 204 No Content\r\n", EMPTY, True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n", EMPTY, True),
        (b"HTTP/1.1 100 Continue\r\n", EMPTY, True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n", LENGTH, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n", LENGTH, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n", LENGTH, False),
    ],
)
def test_the_head_tells_where_the_body_ends(lines: bytes, framing: int, keep_alive: bool) -> None:
    head, _ = parse_head(lines + b"\r\n")
    assert head is not None
    assert (head.framing, head.keep_alive) == (framing, keep_alive)
