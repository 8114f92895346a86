"""The relay where it leaves the usage out: the same payload but for that event, framing that stays valid, and
no change at all until the event comes.
"""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._framing import Framing
from octoroute._relay import Relay
from octoroute._sweep import sweep

CHUNKED = 2
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = 'data: {"choices":[{"delta":{"content":"你好 🐙"}}]}\n\n'.encode()
FINISH = b'data: {"choices":[{"finish_reason":"stop","delta":{}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"
SHOWN = TOKEN * 3 + FINISH + DONE


class Answer(Relay):
    """Lets a stream flow when its first event is there."""

    def __init__(self, *, recoded: bool = False) -> None:
        super().__init__()
        self.recoded = recoded
        self.got: list[bytes] = []
        self.ended = False
        self.begin()
        self.leave_out_usage()
        self.idle_ns = self.deadline_ns = 10**18

    def on_held(self) -> None:
        if b"\n\n" in self.held_payload() or self.framing.done:
            if self.recoded:
                self.recode(self.got.append)
            else:
                self.pass_on(self.got.append, b"")
            self.ended = self.complete

    def on_end(self) -> None:
        self.ended = True

    @property
    def text(self) -> bytes:
        return b"".join(self.got)


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def payload(body: bytes) -> bytes:
    framing = Framing(CHUNKED)
    used, _, found = framing.feed(body)
    assert used == len(body)
    assert framing.done
    return found


def feed(relay: Relay, data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        relay.data_received(data[start:end])


LLAMA = chunk(TOKEN) * 3 + chunk(FINISH + USAGE) + chunk(DONE) + b"0\r\n\r\n"
VLLM = chunk(TOKEN) * 3 + chunk(FINISH) + chunk(USAGE) + chunk(DONE) + b"0\r\n\r\n"


@pytest.mark.parametrize("body", [LLAMA, VLLM])
def test_at_every_cut_of_a_stream_the_usage_event_alone_is_missing(body: bytes) -> None:
    wire = STREAM_HEAD + body
    for first in range(len(STREAM_HEAD), len(wire)):
        relay = Answer()
        feed(relay, wire, [first, first + 7])
        assert payload(relay.text) == SHOWN
        assert relay.ended
        assert relay.reusable


@given(st.lists(st.integers(0, 5000), max_size=12), st.integers(1, 200), st.booleans())
@settings(max_examples=300)
def test_chunks_and_reads_of_any_size_give_the_same(cuts: list[int], size: int, recoded: bool) -> None:
    said = TOKEN * 3 + FINISH + USAGE + DONE
    body = b"".join(chunk(said[at : at + size]) for at in range(0, len(said), size)) + b"0\r\n\r\n"
    relay = Answer(recoded=recoded)
    feed(relay, STREAM_HEAD + body, cuts)
    assert (relay.text if recoded else payload(relay.text)) == SHOWN
    assert relay.ended


def test_a_stream_without_usage_passes_verbatim_framing_included() -> None:
    first = b"0%x;ext=1\r\n%b\r\n" % (len(TOKEN), TOKEN)
    body = first + chunk(TOKEN) + chunk(DONE) + b"0\r\nX: y\r\n\r\n"
    relay = Answer()
    relay.data_received(STREAM_HEAD)
    relay.data_received(first)
    relay.data_received(body[len(first) :])
    assert relay.text == body


def test_each_event_goes_out_with_the_read_that_completes_it() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + chunk(TOKEN))
    relay.data_received(chunk(TOKEN) + chunk(TOKEN)[:9])
    assert relay.text == chunk(TOKEN) * 2
    assert relay.clean
    sweep([relay], relay.last_ns + 200_000_000)
    assert relay.text == chunk(TOKEN) * 2
    relay.data_received(chunk(TOKEN)[9:])
    assert relay.text == chunk(TOKEN) * 3


def test_a_usage_event_whose_rest_is_slow_to_come_is_never_seen() -> None:
    relay = Answer()
    half = chunk(FINISH + USAGE)[:-20]
    relay.data_received(STREAM_HEAD + chunk(TOKEN) + half)
    sweep([relay], relay.last_ns + 200_000_000)
    assert relay.text == chunk(TOKEN + FINISH)
    relay.data_received(chunk(FINISH + USAGE)[-20:] + chunk(DONE) + b"0\r\n\r\n")
    assert payload(relay.text) == TOKEN + FINISH + DONE


def test_a_body_that_ends_with_its_connection_is_filtered_to_its_end() -> None:
    relay = Answer(recoded=True)
    relay.data_received(UNTIL_CLOSE_HEAD + TOKEN)
    relay.data_received(FINISH + USAGE[:-2])
    relay.connection_lost(None)
    assert relay.ended
    assert relay.text == TOKEN + FINISH


def test_an_answer_that_is_no_stream_is_left_alone() -> None:
    relay = Answer()
    body = chunk(b'{"choices":[],"usage":{}}\n\n') + b"0\r\n\r\n"
    relay.data_received(JSON_HEAD + body)
    assert relay.text == body


def test_the_next_answer_on_the_connection_is_whole_again() -> None:
    relay = Answer()
    relay.data_received(STREAM_HEAD + VLLM)
    relay.begin()
    relay.got.clear()
    relay.data_received(STREAM_HEAD + VLLM)
    assert relay.text == VLLM
