"""What a client has been told of one streamed answer: the text, who it is from, and what it still waits for.

Pure. Reads the chunks of /v1/chat/completions and /v1/completions as llama.cpp, vLLM and SGLang write them.
What it does not know it can't promise to continue: `refusal` then says why, for the log.
"""

from typing import Any, Final

import orjson

from octoroute._delivered import Delivered, Pattern
from octoroute._framing import Framing
from octoroute.upstream.events import DONE, EventReader

CHUNKED: Final = 2
# The names of reasoning text: of llama.cpp and SGLang, of vLLM.
REASONING: Final = ("reasoning_content", "reasoning")
TEXTS: Final = ("text", "content", *REASONING)
# What tells two answers apart in every chunk.
IDENTITY: Final = ("id", "created", "model", "system_fingerprint")


class Transcript:
    """`take_over` what was delivered, or `absorb` it as it was written; `note` a chunk that was made here.

    `tokens` is how many completion tokens the server said it had sent with the last text, -1 where it said
    nothing; `prompt_tokens` likewise. `pieces` counts the chunks with text: each is one token or more.
    """

    __slots__ = (
        *("_events", "_framing", "_limit", "_size", "base", "done", "finish_reason", "identity", "pieces"),
        *(
            "prompt_tokens",
            "reasoning",
            "reasoning_name",
            "refusal",
            "role_sent",
            "text",
            "tokens",
            "usage_sent",
        ),
    )

    def __init__(self, limit: int, *, framed: bool) -> None:
        """`limit`: bytes of text. `framed`: what is absorbed has the framing of HTTP chunks."""
        self._framing = Framing(CHUNKED) if framed else None
        self._events = EventReader()
        self._limit = limit
        self._size = 0
        self.identity: dict[str, Any] = {}
        self.text = ""
        self.reasoning = ""
        self.reasoning_name = REASONING[0]
        self.pieces = 0
        self.base = 0  # tokens of the servers before the one that speaks now
        self.tokens = -1
        self.prompt_tokens = -1
        self.role_sent = False
        self.finish_reason = ""
        self.usage_sent = False
        self.done = False
        self.refusal = ""

    def take_over(self, delivered: Delivered) -> None:
        """What has been kept. Events to come that are like the last one with text need not be read here."""
        pattern = None
        for item in delivered.take():
            if isinstance(item, bytes):
                pattern = self.absorb(item) or pattern
            else:
                self._note_run(*item)
        if pattern is not None:
            delivered.expect(pattern)

    def _note_run(self, name: bytes, text: bytes, pieces: int) -> None:
        """Events that had nothing but text, in the member of that name."""
        if self.refusal:
            return
        try:
            told = orjson.loads(b'"%b"' % text)
        except ValueError:
            self.refusal = "an event that is not JSON"
            return
        self.tokens = -1
        self.pieces += pieces
        if name in (b"text", b"content"):
            self._grow(told)
        else:
            self._note_reasoning(name.decode(), told)
            self._grow("")

    def absorb(self, delivered: bytes) -> Pattern | None:
        """Bytes that went to the client, any number of whole or cut events. What the last of them is like, if
        it had nothing but text.
        """
        if self.refusal or not delivered:
            return None
        payload = delivered if self._framing is None else self._framing.feed(delivered)[2]
        texts: list[str] = []
        last: tuple[bytes, Any] = (b"", None)
        for event, data in self._events.feed(payload):
            if data is None:
                continue
            if data == DONE:
                self.done = True
                continue
            try:
                value = orjson.loads(data)
            except ValueError:
                self.refusal = "an event that is not JSON"
                return None
            texts.append(self._note(value))
            last = event, value
        self._grow("".join(texts))
        return None if self.refusal else _pattern(*last)

    @property
    def between_events(self) -> bool:
        """Whether what was delivered ends with a whole event."""
        return not self._events.rest

    def note(self, chunk: dict[str, Any]) -> None:
        """A chunk that has gone to the client."""
        self._grow(self._note(chunk))

    def _grow(self, text: str) -> None:
        self.text += text
        self._size += len(text.encode())
        if self._size > self._limit:
            self.refusal = "more text than recovery.resume_buffer_bytes"
            self.text = self.reasoning = ""

    def _note(self, chunk: Any) -> str:
        if not isinstance(chunk, dict):
            self.refusal = "an event that is no object"
            return ""
        if not self.identity:
            self.identity = {name: chunk[name] for name in IDENTITY if name in chunk}
        text = ""
        choices = chunk.get("choices")
        if choices:
            text = self._note_choices(choices)
        self._note_counts(chunk)
        return text

    def _note_choices(self, choices: Any) -> str:
        choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        if not isinstance(choice, dict) or choice.get("index", 0) != 0:
            self.refusal = "several choices"
            return ""
        if choice.get("logprobs"):
            self.refusal = "logprobs"
        text = choice.get("text")
        delta = choice.get("delta")
        if isinstance(delta, dict):
            text = self._note_delta(delta)
        if choice.get("finish_reason"):
            self.finish_reason = str(choice["finish_reason"])
        if not isinstance(text, str) or not text:
            return ""
        self.pieces += 1
        self.tokens = -1
        return text

    def _note_delta(self, delta: dict[str, Any]) -> Any:
        text = None
        for name, value in delta.items():
            if name == "role":
                self.role_sent = True
            elif not value:
                continue
            elif name == "content":
                text = value
                if not isinstance(value, str):
                    self.refusal = "content that is no text"
            elif name in REASONING:
                self._note_reasoning(name, value)
                self.pieces += 1
                self.tokens = -1
            else:
                self.refusal = "a part of a tool call" if name == "tool_calls" else "an unknown delta"
        return text

    def _note_reasoning(self, name: str, text: Any) -> None:
        if self.text or not isinstance(text, str):
            self.refusal = "reasoning text behind the answer's"
            return
        self.reasoning += text
        self.reasoning_name = name
        self._size += len(text.encode())

    def _note_counts(self, chunk: dict[str, Any]) -> None:
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.usage_sent = not chunk.get("choices") or bool(self.finish_reason)
            self.tokens = _count(usage, "completion_tokens")
            self.prompt_tokens = _count(usage, "prompt_tokens")
            return
        timings = chunk.get("timings")  # llama.cpp's, at the end or with `timings_per_token` everywhere
        if isinstance(timings, dict):
            predicted = _count(timings, "predicted_n")
            self.tokens = self.base + predicted if predicted >= 0 else -1


def _pattern(event: bytes, chunk: Any) -> Pattern | None:
    """What an event is like that holds nothing that counts but one text: others like it need not be read."""
    if not isinstance(chunk, dict) or chunk.get("usage") or chunk.get("timings") or not chunk.get("choices"):
        return None
    choice = chunk["choices"][0]
    if choice.get("finish_reason") or choice.get("logprobs"):
        return None
    delta = choice["delta"] if isinstance(choice.get("delta"), dict) else {"text": choice.get("text")}
    told = [name for name, value in delta.items() if value and name != "role"]
    if len(told) != 1 or told[0] not in TEXTS:
        return None
    try:
        pattern = Pattern(event, told[0].encode())
        same = orjson.loads(b'"%b"' % pattern.text) == delta[told[0]]
    except ValueError:
        return None
    return pattern if same else None


def _count(counts: dict[str, Any], name: str) -> int:
    count = counts.get(name)
    return count if isinstance(count, int) and count >= 0 else -1
