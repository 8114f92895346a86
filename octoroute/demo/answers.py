"""What a simulated model says: a function of prompt and position, so that any cut can be checked.

Two servers with the same seed say the same; an answer that is continued from a prefix of itself goes on
exactly where the prefix ends. Knows OpenAI's request fields, not HTTP.
"""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

# A sentence, slot by slot: nonsense that reads like prose.
_ADJECTIVES = (
    "quiet",
    "small",
    "early",
    "copper",
    "open",
    "yellow",
    "distant",
    "patient",
    "bright",
    "winter",
)
_NOUNS = (
    "river",
    "harbour",
    "signal",
    "garden",
    "station",
    "engine",
    "letter",
    "octopus",
    "bridge",
    "lantern",
)
_VERBS = ("follows", "crosses", "carries", "answers", "remembers", "repairs", "paints", "measures", "leaves")
SENTENCE = (
    ("The ",),
    tuple(f"{word} " for word in _ADJECTIVES),
    tuple(f"{word} " for word in _NOUNS),
    tuple(f"{word} " for word in _VERBS),
    ("the ", "every ", "one "),
    tuple(f"{word} " for word in _ADJECTIVES),
    tuple(f"{word}. " for word in _NOUNS),
)
WIDE_WORDS = (
    "\u4f60\u597d\uff0c",
    "\u4e16\u754c\u3002",
    "\u6a21\u578b",
    "na\u00efve ",
    "\U0001f419 ",
    "\U0001f680",
    "\u00fcber ",
    "\U0001f469\u200d\U0001f52c ",
)
_VOCABULARY = re.compile(
    "|".join(re.escape(word) for word in {*WIDE_WORDS, *(word for slot in SENTENCE for word in slot)}) + "|.",
    re.DOTALL,
)
ANSWER_TOKENS = 24  # how long an answer is that nothing else limits
CHARS_PER_TOKEN = 4
MASK = 0xFFFFFFFF


def token(key: int, position: int, *, wide: bool = False) -> str:
    """The token at a position of an answer. `wide` mixes in Chinese, accents and emoji."""
    mixed = (key + (position + 1) * 0x9E3779B1) & MASK
    mixed = ((mixed ^ (mixed >> 16)) * 0x85EBCA6B) & MASK
    mixed = ((mixed ^ (mixed >> 13)) * 0xC2B2AE35) & MASK
    mixed ^= mixed >> 16
    if wide and mixed % 3 == 0:
        return WIDE_WORDS[(mixed >> 8) % len(WIDE_WORDS)]
    words = SENTENCE[position % len(SENTENCE)]
    return words[(mixed >> 8) % len(words)]


def key_of(prompt: str, *, index: int = 0, seed: int = 0) -> int:
    return zlib.crc32(f"{seed}/{index}/{prompt}".encode("utf-8", "surrogatepass"))


def count_tokens(text: str) -> int:
    """How many tokens a text of these servers is."""
    return len(_VOCABULARY.findall(text))


def text(prompt: str, length: int, *, index: int = 0, seed: int = 0, wide: bool = False) -> str:
    """The first `length` tokens of the answer to a prompt: the oracle of the tests."""
    key = key_of(prompt, index=index, seed=seed)
    return "".join(token(key, position, wide=wide) for position in range(length))


@dataclass(frozen=True, slots=True)
class Asked:
    """A completion request, read as leniently as real servers read it. `counts`: each token of a stream tells
    how many there were. `continued` is text to go on from; `echoes`: the answer begins with it.
    """

    prompt: str
    chat: bool
    stream: bool
    include_usage: bool
    max_tokens: int | None
    n: int
    stop: tuple[str, ...]
    ignore_eos: bool
    tool: dict[str, Any] | None
    counts: bool = False
    continued: str = ""
    echoes: bool = False

    @property
    def prompt_tokens(self) -> int:
        return max(1, -(-len(self.prompt) // CHARS_PER_TOKEN)) + count_tokens(self.continued)


@dataclass(frozen=True, slots=True)
class Choice:
    """One choice, complete: its tokens and why it ends. `call` is a function's (name, arguments as JSON)."""

    tokens: tuple[str, ...]
    finish_reason: str
    call: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def read(fields: dict[str, Any], *, chat: bool, continues: bool) -> Asked:
    """What the decoded body asks for. `continues`: a last message of the assistant is gone on from."""
    messages = list(fields.get("messages") or []) if chat else []
    continued = ""
    if continues and messages and messages[-1].get("role") == "assistant":
        continued = content_text(messages.pop().get("content"))
    options = fields.get("stream_options") or {}
    stop = fields.get("stop") or ()
    limit = fields.get("max_completion_tokens")
    if limit is None:
        limit = fields.get("max_tokens")
    return Asked(
        prompt=prompt_of_messages(messages) if chat else content_text(fields.get("prompt")),
        chat=chat,
        stream=fields.get("stream") is True,
        include_usage=options.get("include_usage") is True,
        max_tokens=limit if isinstance(limit, int) and limit > 0 else None,
        n=fields.get("n") or 1,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        ignore_eos=fields.get("ignore_eos") is True,
        tool=_tool_to_call(fields, messages),
        counts=fields.get("timings_per_token") is True,
        continued=continued,
        echoes=bool(continued) and fields.get("continue_final_message") is not True,
    )


def prompt_of_messages(messages: list[dict[str, Any]]) -> str:
    """A conversation as one text. Two conversations that differ in role or text differ here."""
    return "\n".join(f"{message.get('role')}: {content_text(message.get('content'))}" for message in messages)


def content_text(content: Any) -> str:
    """The text of a message's content: a string, or the text parts of an array."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(
            part if isinstance(part, str) else str(part.get("text") or "")
            for part in content
            if isinstance(part, str | dict)
        )
    return "" if content is None else str(content)


def choice(asked: Asked, index: int, *, length: int, seed: int, wide: bool) -> Choice:
    """The whole answer of one choice. `length` is where the model would stop by itself."""
    if asked.tool is not None:
        return _call(asked.tool)
    limit = asked.max_tokens if asked.max_tokens is not None else length
    remaining = limit if asked.ignore_eos else length
    tokens: list[str] = []
    finish = "stop"
    for piece in _after(asked, index, remaining, seed, wide):
        if len(tokens) == limit:
            finish = "length"
            break
        tokens.append(piece)
    if asked.ignore_eos:
        finish = "length"
    return _cut_at_stop(Choice(tuple(tokens), finish), asked.stop)


def _after(asked: Asked, index: int, length: int, seed: int, wide: bool) -> Iterator[str]:
    """The tokens that follow `continued`; all of them where that is no prefix of the answer."""
    key = key_of(asked.prompt, index=index, seed=seed)
    left = asked.continued
    position = 0
    while left:
        piece = token(key, position, wide=wide)
        position += 1
        if left.startswith(piece):
            left = left[len(piece) :]
        elif piece.startswith(left):
            yield piece[len(left) :]
            left = ""
        else:
            position, left = 0, ""
    end = position + length if asked.ignore_eos else length
    for at in range(position, end):
        yield token(key, at, wide=wide)


def _cut_at_stop(whole: Choice, stops: tuple[str, ...]) -> Choice:
    ends = [at for at in (whole.text.find(stop) for stop in stops if stop) if at >= 0]
    if not ends:
        return whole
    tokens, left = [], min(ends)
    for piece in whole.tokens:
        if left <= 0:
            break
        tokens.append(piece[:left])
        left -= len(piece)
    return Choice(tuple(tokens), "stop")


def _tool_to_call(fields: dict[str, Any], messages: list[dict[str, Any]]) -> dict[str, Any] | None:
    tools = [tool.get("function") or {} for tool in fields.get("tools") or []]
    wanted = fields.get("tool_choice")
    if not tools or wanted == "none" or not messages or messages[-1].get("role") != "user":
        return None
    if isinstance(wanted, dict):
        name = (wanted.get("function") or {}).get("name")
        return next((tool for tool in tools if tool.get("name") == name), tools[0])
    return tools[0]


def _call(function: dict[str, Any]) -> Choice:
    samples = {"string": "Oslo", "integer": 7, "number": 1.5, "boolean": True, "array": [], "object": {}}
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    arguments = {
        name: samples.get(schema.get("type"), "Oslo")
        for name, schema in properties.items()
        if name in parameters.get("required", properties)
    }
    written = orjson.dumps(arguments).decode()
    pieces = tuple(written[at : at + CHARS_PER_TOKEN] for at in range(0, len(written), CHARS_PER_TOKEN))
    return Choice(pieces, "tool_calls", call=(str(function.get("name")), written))
