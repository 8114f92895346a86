"""The filter that leaves the usage event out of a stream, against an oracle that decodes every event."""

import re
from itertools import pairwise

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._usage_event import UsageFilter

CHUNK = b'data: {"id":"x","choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":null}\n\n'
FINISH = b'data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}\r\n\r\n'
USAGE = b'data: {"id":"x","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
SPACED = b'event: x\ndata: { "usage" : { "prompt_tokens" : 3 } ,\ndata: "choices" : [ ] }\r\r'
QUOTED = b'data: {"choices":[{"delta":{"content":"\\"choices\\":[],\\"usage\\":{}"}}]}\n\n'
WITH_TOKENS = b'data: {"choices":[{"text":"","finish_reason":"stop"}],"usage":{"prompt_tokens":2}}\n\n'
FILTERED = b'data: {"choices":[],"prompt_filter_results":[{"usage":1}]}\n\n'
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
EVENTS = [CHUNK, FINISH, USAGE, SPACED, QUOTED, WITH_TOKENS, FILTERED, PING, DONE]


def shown(stream: bytes) -> bytes:
    """What a client gets: the oracle."""
    kept = []
    for event in re.findall(rb".*?(?:\n\n|\n\r\n|\r\r\n?|\Z)", stream, re.DOTALL):
        data = b"".join(re.findall(rb"(?m)^data: (.*?)\r*$", event))
        try:
            value = orjson.loads(data)
        except ValueError:
            value = None
        if not (
            isinstance(value, dict) and value.get("choices") == [] and isinstance(value.get("usage"), dict)
        ):
            kept.append(event)
    return b"".join(kept)


def filtered(stream: bytes, cuts: list[int]) -> bytes:
    sieve = UsageFilter()
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return b"".join(sieve.feed([stream[start:end]], end == len(stream)) for start, end in pairwise(edges))


@given(st.lists(st.sampled_from(EVENTS), min_size=1), st.lists(st.integers(0, 5000)), st.booleans())
@settings(max_examples=400)
def test_the_usage_event_alone_is_missing_however_the_stream_is_cut(
    events: list[bytes], cuts: list[int], unfinished: bool
) -> None:
    stream = b"".join(events)[: -2 if unfinished else None]
    assert filtered(stream, cuts) == shown(stream)


def test_every_single_cut_gives_the_same() -> None:
    stream = CHUNK + FINISH + USAGE + DONE
    for cut in range(len(stream)):
        assert filtered(stream, [cut]) == CHUNK + FINISH + DONE


@pytest.mark.parametrize("event", [CHUNK, QUOTED, WITH_TOKENS, FILTERED, PING, DONE])
def test_what_a_client_would_have_got_anyway_stays(event: bytes) -> None:
    assert filtered(event, []) == event


def test_whole_events_go_out_at_once_and_an_incomplete_one_waits() -> None:
    sieve = UsageFilter()
    assert sieve.feed([CHUNK + FINISH[:9]]) == CHUNK
    assert sieve.kept_bytes == 9
    assert sieve.feed([FINISH[9:]]) == FINISH
    assert sieve.kept_bytes == 0


def test_an_event_too_large_to_be_a_usage_flows_and_the_next_is_looked_at_again() -> None:
    large = b'data: {"choices":[],"usage":{"x":"' + b"a" * 200_000 + b'"}}\n\n'
    sieve = UsageFilter()
    got = []
    for at in range(0, len(large), 10_000):
        got.append(sieve.feed([large[at : at + 10_000]]))
        assert sieve.kept_bytes <= 65_536
    assert sum(map(bool, got)) > 10
    got.append(sieve.feed([USAGE + DONE], True))
    assert b"".join(got) == large + DONE
