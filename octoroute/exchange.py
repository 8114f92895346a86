"""The values that cross the stages of a request: what was asked, what was decided, what came of it.

Plain data: no I/O, no clock, no logging. A stage reads the value of the stage before it and makes its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from octoroute._abridge import CUT

TIERS: Final = ("fast", "balanced", "deep")
IMPORTANCES: Final = ("low", "normal", "high")
TASK_TYPES: Final = (
    "casual_chat",
    "code",
    "creative_writing",
    "deep_analysis",
    "document_summary",
    "question_answer",
)

Strategy = Literal["rule", "llm"]

WARNING_CHARACTERS: Final = 500  # of the header, all warnings together


@dataclass
class RequestView:
    """A request as it was read: `body` is the client's bytes, `fields` the same decoded once.

    Of a large body the long strings are abridged in `fields`: see `length_of`, and `lengths` for what they
    had.
    `tenant` is the name of the key, `tiers` are those that it is good for. `session` is what a header said.
    `headers` are the lines that go on to the server, each ended by CR LF. `read_ns` is when the last byte of
    the request was read, on the monotonic clock.
    """

    request_id: str
    path: str
    body: bytes
    fields: dict[str, Any]
    model: str
    stream: bool
    importance: str | None = None
    task_type: str | None = None
    tenant: str = ""
    headers: bytes = b""
    read_ns: int = 0
    tiers: tuple[str, ...] = TIERS
    session: str | None = None
    lengths: tuple[int, ...] = ()


def length_of(text: str, lengths: tuple[int, ...]) -> int:
    """How many characters a string of a request's fields had before it was abridged."""
    length = len(text)
    return lengths[length - CUT] if lengths and length >= CUT else length


@dataclass(frozen=True)
class Target:
    """Who may answer: a tier, or, where `name` is set, only the endpoints of that name in it."""

    tier: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at. `tokens` is an estimate: characters of the conversation // 4."""

    tokens: int
    importance: str
    task_type: str


@dataclass
class Plan:
    """Where a request goes and why.

    `strategy` is what 1.0 recorded: `rule` (named targets too) or `llm`.
    `reason` is `named`, `alias`, `rule:<name>`, `default` or `llm`; `;key` follows where the key is not good
    for the tier that was decided on, `;fallback:<tiers that could not answer>` where another tier had to
    stand in. `warnings` are for the client: what was not done as it asked. `lines` are further header lines
    for it, each ended by CR LF.
    """

    target: Target
    strategy: Strategy
    reason: str
    routing_ms: float = 0.0
    facts: Facts | None = None
    warnings: tuple[str, ...] = ()
    lines: bytes = b""
    _why: bytes = field(default=b"", init=False, repr=False, compare=False)

    def fall_back(self, target: Target) -> "Plan":
        """This plan with another tier in the place of the one that can't answer."""
        before = f"{self.reason}," if ";fallback:" in self.reason else f"{self.reason};fallback:"
        return replace(self, target=target, reason=before + self.target.tier)

    @property
    def why(self) -> bytes:
        """The header lines that tell a client how its request was routed."""
        if not self._why:
            self._why = b"x-octoroute-strategy: %b\r\nx-octoroute-reason: %b\r\n%b" % (
                self.strategy.encode(),
                self.reason.encode(),
                self.notes,
            )
        return self._why

    @property
    def notes(self) -> bytes:
        """Those of them that are not about the way it went."""
        return self.lines + warning_line(self.warnings) if self.warnings else self.lines


def warning_line(warnings: Iterable[str]) -> bytes:
    """The header line that carries the warnings: printable ASCII, cut to WARNING_CHARACTERS."""
    text = "; ".join(warnings)[:WARNING_CHARACTERS]
    printable = "".join(each if " " <= each <= "~" else "?" for each in text)
    return b"x-octoroute-warning: %b\r\n" % printable.encode()


class Outcome:
    """What came of a request. Times are seconds; `ttft_s` and `overhead_s` are negative where there was none.

    Where another tier stood in for the one that was decided on, `attempts` and `failures` are those in that
    tier, `earlier_attempts` those before.
    `result`: `ok`, `client_gone`, `error` (nothing of an answer went out), `broken` (the answer ended early).
    """

    def __init__(self, **known: Any) -> None:
        # Written out: what a dataclass makes of it took 6,000 instructions of each request.
        self.status = 0
        self.result = "error"
        self.endpoint = ""
        self.attempts = 0
        # (endpoint, why) of attempts in vain
        self.failures: list[tuple[str, str]] = []
        # What came of a second attempt beside the first, or why there was none when it was due.
        self.hedge = ""
        # Its endpoint, or the one that it outpaced, and why that gave no answer.
        self.beside = ("", "")
        # Why the last attempt was in vain, where the retry budget allowed no other.
        self.unretried = ""
        # (endpoint, `resumed`, `refused` or `failed`) of each server that left its stream unfinished
        self.recoveries: list[tuple[str, str]] = []
        self.ttft_s = -1.0
        self.overhead_s = -1.0
        self.duration_s = 0.0
        self.bytes_out = 0
        self.chunks = 0
        self.prompt_tokens = -1
        self.completion_tokens = -1
        self.error = ""
        # The end of the answer as it was read, where `usage` stands.
        self.tail = b""
        # Native uint32 for each bucket of the gaps between chunks.
        self.gap_counts = b""
        self.gap_sum_s = 0.0
        self.earlier_attempts = 0
        # For a place at an endpoint; no part of `overhead_s`.
        self.waited_s = 0.0
        # Tokens, by the queue of the tier in which it waited last.
        self.charged = 0
        for name, value in known.items():
            setattr(self, name, value)
