"""The chunks of a second server, as the client of the first one gets them."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.upstream.events import EventReader, write_event
from octoroute.upstream.sequel import Sequel, Spent, judge_opening
from octoroute.upstream.transcript import Transcript

FIRST = {"id": "chatcmpl-1", "created": 1, "model": "alias"}
SECOND = {"id": "chatcmpl-2", "created": 2, "model": "other", "object": "chat.completion.chunk"}
SAID = "The quiet river follows "
REST = ("the ", "harbour", " 🐙", ".")


def chunk(names: dict[str, Any], finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return write_event(orjson.dumps({**names, "choices": [choice]}))


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return write_event(orjson.dumps({**SECOND, "choices": [], "usage": counts}))


def told(text: str = SAID) -> Transcript:
    transcript = Transcript(10_000, framed=False)
    transcript.absorb(chunk(FIRST, role="assistant", content=""))
    if text:
        transcript.absorb(chunk(FIRST, content=text))
    return transcript


def second(*texts: str) -> bytes:
    events = [chunk(SECOND, role="assistant", content=""), *(chunk(SECOND, content=text) for text in texts)]
    return b"".join([*events, chunk(SECOND, "stop"), usage(14, 4), write_event(b"[DONE]")])


class Client:
    """What the client gets of a sequel."""

    def __init__(self, so_far: Transcript, *, asks_usage: bool = True, count_only: bool = False) -> None:
        self.got: list[bytes] = []
        self.so_far = so_far
        self.sequel = Sequel(so_far, Spent(4, 4), self.got.append, usage=asks_usage, count_only=count_only)

    def feed(self, pieces: Iterable[bytes]) -> "Client":
        for piece in pieces:
            self.sequel.feed(piece)
        self.sequel.finish()
        return self

    @property
    def chunks(self) -> list[Any]:
        data = [data for _, data in EventReader().feed(b"".join(self.got)) if data is not None]
        return ["[DONE]" if one == b"[DONE]" else orjson.loads(one) for one in data]

    @property
    def text(self) -> str:
        choices = [one["choices"][0] for one in self.chunks if one != "[DONE]" and one["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)


@given(st.lists(st.integers(0, 3000), max_size=10))
def test_a_continuation_is_the_rest_of_one_stream_however_it_is_read(cuts: list[int]) -> None:
    payload = second(*REST)
    edges = sorted({0, len(payload), *(cut % (len(payload) + 1) for cut in cuts)})
    client = Client(told()).feed(payload[a:b] for a, b in pairwise(edges))
    assert client.text == "".join(REST)
    *chunks, done = client.chunks
    assert done == "[DONE]"
    assert all({name: one[name] for name in FIRST} == FIRST for one in chunks)
    assert not any("role" in one["choices"][0]["delta"] for one in chunks if one["choices"])
    assert chunks[-1]["usage"] == {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}
    assert (client.sequel.tokens, client.so_far.text) == ((10, 8), SAID + "".join(REST))
    assert client.so_far.done


def test_usage_that_was_not_asked_for_is_counted_and_not_shown() -> None:
    client = Client(told(), asks_usage=False).feed([second(*REST)])
    assert not any("usage" in one for one in client.chunks if one != "[DONE]")
    assert client.sequel.tokens == (10, 8)


def test_an_echo_of_the_text_is_taken_off() -> None:
    client = Client(told()).feed([second(SAID + REST[0], *REST[1:])])
    assert client.text == "".join(REST)


def test_a_whole_repetition_piece_by_piece_is_kept_from_the_client() -> None:
    client = Client(told()).feed([second("The ", "quiet ", "river ", "follows ", "the ")])
    assert (client.text, client.sequel.failed) == ("", "repeated")
    assert "[DONE]" not in client.chunks


def test_an_error_event_is_kept_from_the_client() -> None:
    error = write_event(b'{"error":{"message":"no"}}')
    client = Client(told()).feed([chunk(SECOND, content="the ") + error + chunk(SECOND, content="x")])
    assert (client.text, client.sequel.failed) == ("the ", "error_event")


def test_a_text_that_is_complete_gets_its_end_only() -> None:
    client = Client(told(), count_only=True).feed([second("some", "thing")])
    assert client.text == ""
    finish, counts, done = client.chunks
    assert (finish["choices"][0]["finish_reason"], done) == ("length", "[DONE]")
    assert counts["usage"]["completion_tokens"] == 4


def test_a_finish_that_was_told_is_not_told_again() -> None:
    so_far = told()
    so_far.absorb(chunk(FIRST, "stop"))
    client = Client(so_far, count_only=True).feed([second("some")])
    assert [one if one == "[DONE]" else "usage" in one for one in client.chunks] == [True, "[DONE]"]


@pytest.mark.parametrize(
    ("beginning", "opening", "verdict"),
    [
        ("One, two,", " three", "continues"),
        ("One, two,", "One, two, three", "echoes"),
        ("ha", "ha", "continues"),  # a token that comes twice
        ("ha", "haha", "echoes"),
        ("ha ha ha ha ha ", "ha ", "continues"),  # a model that goes round in circles
        ("Hello! How can I help you?", "Hello! How can I help you?", "echoes"),  # and nothing more
        ("Hello! How can I help you?", "Hello", "waits"),
        ("  Hello! How can I help you?", "Hello! How can I help you? I", "repeats"),  # trimmed
    ],
)
def test_the_first_words_tell_a_continuation_from_a_repetition(
    beginning: str, opening: str, verdict: str
) -> None:
    assert judge_opening(beginning, opening, first=True) == verdict


def test_thoughts_keep_the_name_that_they_had() -> None:
    so_far = told("")
    so_far.absorb(chunk(FIRST, reasoning="Let me see"))
    rest = [chunk(SECOND, reasoning_content=", yes."), chunk(SECOND, content="Yes."), chunk(SECOND, "stop")]
    client = Client(so_far).feed(rest)
    deltas = [one["choices"][0]["delta"] for one in client.chunks if one != "[DONE]"]
    assert deltas == [{"reasoning": ", yes."}, {"content": "Yes."}, {}]
