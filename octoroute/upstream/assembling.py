"""The plain answer of a llama.cpp put together from the chunks of its stream. Pure.

Exact or not at all: which requests are asked for so says streamable.py, and a stream that leaves a doubt has
a `problem`. It must have been asked for with its usage and with `timings_per_token`: of a text that is cut
off by its limit, a stream keeps back what may become a stop string, and what is no whole character yet; only
the counts of its tokens show that.

`usage` and `timings` go into the answer as they stand, whatever their members: llama.cpp's final result
writes both by the same function for a stream as for an answer (server-task.cpp: usage_json_oaicompat and the
timings' to_json), from counts that do not depend on which it is. All else that is not known is a problem.

Compared with a real server in tests/end_to_end/real/test_llama_plain.py.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from octoroute._sse import last_event_end
from octoroute.upstream.events import DONE, EventReader, write_event
from octoroute.upstream.streamable import CHAT

# What the chunks are known to hold. Anything else would have to have a place in the answer.
CHUNK: Final = frozenset(
    ("choices", "created", "id", "model", "system_fingerprint", "object", "usage", "timings")
)
CHAT_CHOICE: Final = frozenset(("finish_reason", "index", "delta"))
TEXT_CHOICE: Final = frozenset(("finish_reason", "index", "text", "logprobs"))
DELTA: Final = frozenset(("role", "content", "reasoning_content", "tool_calls"))
CALL: Final = frozenset(("index", "id", "type", "function"))
KIND: Final = "function"  # of a tool call, the only one
FUNCTION: Final = frozenset(("name", "arguments"))
# Of the answer, in llama.cpp's order, those that are the last chunks'.
IDENTITY: Final = ("created", "model", "system_fingerprint")

# Chunks are read so many bytes at a time: that costs less than reading each alone.
BATCH_BYTES: Final = 16_384
# Of a text, before they are joined: a short one takes ten times its own bytes.
MOST_PIECES: Final = 1024
DONE_EVENT: Final = write_event(DONE)
NOT_A_CHARACTER: Final = "\ufffd"


def written_for_nothing(body: bytes) -> bytes:
    """What stands for the text in a plain chat answer that has none, as JSON: `""` or `null`, by the build.
    Empty where the answer does not show it.
    """
    try:
        content = orjson.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return b""
    return b"" if content else orjson.dumps(content)


class Assembler:
    """`feed` it the payload of a stream; when that is complete, `finish` gives the body of the plain answer.

    `problem` says why that would not be what the server would have sent; `error` is what the server said went
    wrong, as it would have stood in an answer. After either, nothing more is read.
    """

    __slots__ = (
        *("_calls", "_chat", "_count", "_counts", "_done", "_finish", "_nothing", "_pieces", "_reasoning"),
        *("_role", "_room", "_size", "_spoke", "_text", "error", "problem"),
    )

    def __init__(self, path: str, limit: int, nothing: bytes) -> None:
        """`limit`: bytes of text. `nothing`: see written_for_nothing."""
        self._chat = path == CHAT
        self._room = limit
        self._nothing = nothing
        self._pieces: list[bytes] = []
        self._size = 0
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._role = False
        self._count = 0  # of tokens, when the server spoke last
        self._spoke = False  # whether that was with text
        self._finish: dict[str, Any] | None = None
        self._counts: dict[str, Any] = {}  # the chunk with the usage
        self._done = False
        self.problem = ""
        self.error: dict[str, Any] | None = None

    def feed(self, payload: bytes) -> None:
        """The next bytes of the payload."""
        self._pieces.append(payload)
        self._size += len(payload)
        if self._size >= BATCH_BYTES:
            self._read()

    def finish(self) -> bytes:
        """The body; empty where there is a `problem` or an `error`."""
        self._read()
        if self.problem or self.error is not None:
            return b""
        body = self._body()
        return b"" if self.problem else body

    def _read(self) -> None:
        payload = b"".join(self._pieces)
        end = last_event_end(payload)
        self._pieces = [payload[end:]]
        self._size = len(payload) - end
        for chunk in _chunks(payload[:end]):
            if self.problem or self.error is not None:
                break
            if self._done:
                self.problem = "bytes behind the end"
            elif chunk is None:
                self._done = True
            else:
                self._take(chunk)
        if self._size > max(self._room, BATCH_BYTES):
            self.problem = self.problem or "an event that is too long"

    def _take(self, chunk: Any) -> None:
        if not isinstance(chunk, dict):
            self.problem = "an event that is no object"
        elif isinstance(chunk.get("error"), dict) and "choices" not in chunk:
            self.error = chunk
        elif not chunk.keys() <= CHUNK:
            self.problem = "a chunk with unknown members"
        else:
            if isinstance(chunk.get("usage"), dict):
                self._counts = chunk
            choices = chunk.get("choices")
            if choices:
                self._choose(choices, chunk)

    def _choose(self, choices: Any, chunk: dict[str, Any]) -> None:
        choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
        if not isinstance(choice, dict) or choice.get("index") != 0 or self._finish is not None:
            self.problem = "another choice"
            return
        if choice.get("finish_reason"):
            self._finish = chunk
        if self._chat:
            self._take_delta(choice, chunk)
        else:
            self._take_text(choice, chunk)

    def _take_text(self, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        text = choice.get("text")
        if not choice.keys() <= TEXT_CHOICE or choice.get("logprobs") or not isinstance(text, str):
            self.problem = "a choice with unknown members"
        elif chunk is not self._finish:
            self._grow(self._text, text)
            self._note_count(chunk, spoke=bool(text))
        elif text:
            self.problem = "text in the last chunk"

    def _take_delta(self, choice: dict[str, Any], chunk: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if not choice.keys() <= CHAT_CHOICE or not isinstance(delta, dict) or not delta.keys() <= DELTA:
            self.problem = "a delta with unknown members"
            return
        if chunk is self._finish:
            if delta:
                self.problem = "text in the last chunk"
            return
        if "role" in delta and (self._role or delta["role"] != "assistant"):
            self.problem = "another role"
            return
        text, reasoning, calls = (
            delta.get(name) or "" for name in ("content", "reasoning_content", "tool_calls")
        )
        if not isinstance(text, str) or not isinstance(reasoning, str):
            self.problem = "text that is no text"
            return
        self._grow(self._text, text)
        self._grow(self._reasoning, reasoning)
        for call in calls:
            self._take_call(call)
        if "role" in delta:
            self._role = True
        elif not text and not reasoning and not calls:
            # The server takes back what it said, as far as a stream can.
            self.problem = "a delta with nothing in it"
        if text or reasoning or calls:
            self._note_count(chunk, spoke=True)

    def _take_call(self, call: Any) -> None:
        """A name and an id replace those before, arguments go on."""
        function = call.get("function", {}) if isinstance(call, dict) else None
        at = call.get("index") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(at, int) or not 0 <= at <= len(self._calls):
            self.problem = "a tool call that is none"
            return
        if not (call.keys() <= CALL and function.keys() <= FUNCTION and call.get("type", KIND) == KIND):
            self.problem = "a tool call with unknown members"
            return
        if at == len(self._calls):
            self._calls.append({"type": KIND, "function": {"name": "", "arguments": []}})
        known = self._calls[at]
        if function.get("name"):
            known["function"]["name"] = function["name"]
        if call.get("id"):
            known["id"] = call["id"]
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):
            self.problem = "a tool call that is none"
            return
        self._grow(known["function"]["arguments"], arguments)

    def _grow(self, texts: list[str], text: str) -> None:
        if text:
            texts.append(text)
            if len(texts) > MOST_PIECES:
                texts[:] = ["".join(texts)]
            self._room -= len(text) if text.isascii() else len(text.encode(errors="replace"))
            if self._room < 0:
                self.problem = "more text than recovery.resume_buffer_bytes"

    def _note_count(self, chunk: dict[str, Any], *, spoke: bool) -> None:
        timings = chunk.get("timings")
        count = timings.get("predicted_n") if isinstance(timings, dict) else None
        # What the server releases at its end comes without: it does not say which token that was.
        self._count = count if isinstance(count, int) else -1
        self._spoke = spoke

    def _body(self) -> bytes:
        finish, counts = self._finish, self._counts
        if finish is None or "timings" not in counts:
            self.problem = "a stream without its end"
            return b""
        why = finish["choices"][0]["finish_reason"]
        tokens = counts["usage"].get("completion_tokens")
        choice = self._message(why, tokens) if self._chat else self._completion(why, tokens)
        return orjson.dumps(
            {
                "choices": [choice],
                **{name: finish[name] for name in IDENTITY if name in finish},
                "object": "chat.completion" if self._chat else "text_completion",
                "usage": counts["usage"],
                "id": finish.get("id"),
                "timings": counts["timings"],
            }
        )

    def _completion(self, why: str, tokens: Any) -> dict[str, Any]:
        text = "".join(self._text)
        if self._count != tokens or (why == "length" and not self._spoke):
            self.problem = "text that may be kept back"
        self._doubt(text)
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": why}

    def _message(self, why: str, tokens: Any) -> dict[str, Any]:
        text, reasoning = "".join(self._text), "".join(self._reasoning)
        self._doubt(text + reasoning)
        if why == "length":
            if self._count != tokens or self._calls:
                self.problem = "text that may be kept back"
        elif not text and not reasoning and not self._calls and tokens != 1:
            # Where the server finds no message in what was said, it gives all of it.
            self.problem = "an answer without a message"
        if not text and not self._nothing:
            self.problem = "no text, and it is not known how the server says so"
        message: dict[str, Any] = {"role": "assistant"}
        message["content"] = text if text else orjson.Fragment(self._nothing or b"null")
        if reasoning:
            message["reasoning_content"] = reasoning
        if self._calls:
            message["tool_calls"] = [self._whole_call(call) for call in self._calls]
        return {"finish_reason": why, "index": 0, "message": message}

    def _whole_call(self, call: dict[str, Any]) -> dict[str, Any]:
        arguments = "".join(call["function"]["arguments"])
        self._doubt(arguments)
        try:
            whole = isinstance(orjson.loads(arguments), dict)
        except ValueError:
            whole = False
        if not whole or not call["function"]["name"]:
            self.problem = "a tool call that is not whole"
        call["function"]["arguments"] = arguments
        return call

    def _doubt(self, text: str) -> None:
        # Of bytes that are no characters, an answer as a whole may show more or fewer than its pieces.
        if NOT_A_CHARACTER in text:
            self.problem = "bytes that are no character"


def _chunks(payload: bytes) -> Iterable[Any]:
    """The decoded data of whole events, None for the end mark, an empty string for what can't be decoded."""
    chunks = payload.removesuffix(DONE_EVENT)
    if chunks.startswith(b"data: {") and chunks.endswith(b"}\n\n"):
        try:
            # As llama.cpp writes them: a list, but for what stands between.
            found = orjson.loads(b"[%b]" % chunks[6:-2].replace(b"\n\ndata: {", b",{"))
        except ValueError:
            pass
        else:
            return found if chunks is payload else [*found, None]
    return [_decoded(data) for _, data in EventReader().feed(payload) if data is not None]


def _decoded(data: bytes) -> Any:
    if data == DONE:
        return None
    try:
        return orjson.loads(data)
    except ValueError:
        return ""
