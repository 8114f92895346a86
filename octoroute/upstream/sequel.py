"""The chunks of a server that continues another's answer, rewritten so that the client sees one stream. Pure.

Same `id`, `created`, `model`; no second role; usage of the whole; no text that the client has already.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from octoroute.upstream.connection import is_error_event
from octoroute.upstream.events import DONE, EventReader, write_event
from octoroute.upstream.transcript import REASONING, Transcript

# A text so short may come twice by chance; a longer one that comes again from its start is a repetition.
CHANCE_CHARS: Final = 8
# No token of letters is longer.
WORD_CHARS: Final = 16
# So much of a repetition is enough to know it.
COMPARED_CHARS: Final = 512


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of the text so far: `completion` as they were made, `prompt` as the next server reads them."""

    completion: int
    prompt: int


class Sequel:
    """`feed` it the second server's payload; what is the client's goes to `write`, whole events at a time.

    `failed` says why it can't be used, as a label for metrics; what comes after that is dropped.
    `count_only`: the text is complete, and only its end (finish, usage) is wanted; the server's own text is
    not.
    """

    def __init__(
        self,
        so_far: Transcript,
        spent: Spent,
        write: Callable[[bytes], object],
        *,
        usage: bool,
        count_only: bool = False,
    ) -> None:
        self._so_far = so_far
        self._spent = spent
        self._write = write
        self._usage = usage
        self._count_only = count_only
        self._events = EventReader()
        self._beginning = so_far.text or so_far.reasoning
        self._opening = ""  # the text of the chunks that wait for the verdict on it
        self._waiting: list[dict[str, Any]] = []
        self._open = not self._beginning or count_only
        self.written = 0
        self.tokens = (-1, -1)  # prompt and completion of the whole answer, where the server told its own
        self.failed = ""
        so_far.base = spent.completion

    def feed(self, payload: bytes) -> None:
        """The next bytes of the payload."""
        out: list[bytes] = []
        for event, data in self._events.feed(payload):
            if self.failed:
                break
            if data is None:
                out.append(event)
            elif data == DONE:
                self._decide("")
                out += self._release()
                if not self.failed:
                    self._so_far.done = True
                    out.append(write_event(DONE))
            elif b'"error"' in data and is_error_event(event):
                self.failed = "error_event"
            else:
                out += self._take(data)
        self._emit(b"".join(out))

    def finish(self) -> str:
        """The server's answer is complete. Why it can't be used, or ""."""
        self._decide("")
        out = self._release()
        if self._so_far.finish_reason and not self._so_far.done and not self.failed:
            self._so_far.done = True
            out.append(write_event(DONE))
        self._emit(b"".join(out))
        return self.failed

    def _emit(self, data: bytes) -> None:
        if data:
            self.written += len(data)
            self._write(data)

    def _take(self, data: bytes) -> list[bytes]:
        try:
            chunk = orjson.loads(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            self.failed = "malformed"
            return []
        self._waiting.append(chunk)
        if not self._open:
            self._judge(chunk)
        return self._release()

    def _judge(self, chunk: dict[str, Any]) -> None:
        """Whether the server goes on from the text so far, or says it again."""
        choice = _choice(chunk)
        text = _text(choice)
        if text:
            self._decide(text)
        elif choice.get("finish_reason") or (choice.get("delta") or {}).get("tool_calls"):
            self._decide("")

    def _decide(self, text: str) -> None:
        if self._open or self.failed:
            return
        first = not self._opening
        self._opening += text
        verdict = judge_opening(self._beginning, self._opening, first=first, last=not text)
        if verdict == "repeats":
            self.failed = "repeated"
        elif verdict == "echoes":
            _cut(_choice(self._waiting[-1]), len(self._beginning))
            self._open = True
        elif verdict == "continues":
            self._open = True

    def _release(self) -> list[bytes]:
        if not self._open or self.failed:
            return []
        waiting, self._waiting = self._waiting, []
        out = []
        for chunk in waiting:
            if self._rewrite(chunk):
                self._so_far.note(chunk)
                out.append(write_event(orjson.dumps(chunk)))
        return out

    def _rewrite(self, chunk: dict[str, Any]) -> bool:
        """Makes it a chunk of the client's stream. False: there is nothing in it for the client."""
        identity = self._so_far.identity
        for name in identity.keys() & chunk.keys():
            chunk[name] = identity[name]
        wanted = self._rewrite_usage(chunk)
        choice = _choice(chunk)
        if not choice:
            return wanted
        delta = choice.get("delta")
        if isinstance(delta, dict):
            if self._so_far.role_sent or self._so_far.text or self._so_far.reasoning:
                delta.pop("role", None)
            if self._count_only:
                delta.clear()
            if self._so_far.reasoning:
                _rename_reasoning(delta, self._so_far.reasoning_name)
        elif self._count_only:
            choice["text"] = ""
        if choice.get("finish_reason"):
            if self._so_far.finish_reason:
                # Told already: what else is in the chunk may still be wanted.
                chunk["choices"] = []
                return wanted
            if self._count_only:
                choice["finish_reason"] = "length"
            return True
        return wanted or bool(_text(choice)) or bool(isinstance(delta, dict) and any(delta.values()))

    def _rewrite_usage(self, chunk: dict[str, Any]) -> bool:
        usage, timings = chunk.get("usage"), chunk.get("timings")
        if isinstance(usage, dict):
            self._count(usage.get("prompt_tokens"), usage.get("completion_tokens"))
        elif isinstance(timings, dict):
            read = timings.get("prompt_n"), timings.get("cache_n")
            self._count(sum(part for part in read if isinstance(part, int)), timings.get("predicted_n"))
        if not isinstance(usage, dict):
            return False
        if not self._usage or self._so_far.usage_sent:
            del chunk["usage"]
            return False
        prompt, completion = self.tokens
        if prompt >= 0:
            usage.update(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
            details = usage.get("prompt_tokens_details")
            if isinstance(details, dict) and isinstance(cached := details.get("cached_tokens"), int):
                details["cached_tokens"] = min(cached, prompt)
        return True

    def _count(self, told: Any, new: Any) -> None:
        if isinstance(told, int) and isinstance(new, int):
            prompt = self._so_far.prompt_tokens
            if prompt < 0:
                prompt = max(0, told - self._spent.prompt)
            self.tokens = prompt, self._spent.completion + (0 if self._count_only else new)


def judge_opening(beginning: str, opening: str, *, first: bool, last: bool = False) -> str:
    """What the `opening` of a sequel is to the text that it should go on from: `continues`, `echoes` (it is
    that text and more, in its `first` piece), `repeats` (it says that text again), `waits` for more of it.

    Older llama.cpp servers echo the text, with their first token behind it.
    """
    if first and opening.startswith(beginning):
        # Alone it may be one token that comes twice.
        return "echoes" if opening != beginning or len(beginning) > WORD_CHARS else "continues"
    if len(beginning) <= CHANCE_CHARS or _goes_round(beginning[:COMPARED_CHARS]):
        return "continues"
    start = beginning.lstrip()[:COMPARED_CHARS]
    said = opening.lstrip()
    if said.startswith(start):
        return "repeats"
    if start.startswith(said) and not last:
        return "waits"
    # A text that was changed on its way (its spaces trimmed, say) is a repetition too.
    alike = len(said) >= 2 * WORD_CHARS and said[: 2 * WORD_CHARS] == start[: 2 * WORD_CHARS]
    return "repeats" if alike else "continues"


def _goes_round(text: str) -> bool:
    """Whether a text is one phrase again and again, as small models get stuck in."""
    return any(text.startswith(text[period:]) for period in range(1, len(text) // 2 + 1))


def _choice(chunk: dict[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices")
    found = choices[0] if isinstance(choices, list) and choices else None
    return found if isinstance(found, dict) else {}


def _text(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return str(choice.get("text") or "")
    return str(delta.get("content") or next((delta[name] for name in REASONING if delta.get(name)), ""))


def _rename_reasoning(delta: dict[str, Any], name: str) -> None:
    """Calls it as the client has had it called."""
    for other in REASONING:
        if other != name and other in delta:
            delta[name] = delta.pop(other)


def _cut(choice: dict[str, Any], length: int) -> None:
    """Takes the first characters off a choice's text."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        choice["text"] = choice["text"][length:]
        return
    name = "content" if delta.get("content") else next(name for name in REASONING if delta.get(name))
    delta[name] = delta[name][length:]
