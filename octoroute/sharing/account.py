"""What one worker has to tell Redis of one tenant, and to ask: gathered until the next batch takes it.

Of requests in flight it tells its whole count, never a change to it: so no message that is lost leaves a
wrong count behind. What a lost message said of tokens is told once more: at worst it counts twice.
"""

from asyncio import Future
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from octoroute.admission.limits import ADMITTED, Standing, Tenant
from octoroute.sharing.line import Answer, Call

PREFIX = "octoroute:"
PER_ASK = 7  # numbers of an answer
UNKNOWN = -1


class Decision(NamedTuple):
    """`verdict` is ADMITTED or the limit that has no room; `second` is when tokens were reserved, by Redis's
    clock.
    """

    verdict: int
    requests: Standing
    tokens: Standing
    second: int


class Ask(NamedTuple):
    """A request that waits to know whether it may go on. None is: Redis does not say."""

    tokens: int
    decision: "Future[Decision | None]"


class Correction(NamedTuple):
    """Of tokens that Redis reserved in that second."""

    second: int
    reserved: int
    used: int


@dataclass(slots=True)
class Letter:
    """What is under way of an account."""

    asks: list[Ask]
    corrections: list[Correction]
    requests: int
    tokens: int


@dataclass(slots=True)
class Account:
    """`held` are the requests let through and not over, `told` what Redis knows of that; `requests` and
    `tokens` are owed: let through without Redis.
    """

    tenant: Tenant
    keys: tuple[str, ...]
    held: int = 0
    told: int = 0
    requests: int = 0
    tokens: int = 0
    asks: list[Ask] = field(default_factory=list)
    corrections: list[Correction] = field(default_factory=list)
    under_way: bool = False  # a letter

    @classmethod
    def of(cls, tenant: Tenant) -> "Account":
        digest = blake2b(tenant.name.encode(), digest_size=16).hexdigest()
        return cls(tenant, tuple(f"{PREFIX}{{{digest}}}:{of}" for of in ("requests", "tokens", "places")))

    @property
    def idle(self) -> bool:
        """Whether there is nothing to remember."""
        counts = (self.held, self.told, self.requests, self.tokens)
        return not (any(counts) or self.asks or self.corrections or self.under_way)

    def take(self) -> Letter:
        """What is to be told, which is then on its way."""
        asks = [ask for ask in self.asks if not ask.decision.done()]
        letter = Letter(asks, self.corrections, self.requests, self.tokens)
        self.asks, self.corrections = [], []
        self.requests = self.tokens = 0
        self.under_way = True
        return letter

    def call(self, letter: Letter, worker: str) -> Call:
        """The call that says it."""
        self.told = self.held
        limits = self.tenant.limits
        return Call(
            self.keys,
            (
                *("tell", worker, limits.requests, limits.tokens, limits.in_flight),
                *(self.told, letter.requests, letter.tokens),
                len(letter.asks),
                *(ask.tokens for ask in letter.asks),
                *(number for correction in letter.corrections for number in correction),
            ),
        )

    def arrived(self, letter: Letter, answer: Answer) -> None:
        """Redis has it."""
        self.under_way = False
        second = answer[0]
        for at, ask in enumerate(letter.asks):
            told = answer[1 + at * PER_ASK :][:PER_ASK]
            decision = Decision(told[0], _standing(told[1:4]), _standing(told[4:]), second)
            admitted = decision.verdict == ADMITTED
            self.told += admitted
            if not ask.decision.done():
                self.held += admitted
                ask.decision.set_result(decision)
            elif admitted:
                # Whoever asked has left meanwhile.
                self.correct(second, ask.tokens, 0)

    def lost(self, letter: Letter) -> None:
        """Nobody knows whether Redis has it."""
        self.under_way = False
        self.told = UNKNOWN
        self.requests += letter.requests
        self.tokens += letter.tokens + sum(max(0, one.used - one.reserved) for one in letter.corrections)
        for ask in letter.asks:
            if not ask.decision.done():
                ask.decision.set_result(None)

    def correct(self, second: int, reserved: int, used: int) -> None:
        """Redis is to know what a request really used."""
        if self.tenant.limits.tokens and used != reserved:
            self.corrections.append(Correction(second, reserved, used))


def _standing(told: list[int]) -> Standing:
    used, wait, reset = told
    return Standing(used, wait / 1000 if wait >= 0 else -1.0, reset / 1000)
