"""What a client has been told is read out of the bytes that it got."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.upstream.events import write_event
from octoroute.upstream.transcript import Transcript

NAMES = {"id": "chatcmpl-1", "created": 7, "model": "qwen"}


def chat(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return write_event(orjson.dumps({**NAMES, "choices": [choice]}))


def told(*events: bytes, limit: int = 1000) -> Transcript:
    transcript = Transcript(limit, framed=False)
    for event in events:
        transcript.absorb(event)
    return transcript


ANSWER = chat(role="assistant", content=None) + b"".join(chat(content=part) for part in ("你好", " 🐙", "\n"))


@given(st.lists(st.integers(0, 2000), max_size=8), st.integers(1, 90))
def test_the_text_is_the_same_however_it_was_delivered(cuts: list[int], size: int) -> None:
    chunks = [ANSWER[at : at + size] for at in range(0, len(ANSWER), size)]
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    transcript = Transcript(1000, framed=True)
    for start, end in pairwise(sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in cuts)})):
        transcript.absorb(wire[start:end])
    assert (transcript.text, transcript.pieces, transcript.role_sent) == ("你好 🐙\n", 3, True)
    assert transcript.identity == NAMES
    assert transcript.between_events
    assert not transcript.refusal


def test_the_end_is_told_step_by_step() -> None:
    transcript = told(chat(content="a"))
    assert (transcript.finish_reason, transcript.usage_sent, transcript.done) == ("", False, False)
    transcript.absorb(chat("stop"))
    assert (transcript.finish_reason, transcript.usage_sent) == ("stop", False)
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    transcript.absorb(write_event(orjson.dumps({**NAMES, "choices": [], "usage": usage})))
    assert (transcript.usage_sent, transcript.done) == (True, False)
    transcript.absorb(b"data: [DONE]\n\n")
    assert transcript.done


def test_a_count_holds_until_there_is_more_text() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    event = {**NAMES, "choices": [{"index": 0, "delta": {"content": "abc"}}], "usage": usage}
    transcript = told(write_event(orjson.dumps(event)))
    assert (transcript.tokens, transcript.prompt_tokens, transcript.usage_sent) == (3, 5, False)
    transcript.absorb(chat(content="d"))
    assert (transcript.tokens, transcript.prompt_tokens) == (-1, 5)
    del event["usage"]
    event["timings"] = {"predicted_n": 9}
    transcript.base = 10
    transcript.absorb(write_event(orjson.dumps(event)))
    assert transcript.tokens == 19


def test_reasoning_is_kept_apart_from_the_answer() -> None:
    transcript = told(chat(reasoning="I "), chat(reasoning="think"), chat(content="Yes"))
    assert (transcript.reasoning, transcript.reasoning_name, transcript.text) == (
        "I think",
        "reasoning",
        "Yes",
    )
    assert not transcript.refusal
    assert told(chat(content="Yes"), chat(reasoning_content="hm")).refusal


def test_completions_have_their_text_in_the_choice() -> None:
    event = write_event(orjson.dumps({**NAMES, "choices": [{"index": 0, "text": "a", "logprobs": None}]}))
    assert told(event, event).text == "aa"


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (write_event(b"{"), "an event that is not JSON"),
        (write_event(b"7"), "an event that is no object"),
        (write_event(b'{"choices":[{"index":1,"text":"a"}]}'), "several choices"),
        (write_event(b'{"choices":[{"index":0},{"index":1}]}'), "several choices"),
        (write_event(b'{"choices":[{"index":0,"text":"a","logprobs":{"tokens":[]}}]}'), "logprobs"),
        (chat(tool_calls=[{"index": 0}]), "a part of a tool call"),
        (chat(content=[{"text": "a"}]), "content that is no text"),
        (chat(audio={"id": "a"}), "an unknown delta"),
        (chat(content="é" * 501), "more text than recovery.resume_buffer_bytes"),
    ],
)
def test_what_is_not_understood_is_refused(event: bytes, why: str) -> None:
    assert told(chat(content="a"), event).refusal == why


def test_empty_members_of_a_delta_mean_nothing() -> None:
    assert not told(chat(content="a", tool_calls=None, refusal=None, reasoning_content="")).refusal
