"""A stream's chunks become the plain answer that the server would have written, or the doubt has a name.

The chunks are those that a real llama.cpp was seen to write; tests/end_to_end/real compares with one.
"""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.upstream.assembling import Assembler, written_for_nothing
from octoroute.upstream.events import DONE, write_event
from octoroute.upstream.streamable import CHAT, COMPLETIONS

NAMES = {"created": 7, "id": "chatcmpl-1", "model": "smol", "system_fingerprint": "b0-unknown"}
ROLE = {"role": "assistant", "content": None}
END = write_event(DONE)


def timings(count: int) -> dict[str, Any]:
    return {"cache_n": 0, "prompt_n": 4, "predicted_n": count, "predicted_ms": 1.25}


def usage(count: int) -> dict[str, Any]:
    return {"completion_tokens": count, "prompt_tokens": 4, "total_tokens": 4 + count}


def chunk(choices: list[Any], **more: Any) -> bytes:
    return write_event(orjson.dumps({"choices": choices, **NAMES, "object": "chat.completion.chunk", **more}))


def delta(changed: dict[str, Any], count: int = 0, **more: Any) -> bytes:
    choice = {"finish_reason": None, "index": 0, "delta": changed, **more}
    return chunk([choice], **({"timings": timings(count)} if count else {}))


def ends(finish: str, count: int) -> bytes:
    last = {"finish_reason": finish, "index": 0, "delta": {}}
    return chunk([last]) + chunk([], usage=usage(count), timings=timings(count)) + END


def text(said: str, count: int) -> bytes:
    choice = {"text": said, "index": 0, "logprobs": None, "finish_reason": None}
    return chunk([choice], timings=timings(count))


def text_ends(finish: str, count: int) -> bytes:
    choice = {"text": "", "index": 0, "logprobs": None, "finish_reason": finish}
    return chunk([choice], usage=usage(count), timings=timings(count)) + END


def made(*pieces: bytes, path: str = CHAT, limit: int = 1000, nothing: bytes = b'""') -> Assembler:
    assembler = Assembler(path, limit, nothing)
    for piece in pieces:
        assembler.feed(piece)
    return assembler


def message(*pieces: bytes) -> Any:
    assembler = made(*pieces)
    body = assembler.finish()
    assert body, assembler.problem
    return orjson.loads(body)["choices"][0]


def problem(*pieces: bytes, **more: Any) -> str:
    assembler = made(*pieces, **more)
    assert not assembler.finish()
    return assembler.problem


HELLO = delta(ROLE) + delta({"content": "你好"}, 1) + delta({"content": " 🐙\n\n"}, 3) + ends("stop", 4)


def test_it_has_the_members_of_a_plain_answer_in_their_order() -> None:
    assert made(HELLO).finish() == orjson.dumps(
        {
            "choices": [
                {
                    "finish_reason": "stop",
                    "index": 0,
                    "message": {"role": "assistant", "content": "你好 🐙\n\n"},
                }
            ],
            "created": 7,
            "model": "smol",
            "system_fingerprint": "b0-unknown",
            "object": "chat.completion",
            "usage": usage(4),
            "id": "chatcmpl-1",
            "timings": timings(4),
        }
    )


@given(st.lists(st.integers(0, 2000), max_size=8))
def test_the_answer_is_the_same_however_the_stream_came(cuts: list[int]) -> None:
    stream = b": a comment\n\n" + HELLO
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    assembler = made(*(stream[start:end] for start, end in pairwise(places)))
    assert assembler.finish() == made(HELLO).finish()


@pytest.mark.parametrize(
    ("old", "new"), [(b"\n\n", b"\r\n\r\n"), (b"data: ", b"data:"), (b"\n\ndata", b"\n\n:\n\ndata")]
)
def test_other_ways_to_write_events_are_read_too(old: bytes, new: bytes) -> None:
    assert made(HELLO.replace(old, new)).finish() == made(HELLO).finish()


def test_the_end_mark_tells_nothing_new() -> None:
    assert made(HELLO.removesuffix(END)).finish() == made(HELLO).finish()


def test_a_long_stream_is_read_in_batches() -> None:
    words = [delta({"content": f"word {count} "}, count) for count in range(1, 301)]
    assembler = made(delta(ROLE), *words, ends("length", 300), limit=100_000)
    body = assembler.finish()
    assert orjson.loads(body)["choices"][0]["message"]["content"] == "".join(
        f"word {at} " for at in range(1, 301)
    )


def test_reasoning_comes_in_a_member_of_its_own() -> None:
    thought = delta({"reasoning_content": "\nHm"}, 1) + delta({"reasoning_content": "m."}, 2)
    found = message(delta(ROLE), thought, delta({"content": "Yes."}, 4), ends("stop", 5))
    assert found["message"] == {"role": "assistant", "content": "Yes.", "reasoning_content": "\nHmm."}


def call(at: int, count: int, **function: str) -> bytes:
    one: dict[str, Any] = {"index": at, "function": function}
    if "name" in function:
        one |= {"id": f"call-{at}", "type": "function"}
    return delta({"tool_calls": [one]}, count)


def test_tool_calls_are_put_together_in_their_places() -> None:
    first = call(0, 9, name="weather", arguments="{") + call(0, 10, arguments='"city":"Oslo"}')
    second = call(1, 20, name="ti", arguments="") + call(1, 21, name="time", arguments="{}")
    found = message(delta(ROLE), first, second, ends("tool_calls", 25))
    assert found["finish_reason"] == "tool_calls"
    assert found["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
                "id": "call-0",
            },
            {"type": "function", "function": {"name": "time", "arguments": "{}"}, "id": "call-1"},
        ],
    }


def test_an_answer_that_ends_at_once_has_no_text() -> None:
    assert message(delta(ROLE, 1), ends("stop", 1))["message"] == {"role": "assistant", "content": ""}


@pytest.mark.parametrize("nothing", [b'""', b"null"])
def test_no_text_is_written_as_that_server_writes_it(nothing: bytes) -> None:
    body = made(delta(ROLE, 1), ends("stop", 1), nothing=nothing).finish()
    assert b'"content":' + nothing in body
    assert written_for_nothing(body) == nothing


@pytest.mark.parametrize("body", [made(HELLO).finish(), b"", b"[]", b'{"choices":[]}', b'{"choices":[{}]}'])
def test_other_answers_do_not_show_how_no_text_is_written(body: bytes) -> None:
    assert not written_for_nothing(body)


def test_a_completion_is_text_alone() -> None:
    stream = text("Once", 1) + text("", 2) + text(" upon", 3) + text_ends("length", 3)
    body = made(stream, path=COMPLETIONS).finish()
    assert body == orjson.dumps(
        {
            "choices": [{"text": "Once upon", "index": 0, "logprobs": None, "finish_reason": "length"}],
            "created": 7,
            "model": "smol",
            "system_fingerprint": "b0-unknown",
            "object": "text_completion",
            "usage": usage(3),
            "id": "chatcmpl-1",
            "timings": timings(3),
        }
    )


def test_a_text_that_was_cut_off_may_lack_its_last_token() -> None:
    told = "text that may be kept back"
    assert problem(delta(ROLE), delta({"content": "a"}, 1), ends("length", 2)) == told
    assert problem(delta(ROLE), delta({"content": "a"}), ends("length", 1)) == told
    assert problem(text("a", 1), text("", 2), text_ends("length", 2), path=COMPLETIONS) == told
    # The end of the text was half a character.
    assert problem(text("a", 1), text_ends("stop", 2), path=COMPLETIONS) == told


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (delta(ROLE) + delta({"content": "a"}, 1), "a stream without its end"),
        (delta(ROLE) + delta({"content": "a"}, 1) + END, "a stream without its end"),
        (ends("stop", 1) + ends("stop", 1), "bytes behind the end"),
        (ends("stop", 1).removesuffix(END) + delta({"content": "a"}, 1) + END, "another choice"),
        (delta(ROLE, 1, logprobs={"content": []}), "a delta with unknown members"),
        (delta({"audio": "a"}, 1), "a delta with unknown members"),
        (delta({"content": ["a"]}, 1), "text that is no text"),
        (delta(ROLE) + delta(ROLE), "another role"),
        (delta({"role": "tool"}), "another role"),
        (delta({"content": "a"}, 1) + delta({}, 2), "a delta with nothing in it"),
        (chunk([{"finish_reason": None, "index": 1, "delta": ROLE}]), "another choice"),
        (chunk([{}, {}]), "another choice"),
        (chunk([], __verbose={}), "a chunk with unknown members"),
        (write_event(b"7"), "an event that is no object"),
        (write_event(b"{"), "an event that is no object"),
        (delta({"tool_calls": [7]}), "a tool call that is none"),
        (call(1, 1, name="f", arguments="{}"), "a tool call that is none"),
        (delta({"tool_calls": [{"index": 0, "caller": "x"}]}), "a tool call with unknown members"),
        (delta({"tool_calls": [{"index": 0, "type": "custom"}]}), "a tool call with unknown members"),
        (call(0, 1, name="f", strict="yes", arguments="{}"), "a tool call with unknown members"),
        (call(0, 1, name="f", arguments="{") + ends("tool_calls", 2), "a tool call that is not whole"),
        (call(0, 1, arguments="{}") + ends("tool_calls", 2), "a tool call that is not whole"),
        (call(0, 2, name="f", arguments="{}") + ends("length", 2), "text that may be kept back"),
        (delta({"content": "\ufffd"}, 1) + ends("stop", 2), "bytes that are no character"),
        (delta(ROLE) + ends("stop", 5), "an answer without a message"),
        (delta({"content": "x" * 2000}, 1), "more text than recovery.resume_buffer_bytes"),
        (b"data: " + b"x" * 40_000, "an event that is too long"),
    ],
)
def test_what_leaves_a_doubt_is_no_answer(stream: bytes, why: str) -> None:
    assert problem(stream) == why


def test_a_text_that_is_empty_is_doubted_until_it_is_known_how_the_server_writes_that() -> None:
    assert problem(delta(ROLE, 1), ends("stop", 1), nothing=b"").startswith("no text")
    assert problem(call(0, 2, name="f", arguments="{}"), ends("tool_calls", 2), nothing=b"").startswith(
        "no text"
    )


def test_an_error_is_told_as_a_plain_answer_would_have() -> None:
    error = {"error": {"code": 500, "message": "out of memory", "type": "server_error"}}
    assembler = made(delta(ROLE), write_event(orjson.dumps(error)))
    assert not assembler.finish()
    assert assembler.error == error
