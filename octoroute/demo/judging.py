"""What an answer through a gateway is worth to its client: whole, an honest error, or worse.

Pure: what came and what should have come go in, a judgement comes out.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson

from octoroute.demo.client import End, Seen


class Verdict(Enum):
    """From best to worst. The text stands in tables."""

    SAME = "same"
    SAME_NO_DONE = "same, no [DONE]"
    SAME_THEN_CUT = "same, then cut off"
    NO_STREAM = "same, as JSON"
    ERROR = "error"
    BARE_ERROR = "bare error"
    CUT = "cut off"
    SILENTLY_CUT = "SILENTLY CUT"
    HANG = "HANGS"
    WRONG = "WRONG TEXT"
    POISONED = "NEXT ANSWER WRONG"

    @property
    def is_bad(self) -> bool:
        """Whether the client is misled or left waiting. Errors that it can see are not bad."""
        return self.value.isupper()

    @property
    def is_whole(self) -> bool:
        """Whether the client has all of the answer."""
        return self.value.startswith("same")

    @property
    def rank(self) -> int:
        return list(Verdict).index(self)


MEANINGS = {
    Verdict.SAME: "the whole answer, each character once, and its end",
    Verdict.SAME_NO_DONE: "the whole answer, without the `[DONE]` that its server did not send",
    Verdict.SAME_THEN_CUT: "the whole answer; then the connection ended, not the body",
    Verdict.NO_STREAM: "the whole answer as plain JSON, though a stream was asked for",
    Verdict.ERROR: "an error object: as an HTTP status, or as an event behind the text so far",
    Verdict.BARE_ERROR: "an HTTP status that says error, and a body that is no error object",
    Verdict.CUT: "a part of the answer; a client sees that it is broken, and is not told why",
    Verdict.SILENTLY_CUT: "a part of the answer that looks complete",
    Verdict.HANG: "no end while the checker had patience",
    Verdict.WRONG: "text that was not said: lost, doubled or foreign characters, or a broken event",
    Verdict.POISONED: "the request after it got an answer that is not its own, or none",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    verdict: Verdict
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.verdict.value} {self.detail}".rstrip()


@dataclass(slots=True)
class _Told:
    """What a stream says, up to [DONE] or an error event."""

    text: str = ""
    roles: int = 0
    finishes: int = 0
    done: bool = False
    failed: bool = False
    garbled: bool = False


def judge(seen: Seen, wanted: str, *, stream: bool, adds: str = "") -> Judgement:
    """`wanted` is the text that was to come; `adds` is what may stand before it."""
    if seen.end is End.SILENCE and not seen.status:
        return Judgement(Verdict.HANG)
    if seen.end is End.NO_ANSWER:
        return Judgement(Verdict.CUT, "before the head")
    if seen.status >= 400:
        return _of_refusal(seen)
    try:
        body, complete = _decoded(seen)
    except zlib.error:
        return Judgement(Verdict.WRONG, "(encoding)")
    if not complete and seen.end is not End.CUT:
        return Judgement(Verdict.WRONG, "(encoding)")
    if not seen.header("content-type").startswith("text/event-stream"):
        found = _of_plain(seen, body, wanted) if complete else Judgement(Verdict.CUT)
        if found.verdict is Verdict.SAME and stream:
            return Judgement(Verdict.NO_STREAM)
        return found
    told = _read(body)
    text = told.text.removeprefix(adds) if adds and told.text.startswith(adds) else told.text
    return _of_stream(seen, told, text, wanted)


def _of_refusal(seen: Seen) -> Judgement:
    if seen.end is End.SILENCE:
        return Judgement(Verdict.HANG)
    try:
        error = orjson.loads(seen.body).get("error")
    except (ValueError, AttributeError):
        error = None
    is_object = isinstance(error, dict) and isinstance(error.get("message"), str)
    return Judgement(Verdict.ERROR if is_object else Verdict.BARE_ERROR, str(seen.status))


def _of_plain(seen: Seen, body: bytes, wanted: str) -> Judgement:
    if seen.end is End.SILENCE:
        return Judgement(Verdict.HANG)
    try:
        value = orjson.loads(body)
        text = value["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        return Judgement(Verdict.CUT)
    if text == wanted:
        return Judgement(Verdict.SAME)
    return Judgement(Verdict.SILENTLY_CUT if wanted.startswith(text) else Verdict.WRONG)


def _of_stream(seen: Seen, told: _Told, text: str, wanted: str) -> Judgement:
    if told.garbled or not wanted.startswith(text) or told.roles > 1 or told.finishes > 1:
        return Judgement(Verdict.WRONG)
    whole = text == wanted and told.finishes == 1
    if told.failed:
        return Judgement(Verdict.ERROR, "event")
    if told.done:
        return Judgement(Verdict.SAME if whole else Verdict.WRONG)
    if seen.end is End.SILENCE:
        return Judgement(Verdict.HANG)
    if seen.end is End.CUT:
        return Judgement(Verdict.SAME_THEN_CUT if whole else Verdict.CUT)
    return Judgement(Verdict.SAME_NO_DONE if whole else Verdict.SILENTLY_CUT)


def _read(body: bytes) -> _Told:
    told = _Told()
    names: set[tuple[str, Any]] = set()
    for data in events(body):
        if data == b"[DONE]":
            told.done = True
            break
        try:
            value = orjson.loads(data)
            if value.get("error"):
                told.failed = True
                break
            names |= {(key, value[key]) for key in ("id", "created", "model") if value.get(key)}
            for choice in value.get("choices") or ():
                delta = choice.get("delta") or {}
                told.text += delta.get("content") or ""
                told.roles += bool(delta.get("role")) and not delta.get("content")
                told.finishes += bool(choice.get("finish_reason"))
        except (ValueError, TypeError, AttributeError):
            told.garbled = True
            break
    # One answer has one id, one time and one model, whoever gives its parts.
    told.garbled |= len(names) > len({key for key, _ in names})
    return told


def events(body: bytes) -> Iterator[bytes]:
    """The data of each complete event, as WHATWG's event stream format has it."""
    lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    data: list[bytes] = []
    for line in lines[:-1]:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            yield b"\n".join(data)
            data = []


def _decoded(seen: Seen) -> tuple[bytes, bool]:
    """The body as a client's library gives it, and whether all came that is packed in it. Raises
    zlib.error.
    """
    if seen.header("content-encoding") not in ("gzip", "deflate"):
        return seen.body, True
    decoder = zlib.decompressobj(wbits=47)
    return decoder.decompress(seen.body), decoder.eof
