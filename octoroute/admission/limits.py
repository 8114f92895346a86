"""What each key may use, and what one request of it takes: a place, a request, tokens.

Owns the tenants (a tenant is whoever has a key) and the order of the checks. The counts are in `_limits.pyx`.
A request counts from its head on, its tokens from its body on; at its end the tokens that it really used take
the place of those reserved. What is refused counts as nothing.
"""

import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from hmac import compare_digest
from math import ceil
from typing import Final

from octoroute._limits import ADMITTED, IN_FLIGHT, REQUESTS, LimitTable, Pass
from octoroute.errors import LimitReached
from octoroute.exchange import TIERS, Outcome

__all__ = ["ADMITTED", "Entry", "LimitTable", "Limits", "Standing", "Tenant", "Tenants", "used_tokens"]

# A verdict beside those of the table.
TOKENS: Final = 3
# Nobody's; a key that is not known is compared with it.
NO_DIGEST: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one key; 0 is no limit. `requests` and `tokens` are of a minute."""

    requests: int = 0
    tokens: int = 0
    in_flight: int = 0

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens or self.in_flight)

    def share(self, gateways: int) -> "Limits":
        """The part of one of several gateways that don't know of each other: at least 1 of each."""
        if gateways == 1:
            return self
        parts = (self.requests, self.tokens, self.in_flight)
        return Limits(*(max(1, part // gateways) if part else 0 for part in parts))


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant stands to one of its limits. `wait_s` is until there is room (-1: never), `reset_s` until
    all of it is free.
    """

    used: int = 0
    wait_s: float = 0.0
    reset_s: float = 0.0


class Tenant:
    """Whoever has a key. `slot` is what its like in other configs, and in other workers, share."""

    __slots__ = ("__weakref__", "admin", "digest", "limits", "name", "slot", "table", "tiers")

    def __init__(
        self,
        table: LimitTable,
        name: str,
        digest: bytes,
        limits: Limits,
        tiers: Iterable[str] = TIERS,
        *,
        admin: bool = False,
    ) -> None:
        self.table = table
        self.name = name
        self.digest = digest
        self.limits = limits
        self.tiers = tuple(tier for tier in TIERS if tier in tiers)
        self.admin = admin
        # By name: a new key for the same tenant is no new minute.
        self.slot = table.claim(blake2b(name.encode(), digest_size=16).digest())
        # As an endpoint's claim (balance/endpoint.py).
        weakref.finalize(self, _release_claim, table, self.slot, os.getpid()).atexit = False

    def __repr__(self) -> str:
        return f"<Tenant {self.name}, {self.table.in_flight(self.slot)[1]} in flight>"

    def nearest_tier(self, tier: str) -> str:
        """The tier itself, else the next smaller one that the key is good for, else the next larger one."""
        at = TIERS.index(tier)
        return next(each for each in (*TIERS[at::-1], *TIERS[at + 1 :]) if each in self.tiers)


def _release_claim(table: LimitTable, slot: int, pid: int) -> None:
    if os.getpid() == pid:
        table.release_slot(slot)


class Tenants:
    """All tenants of a config, found by what they send."""

    def __init__(self, tenants: Iterable[Tenant]) -> None:
        self._by_digest = {tenant.digest: tenant for tenant in tenants}

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._by_digest.values())

    def find(self, digest: bytes) -> Tenant | None:
        """The tenant whose key has this SHA-256 digest.

        The time that this takes says nothing about a key: whoever sends one can't steer its digest, and the
        comparison looks at all of it.
        """
        found = self._by_digest.get(digest)
        same = compare_digest(digest, NO_DIGEST if found is None else found.digest)
        return found if same else None


class Entry:
    """One request's way through its tenant's limits: `reserve`, perhaps `refuse`, and at last `leave`."""

    __slots__ = ("_place", "limits", "standings", "tenant")

    def __init__(self, tenant: Tenant, limits: Limits, now: float) -> None:
        """Takes a place and counts a request, by `limits`. Raises LimitReached."""
        self.tenant = tenant
        self.limits = limits
        # In requests and tokens, where somebody knows better than the table here.
        self.standings: tuple[Standing, Standing] | None = None
        self._place = Pass(tenant.table, tenant.slot)
        verdict = self._place.begin(now, limits.requests, limits.in_flight)
        if verdict != ADMITTED:
            raise self.refuse(verdict, now)

    @property
    def reserved(self) -> int:
        """Tokens."""
        return self._place.reserved

    def reserve(self, tokens: int, now: float) -> None:
        """Counts tokens that are expected. Raises LimitReached."""
        if self.limits.tokens and not self._place.reserve(now, tokens, self.limits.tokens):
            raise self.refuse(TOKENS, now, tokens)

    def hold_to(self, limits: Limits, now: float) -> None:
        """Holds what was counted already to narrower limits. Raises LimitReached."""
        self.limits = limits
        if limits.in_flight and self.tenant.table.in_flight(self.tenant.slot)[1] > limits.in_flight:
            raise self.refuse(IN_FLIGHT, now)
        if limits.requests and self._requests(now).used > limits.requests:
            raise self.refuse(REQUESTS, now)
        if limits.tokens and self._tokens(now).used > limits.tokens:
            raise self.refuse(TOKENS, now, self.reserved)

    def refuse(self, verdict: int, now: float, tokens: int = 0) -> LimitReached:
        """The error for a request that a limit has no room for. It counts as nothing from here on."""
        self._place.withdraw()
        name, limits = self.tenant.name, self.limits
        if verdict == IN_FLIGHT:
            message = f"{name} may have {limits.in_flight} requests under way at the same time, and has"
            error = self._error(message, 1.0, now)
            error.limit = "in_flight"
            return error
        if verdict == REQUESTS:
            requests = self.standings[0] if self.standings else self._requests(now)
            message = f"{name} has made {requests.used} of {limits.requests} requests per minute"
            return self._error(message, requests.wait_s, now)
        standing = self.standings[1] if self.standings else self._tokens(now, tokens)
        message = f"{name} has used {standing.used} of {limits.tokens} tokens per minute"
        error = self._error(f"{message}, and this prompt has about {tokens}", standing.wait_s, now)
        error.type = error.limit = "tokens"
        return error

    def leave(self, used: int, now: float) -> None:
        """The request is over. `used` are its tokens."""
        limit = self.limits.tokens or self.tenant.limits.tokens
        if limit:
            self._place.settle(now, used, limit)
        self._place.end()

    def headers(self, now: float) -> dict[str, str]:
        """How the tenant stands to its limits, as OpenAI says it."""
        headers: dict[str, str] = {}
        requests, tokens = self.standings or (self._requests(now), self._tokens(now))
        for limit, standing, of in (
            (self.limits.requests, requests, "requests"),
            (self.limits.tokens, tokens, "tokens"),
        ):
            if limit:
                headers[f"x-ratelimit-limit-{of}"] = str(limit)
                headers[f"x-ratelimit-remaining-{of}"] = str(max(0, limit - standing.used))
                headers[f"x-ratelimit-reset-{of}"] = duration(standing.reset_s)
        return headers

    def _requests(self, now: float) -> Standing:
        limit = self.limits.requests
        return Standing(*self.tenant.table.requests(self.tenant.slot, now, limit)) if limit else Standing()

    def _tokens(self, now: float, amount: int = 1) -> Standing:
        limit = self.limits.tokens
        return (
            Standing(*self.tenant.table.tokens(self.tenant.slot, now, limit, amount)) if limit else Standing()
        )

    def _error(self, message: str, wait_s: float, now: float) -> LimitReached:
        headers = self.headers(now)
        if wait_s < 0:
            # More than a minute's tokens. To OpenAI's clients the header says that trying again is of no use.
            return LimitReached(
                f"{message}: it will never fit", headers={**headers, "x-should-retry": "false"}
            )
        return LimitReached(
            f"{message}; try again in {duration(wait_s)}", retry_after_s=max(1, ceil(wait_s)), headers=headers
        )


def used_tokens(reserved: int, outcome: Outcome) -> int:
    """The tokens of a request: as the server told; else what was reserved and one for each chunk of a stream.

    A request that no server answered used none.
    """
    if outcome.prompt_tokens >= 0 or outcome.completion_tokens >= 0:
        return max(0, outcome.prompt_tokens) + max(0, outcome.completion_tokens)
    if outcome.result == "error" or not outcome.attempts:
        return 0
    return reserved + outcome.chunks


def duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`. Never less than it is."""
    milliseconds = ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:g}s"
    return f"{ceil(seconds) // 60}m{ceil(seconds) % 60}s"
