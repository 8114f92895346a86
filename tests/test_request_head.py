"""The reader of ordinary requests: whatever it accepts, aiohttp's parser reads in the same way."""

import asyncio
from collections.abc import Iterator

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from hypothesis import example, given
from hypothesis import strategies as st

from octoroute._request import NOT_FORWARDED, Body, RequestHead, read_head

USUAL = (b"Host: a", b"Content-Type: application/json", b"Content-Length: 2")
PATH = b"/v1/chat/completions"


def raw(*lines: bytes, path: bytes = PATH, first: bytes = b"POST %b HTTP/1.1") -> bytes:
    start = first % path if b"%b" in first else first
    return b"\r\n".join((start, *lines, b"", b""))


def accepted(data: bytes) -> RequestHead:
    head = read_head(data)
    assert head is not None
    return head


class Sink:
    """What aiohttp's parser wants of its protocol."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def by_aiohttp(data: bytes, loop: asyncio.AbstractEventLoop) -> RawRequestMessage | None:
    parser = HttpRequestParser(
        Sink(),  # type: ignore[arg-type]
        loop,
        65536,
        max_line_size=16384,
        max_field_size=16384,
        max_headers=256,
    )
    try:
        messages, upgraded, _ = parser.feed_data(data)
    except HttpProcessingError:
        return None
    assert not upgraded
    return messages[0][0] if messages else None


def reads_alike(data: bytes, loop: asyncio.AbstractEventLoop) -> None:
    """What is taken for an ordinary request, aiohttp takes too, for the same; and what is passed on of it."""
    head = read_head(data)
    if head is None:
        return
    message = by_aiohttp(data[: head.body_at], loop)
    assert message is not None
    assert (message.method, message.path, message.version) == ("POST", head.path, (1, 1))
    assert (message.should_close, message.upgrade, message.chunked) == (False, False, False)
    assert message.compression is None
    assert head.body_at == data.index(b"\r\n\r\n") + 4
    assert [int(each) for each in message.headers.getall("Content-Length")] == [head.length]
    assert message.headers.get("X-Request-Id") == head.request_id
    read_again = by_aiohttp(raw(b"Host: a", *head.forwarded.split(b"\r\n")[:-1]), loop)
    assert read_again is not None
    passed_on = [pair for pair in message.raw_headers if pair[0].lower() not in NOT_FORWARDED]
    assert list(read_again.raw_headers)[1:] == passed_on
    for name in ("Authorization", "X-Api-Key", "X-Octoroute-Importance", "X-Octoroute-Session"):
        assert head.get(name) == message.headers.get(name)


def test_the_usual_request_is_ordinary() -> None:
    data = raw(
        *USUAL, b"X-Trace: 1", b"X-Request-Id: me-1", b"Authorization: Bearer k", b"Connection: keep-alive"
    )
    head = accepted(data + b"{}")
    assert (head.path, head.request_id, head.body_at, head.length) == (PATH.decode(), "me-1", len(data), 2)
    assert head.forwarded == b"X-Trace: 1\r\n"
    assert (head.get("authorization"), head.get("X-Absent")) == ("Bearer k", None)


def test_the_gateways_own_headers_are_found_and_not_passed_on() -> None:
    head = accepted(raw(*USUAL, b"x-OCTOROUTE-importance:\thigh ", b"X-Other: 2"))
    assert head.get("X-Octoroute-Importance") == "high"
    assert head.forwarded == b"X-Other: 2\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        raw(*USUAL)[:-1],
        raw(*USUAL, first=b"GET %b HTTP/1.1"),
        raw(*USUAL, first=b"POST %b HTTP/1.0"),
        raw(*USUAL, first=b"POST  %b HTTP/1.1"),
        raw(*USUAL, path=b"/v1/chat/completions?x=1"),
        raw(*USUAL, path=b"http://a/v1/chat/completions"),
        raw(*USUAL, path=b"/" + b"a" * 64),
        raw(*USUAL[:2]),
        raw(*USUAL[1:]),
        raw(USUAL[0], USUAL[2]),
        raw(*USUAL, b"Content-Length: 2"),
        raw(*USUAL[:2], b"Content-Length: 0"),
        raw(*USUAL[:2], b"Content-Length: +2"),
        raw(*USUAL[:2], b"Content-Length: 99999999999"),
        raw(USUAL[0], b"Content-Type: text/plain", USUAL[2]),
        raw(*USUAL, b"Transfer-Encoding: chunked"),
        raw(*USUAL, b"Content-Encoding: gzip"),
        raw(*USUAL, b"Expect: 100-continue"),
        raw(*USUAL, b"Upgrade: h2c"),
        raw(*USUAL, b"Connection: close"),
        raw(*USUAL, b"Connection: keep-alive, X-Other"),
        raw(*USUAL, b"Host: b"),
        raw(*USUAL, b"Authorization: Bearer a", b"AUTHORIZATION: Bearer b"),
        raw(*USUAL, b"Authorization: Bearer a", b"X-Api-Key: b"),
        raw(*USUAL, b"X-Request-Id: a b"),
        raw(*USUAL, b"X-Request-Id: " + b"a" * 129),
        raw(*USUAL, b" folded: 1"),
        raw(*USUAL, b"Bad Name: 1"),
        raw(*USUAL, b"NoColon"),
        raw(*USUAL, b"X-A: \x00"),
        raw(*USUAL, b"X-A: \xc3\xa9"),
        raw(*USUAL, b"X-A: a\nX-B: b"),
        raw(*USUAL, b"X-A: a\rb"),
        raw(*USUAL, b"X-A: " + b"a" * 16384),
        raw(*USUAL, *(b"X-%d: 1" % each for each in range(100))),
    ],
)
def test_anything_else_is_left_to_the_parser_that_can_explain_it(data: bytes) -> None:
    assert read_head(data) is None


names = st.sampled_from(
    [*sorted(NOT_FORWARDED), b"X-A", b"x-b", b"Host", b"CONTENT-LENGTH", b"Content-Type", b"a" * 40]
)
values = st.one_of(
    st.sampled_from(
        [b"2", b"02", b"1, 1", b"application/json", b"keep-alive", b"close", b"chunked", b"a", b""]
    ),
    st.binary(max_size=8),
)
spaces = st.sampled_from([b"", b" ", b"\t", b"  "])
lines = st.tuples(names, spaces, values, spaces).map(lambda parts: b"%b:%b%b%b" % parts)
changes = st.tuples(
    st.integers(0, 400), st.sampled_from([b"", b"\r", b"\n", b" ", b":", b"\x00", b"\r\n", b"\xff"])
)


@given(
    extra=st.lists(lines, max_size=4),
    order=st.permutations(USUAL),
    left_out=st.sampled_from([0, 0, 0, 1]),
    change=st.one_of(st.none(), changes),
)
@example(extra=[b"x-a:1"], order=list(USUAL), left_out=0, change=None)
def test_what_is_accepted_is_what_aiohttp_reads(
    loop: asyncio.AbstractEventLoop,
    extra: list[bytes],
    order: list[bytes],
    left_out: int,
    change: tuple[int, bytes] | None,
) -> None:
    data = raw(*order[left_out:], *extra)
    if change is not None:
        at, put = change
        data = data[:at] + put + data[at + 1 :]
    reads_alike(data, loop)


@given(at=st.integers(0, 200))
def test_a_head_that_is_not_whole_is_not_ordinary(at: int) -> None:
    data = raw(*USUAL, b"X-A: 1")
    assert (read_head(data[:at]) is None) == (at < len(data))


@given(st.binary(min_size=1, max_size=50), st.lists(st.integers(0, 60), max_size=5), st.binary(max_size=5))
def test_a_body_is_put_together_from_pieces(whole: bytes, cuts: list[int], behind: bytes) -> None:
    body, data, at = Body(len(whole)), whole + behind, 0
    rest = b""
    for end in (*sorted(cuts), len(data)):
        piece = b"xx" + data[at:end]
        rest += piece[body.add(piece, 2) :]
        at = max(at, end)
    assert (body.missing, body.take(), rest) == (0, whole, behind)


def test_a_body_is_taken_once_and_whole() -> None:
    body = Body(2)
    body.add(b"a")
    with pytest.raises(ValueError, match="1 bytes are missing"):
        body.take()
    body.add(b"b")
    assert body.take() == b"ab"
    with pytest.raises(ValueError, match="0 bytes are missing"):
        body.take()


def test_a_body_may_be_read_into_its_place() -> None:
    body = Body(6)
    body.add(b"ab")
    place = body.place()
    assert place.nbytes == 4
    place[:3] = b"cde"
    body.grew(3)
    body.place()[:] = b"f"
    body.grew(1)
    assert body.take() == b"abcdef"
    with pytest.raises(BufferError, match="taken"):
        body.place()


@pytest.mark.parametrize("count", [-1, 3])
def test_no_more_can_be_read_into_a_body_than_is_missing(count: int) -> None:
    with pytest.raises(ValueError, match="2 were missing"):
        Body(2).grew(count)
