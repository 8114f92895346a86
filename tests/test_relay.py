"""The compiled relay, fed reads as a transport would: what reaches the client is what the server sent, in
any splitting.
"""

import struct
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._gaps import set_gap_bounds
from octoroute._http1 import parse_head
from octoroute._relay import Relay
from octoroute._sweep import forgive, sweep
from octoroute.observe.metrics import INTER_TOKEN_S

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
UNTIL_CLOSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


class Wire:
    """The server's side of the connection as the relay sees it."""

    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Answer(Relay):
    """Lets an answer flow as soon as `release_at` bytes of its body are held, and notes what happened."""

    def __init__(self, release_at: int = 1, *, recoded: bool = False) -> None:
        super().__init__()
        self.release_at = release_at
        self.recoded = recoded
        self.got: list[bytes] = []
        self.ended = False
        self.failures: list[str] = []
        self.calls: list[str] = []
        self.taken: list[bytes | tuple[bytes, bytes, int]] = []  # of what was delivered, where that was much
        self.withholds = False
        self.wire = Wire()
        self.connection_made(self.wire)  # type: ignore[arg-type]
        self.begin()
        self.idle_ns = 10**18
        self.deadline_ns = 10**18

    def on_held(self) -> None:
        if self.held_bytes >= self.release_at or self.framing.done:
            if self.recoded:
                self.recode(self.got.append)
            else:
                self.pass_on(self.got.append, b"")
            self.ended = self.complete

    def on_end(self) -> None:
        self.ended = True

    def on_failure(self, reason: str) -> None:
        self.failures.append(reason)
        self.finish()

    def on_quiet(self) -> None:
        self.calls.append("quiet")

    def on_overdue(self) -> None:
        self.calls.append("overdue")

    def on_silence(self, silence_ns: int) -> None:
        assert silence_ns > self.watch_ns
        self.calls.append("silence")

    def on_delivered(self) -> None:
        assert self.delivered is not None
        taken = self.delivered.take()
        assert taken
        self.taken += taken
        self.calls.append("delivered")

    def on_error_word(self, data: bytes) -> bool:
        assert b'"error"' in data
        return self.withholds

    def on_idle_lost(self) -> None:
        self.calls.append("idle lost")

    @property
    def text(self) -> bytes:
        return b"".join(self.got)


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def feed(relay: Relay, data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        relay.data_received(data[start:end])


events = st.lists(
    st.sampled_from(
        [
            "data: 你好\n\n",
            "data: 🐙\r\n\r\n",
            ": ping\n\n",
            "event: x\ndata: y\n\n",
            "data: " + "a" * 300 + "\n\n",
            "data: [DONE]\n\n",
        ]
    ),
    min_size=1,
    max_size=8,
)


@given(events, st.lists(st.integers(0, 5000), max_size=10), st.integers(1, 40), st.integers(1, 4000))
@settings(max_examples=300)
def test_an_event_stream_arrives_byte_for_byte_however_it_is_read(
    said: list[str], cuts: list[int], size: int, release_at: int
) -> None:
    payload = "".join(said).encode()
    body = b"".join(chunk(payload[at : at + size]) for at in range(0, len(payload), size)) + b"0\r\n\r\n"
    relay = Answer(release_at)
    feed(relay, STREAM_HEAD + body, cuts)
    assert relay.ended
    assert relay.text == body
    assert relay.bytes_out == len(body)
    assert relay.reusable


@given(events, st.lists(st.integers(0, 5000), max_size=10), st.integers(1, 4000))
@settings(max_examples=200)
def test_a_recoded_stream_has_the_same_payload_and_whole_events(
    said: list[str], cuts: list[int], release_at: int
) -> None:
    payload = "".join(said).encode()
    relay = Answer(release_at, recoded=True)
    feed(relay, STREAM_HEAD + b"".join(chunk(event.encode()) for event in said) + b"0\r\n\r\n", cuts)
    assert relay.ended
    assert relay.text == payload


def test_an_event_goes_out_with_the_read_that_completes_it() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    relay.data_received(chunk(b"data: 2\n\n"))
    assert relay.got[-1] == chunk(b"data: 2\n\n")
    relay.data_received(chunk(b"data: 3\n\n") + chunk(b"data: 4")[:5])
    assert relay.got[-1] == chunk(b"data: 3\n\n")
    assert relay.clean


def test_a_read_that_ends_inside_an_event_after_whole_ones_is_passed_on_once() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    rest = chunk(b"data: 2\n\n") + chunk(b"data: 3\n\n") + b"0\r\n\r\n"
    inside_the_third = len(chunk(b"data: 2\n\n")) + 5
    relay.data_received(rest[:inside_the_third])
    relay.data_received(rest[inside_the_third:])
    assert relay.text == chunk(b"data: 1\n\n") + rest
    assert relay.bytes_out == len(relay.text)


def test_an_event_that_stays_incomplete_is_let_go_by_the_sweep() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    half = chunk(b"data: 2\n\n")[:8]
    relay.data_received(half)
    sweep([relay], relay.last_ns + 50_000_000)
    assert relay.text == chunk(b"data: 1\n\n")
    sweep([relay], relay.last_ns + 150_000_000)
    assert relay.text == chunk(b"data: 1\n\n") + half
    assert not relay.clean


def test_a_large_event_flows_before_it_is_complete() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    event = chunk(b"data: " + b"x" * 1_000_000 + b"\n\n")
    for at in range(0, len(event), 50_000):
        relay.data_received(event[at : at + 50_000])
        assert relay.held_bytes <= 65_536
    relay.data_received(b"0\r\n\r\n")
    assert relay.text == chunk(b"data: 1\n\n") + event + b"0\r\n\r\n"


def test_bytes_behind_the_end_are_not_passed_on_and_spoil_the_connection() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n") + b"0\r\n\r\n")
    assert relay.reusable
    relay.data_received(b"HTTP/1.1 200 OK\r\n")
    assert relay.wire.aborted
    assert relay.text == chunk(b"data: 1\n\n") + b"0\r\n\r\n"
    late = Answer()
    late.data_received(STREAM_HEAD + chunk(b"data: 1\n\n") + b"0\r\n\r\nmore")
    assert late.text == chunk(b"data: 1\n\n") + b"0\r\n\r\n"
    assert not late.reusable


@pytest.mark.parametrize("spoilt", [b"zz\r\n", b"3\r\nabcd\r\n", b"-1\r\n"])
def test_what_is_malformed_is_never_passed_on(spoilt: bytes) -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    relay.data_received(spoilt)
    assert relay.text == chunk(b"data: 1\n\n")
    assert relay.failures
    assert relay.failures[0].startswith("malformed")
    assert not relay.reusable


def test_a_body_that_ends_with_its_connection_is_complete_only_if_that_was_closed() -> None:
    closed, reset = Answer(), Answer()
    for relay, error in ((closed, None), (reset, ConnectionResetError())):
        relay.data_received(UNTIL_CLOSE_HEAD + b"data: 1\n\n")
        relay.connection_lost(error)
    assert (closed.ended, closed.failures) == (True, [])
    assert (reset.ended, reset.failures) == (False, ["reset"])


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 2", STREAM_HEAD, STREAM_HEAD + b"5\r\ndat", STREAM_HEAD + chunk(b"data: 1\n\n")]
)
def test_a_connection_that_ends_early_is_a_failure(sent: bytes) -> None:
    relay = Answer()
    if sent:
        relay.data_received(sent)
    relay.connection_lost(None)
    assert relay.failures == ["closed"]
    assert not relay.ended


def test_informational_heads_are_skipped_but_not_without_end() -> None:
    relay = Answer()
    relay.data_received(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + JSON_HEAD % 2 + b"{}"
    )
    assert relay.head.status == 200
    assert relay.text == b"{}"
    endless = Answer()
    endless.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" * 20)
    assert endless.failures == ["malformed: too many informational heads"]


def test_an_upgrade_is_refused() -> None:
    relay = Answer()
    relay.data_received(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    assert relay.failures == ["malformed: an upgrade nobody asked for"]


def test_gaps_are_counted_once_per_read_and_nil_for_events_that_came_together() -> None:
    set_gap_bounds([0.001, 0.1, 10.0])
    try:
        relay = Answer()
        relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
        relay.data_received(chunk(b"data: 2\n\n") * 3)
        packed, total = relay.gaps.read()
        counts = struct.unpack("4I", packed)
        assert sum(counts) == 3
        assert counts[0] >= 2
        assert 0 <= total < 10
    finally:
        # They are the process's: other tests of it need them as a gateway has them.
        set_gap_bounds(INTER_TOKEN_S)


def overdue(change: Callable[[Answer], None]) -> list[str]:
    relay = Answer()
    change(relay)
    sweep([relay], time.monotonic_ns() + 10_000_000_000)
    return relay.calls


def test_nobody_is_overdue_for_the_time_that_the_gateway_stood_still() -> None:
    relay = Answer()
    relay.deadline_ns = time.monotonic_ns() + 5_000_000_000
    relay.data_received(STREAM_HEAD)
    late = time.monotonic_ns() + 10_000_000_000
    forgive([relay], 9_000_000_000)
    sweep([relay], late)
    assert relay.calls == []
    sweep([relay], late + 5_000_000_000)
    assert relay.calls == ["overdue"]


def test_the_sweep_tells_who_is_overdue_and_who_hears_nothing() -> None:
    def stalls(relay: Answer) -> None:
        relay.idle_ns = 5_000_000_000
        relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))

    def never_answers(relay: Answer) -> None:
        relay.deadline_ns = time.monotonic_ns() + 5_000_000_000

    def is_quiet(relay: Answer) -> None:
        relay.ping_ns = 5_000_000_000

    assert overdue(stalls) == ["overdue"]
    assert overdue(never_answers) == ["overdue"]
    assert overdue(is_quiet) == ["quiet"]
    assert overdue(lambda relay: relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))) == []


def test_an_idle_connection_that_ends_is_told_apart_from_a_failed_exchange() -> None:
    relay = Answer()
    relay.data_received(JSON_HEAD % 2 + b"{}")
    relay.finish()
    relay.rest()
    relay.connection_lost(None)
    assert relay.calls == ["idle lost"]
    assert relay.failures == []


def test_the_usage_is_at_hand_though_the_end_comes_in_reads_of_its_own() -> None:
    relay = Answer()
    usage = chunk(b'data: {"choices":[],"usage":{"prompt_tokens":3}}\n\n')
    relay.data_received(STREAM_HEAD + chunk(b"data: 1\n\n"))
    for read in (usage, chunk(b": ping\n\n"), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"):
        relay.data_received(read)
    assert relay.ended
    assert relay.tail == usage


ALIKE = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-A: b\r\n\r\n",
    b"HTTP/1.1 404 OK\r\nContent-Length: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
]


@given(st.lists(st.tuples(st.sampled_from(ALIKE), st.integers(0, 60)), max_size=12))
def test_heads_that_are_much_alike_are_told_apart(heads: list[tuple[bytes, int]]) -> None:
    for data, cut in heads:
        answer = Answer()
        for piece in (data[:cut], data[cut:]):
            if piece:
                answer.data_received(piece)
        expected = parse_head(data)[0]
        assert answer.head is not None
        assert expected is not None
        assert (answer.head.status, answer.head.headers) == (expected.status, expected.headers)
        assert (answer.framing.kind, answer.head.length) == (expected.framing, expected.length)
