"""Hashes of prompts against a slow oracle, and the table of who was sent what."""

import json
import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._prefix import PrefixIndex, prompt_hashes

SECRET, OTHER = 0x2D358DCCAA6C78A5, 0x8BB84B93962EACC9
WORD = 2**64


def words(hashes: bytes) -> list[int]:
    return list(struct.unpack(f"{len(hashes) // 8}Q", hashes))


def fold(a: int, b: int) -> int:
    product = a * b
    return product % WORD ^ product >> 64


def absorb(state: int, data: bytes) -> int:
    for at in range(0, len(data), 16):
        low, high = struct.unpack("2Q", data[at : at + 16].ljust(16, b"\0"))
        state = fold(low ^ SECRET, high ^ state)
    return fold(state ^ OTHER, len(data) ^ SECRET)


def oracle(prompt: bytes, begin: int, opened: int) -> list[int]:
    """What the beginnings of a prompt hash to, where nothing stands ahead of it.

    The message that opens it is from `begin` to `opened`.
    """
    state, at, found, opening = SECRET, 0, [], None
    for width in [512] * 32 + [2048] * 32 + [8192] * 32 + [32768] * 32:
        if at + width > len(prompt):
            break
        if at <= opened < at + width:
            opening = absorb(state, prompt[at:opened])
            found.append(opening)
        state = absorb(state, prompt[at : at + width])
        at += width
        if at >= begin + 512:
            found.append(state)
    else:
        width *= 4
    if opening is None:
        opening = absorb(state, prompt[at : min(opened, at + width)])
        found.append(opening)
    return [opening, *found]


def chat(*contents: str, **fields: Any) -> bytes:
    roles = ("system", *("user", "assistant") * len(contents))
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    return json.dumps({"model": "auto", "messages": messages, **fields}).encode()


LONG = "A long system prompt that all have in common. " * 60


@given(st.text(max_size=30), st.integers(1, 30_000), st.binary(max_size=8).map(bytes.hex))
@settings(max_examples=60)
def test_a_text_hashes_as_the_oracle_says(text: str, repeated: int, tail: str) -> None:
    body = json.dumps({"model": "m", "prompt": text * repeated + tail}).encode()
    prompt = body[body.index(b'"prompt": "') + 11 : -2]
    assert words(prompt_hashes(body)) == oracle(prompt, 0, min(512, len(prompt)))


@pytest.mark.parametrize("system", ["", "short", LONG, LONG * 40])
def test_messages_hash_as_the_oracle_says(system: str) -> None:
    body = chat(system, "the question", "the answer", "another question")
    prompt = body[body.index(b"[") + 1 : -2]
    begin = prompt.index(b'{"role": "user"')
    opened = prompt.index(b'the question"}') + len(b'the question"}')
    assert words(prompt_hashes(body, 1)) == oracle(prompt, begin, opened)
    assert words(prompt_hashes(body, 0)) == oracle(prompt, 0, begin - len(", "))


def test_a_conversation_that_grows_keeps_its_opening_and_all_its_beginnings() -> None:
    turns = [LONG, "first question", "an answer " * 100, "second " * 50, "more " * 300, "third"]
    before: list[int] = []
    for count in (2, 4, 6):
        hashes = words(prompt_hashes(chat(*turns[:count]), 1))
        assert before[:1] in ([], hashes[:1])
        assert set(before) <= set(hashes)
        before = hashes
    assert len(before) > 6


def test_other_members_and_their_order_do_not_matter() -> None:
    plain = prompt_hashes(chat(LONG, "hi", tools=[1], instructions="x"), 1)
    assert plain == prompt_hashes(chat(LONG, "hi", instructions="x", temperature=1, tools=[1], seed=3), 1)
    reordered = json.dumps({"instructions": "x", "tools": [1]}).encode()[:-1] + b", " + chat(LONG, "hi")[1:]
    assert prompt_hashes(reordered, 1) == plain


@pytest.mark.parametrize("ahead", ["tools", "system", "instructions"])
def test_what_templates_put_ahead_of_the_messages_matters(ahead: str) -> None:
    one = words(prompt_hashes(chat(LONG, "hi", **{ahead: "this"}), 1))
    other = words(prompt_hashes(chat(LONG, "hi", **{ahead: "that"}), 1))
    assert not set(one) & set(other)
    assert not set(one) & set(words(prompt_hashes(chat(LONG, "hi"), 1)))


def test_conversations_share_what_their_first_messages_have_in_common_and_not_a_system_prompt() -> None:
    one, other = (words(prompt_hashes(chat(LONG, text), 1)) for text in ("about rivers", "about roads"))
    assert not set(one) & set(other)
    one, other = (words(prompt_hashes(chat("s", LONG + text), 1)) for text in ("about rivers", "about roads"))
    assert one[0] != other[0]
    assert len(set(one) & set(other)) == len(LONG) // 512 - 1  # the first block has the system prompt in it


def test_an_opening_behind_the_last_message_is_the_whole_prompt() -> None:
    assert prompt_hashes(chat("only this"), 7) == prompt_hashes(chat("only this"), 0)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"", b"17", b'{"messages": null}', b'{"messages": {"a": 1}}', b'{"mess\\u0061ges": []}'],
)
def test_a_body_without_a_prompt_has_no_hashes(body: bytes) -> None:
    assert prompt_hashes(body) == b""


@pytest.mark.parametrize("prompt", [[], "", [1, 2, 3] * 400, ["one", "two"], [{"role": "user"}]])
def test_every_shape_of_a_prompt_has_an_opening_at_least(prompt: Any) -> None:
    for name in ("prompt", "messages", "input"):
        hashes = words(prompt_hashes(json.dumps({name: prompt}).encode()))
        assert len(hashes) >= 2
        assert hashes[0] in hashes[1:]


def test_the_hashes_of_a_prompt_without_end_are_bounded() -> None:
    body = json.dumps({"prompt": "x" * 3_000_000}).encode()
    assert len(words(prompt_hashes(body))) == 130


@given(st.binary(max_size=80), st.integers(-2, 3))
@settings(max_examples=500)
def test_any_bytes_are_survived(junk: bytes, opening: int) -> None:
    for body in (junk, b'{"messages": [' + junk, b'{"messages": [{' + junk, b'{"messages"' + junk):
        prompt_hashes(body, opening)


# The table


def test_who_was_sent_a_prompt_last_stands_first() -> None:
    index = PrefixIndex(2)
    for slot in (0, 3, 5, 3):
        index.note(7 << 30, slot)
    assert index.holders(7 << 30) == [3, 5, 0]
    assert index.holders(8 << 30) == []
    assert index.evicted == 0


def test_the_oldest_of_a_bucket_makes_room_and_is_counted() -> None:
    index = PrefixIndex(1)
    for number in range(1, 11):
        index.note(number << 20, number)
    assert [index.holders(number << 20) for number in range(1, 11)] == [
        [],
        [],
        *([at] for at in range(3, 11)),
    ]
    assert index.evicted == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_another_worker_notes_is_found_here() -> None:
    index = PrefixIndex()
    child = os.fork()
    if child == 0:
        index.note(1 << 40, 9)
        os._exit(0)
    os.waitpid(child, 0)
    assert index.holders(1 << 40) == [9]


@pytest.mark.parametrize("buckets", [0, -1, 3])
def test_a_table_has_a_power_of_two_of_buckets(buckets: int) -> None:
    with pytest.raises(ValueError, match="not a power of two"):
        PrefixIndex(buckets)


def test_a_slot_that_a_word_can_not_hold_is_refused() -> None:
    for slot in (-1, 2**20 - 1):
        with pytest.raises(ValueError, match="more than a word can hold"):
            PrefixIndex(1).note(1, slot)
