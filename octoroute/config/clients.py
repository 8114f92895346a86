"""The keys of clients: what each opens, and how much of it."""

from typing import Annotated

from pydantic import Field, Strict

from octoroute.config.section import TIERS, Section, Tier
from octoroute.config.values import REFERENCE, Allowed, ClientKey, KeyDigest, Name, UrlPath

KeyTiers = Annotated[tuple[Annotated[Tier, REFERENCE], ...], Field(min_length=1), Strict(False)]
PublicPaths = Annotated[
    tuple[UrlPath, ...], Strict(False), Allowed("an array of paths, each of which begins with /")
]


class AuthKey(Section):
    """One key that clients may use: who that is, and what it is good for."""

    name: Name = Field(description="Who has the key: the tenant, in metrics and in the log.")
    key: ClientKey | None = Field(
        default=None, description="The key that the client sends. Only its digest is kept in memory."
    )
    key_sha256: KeyDigest | None = Field(
        default=None, description="Its digest, in place of the key: then the key itself is nowhere here."
    )
    requests_per_minute: int = Field(
        default=0, ge=0, le=1_000_000_000, description="Requests in any 60 seconds; 0 is no limit."
    )
    tokens_per_minute: int = Field(
        default=0,
        ge=0,
        le=1_000_000_000_000,
        description="Tokens of prompts and answers in 60 seconds; 0 is no limit.",
    )
    max_in_flight: int = Field(
        default=0, ge=0, le=1_000_000, description="Requests at the same time; 0 is no limit."
    )
    tiers: KeyTiers = Field(default=TIERS, description="Tiers that may answer.")
    admin: bool = Field(default=False, description="Whether it opens /metrics and /admin.")

    @property
    def digest(self) -> bytes:
        """SHA-256 of the key."""
        given = self.key or self.key_sha256
        return bytes.fromhex(given.get_secret_value()) if given is not None else b""


AuthKeys = Annotated[tuple[AuthKey, ...], Field(max_length=10_000), Strict(False)]


class Auth(Section):
    """Who may use the gateway. Without keys everybody may."""

    public: PublicPaths = Field(default=("/health",), description="Paths that need no key.")
    keys: AuthKeys = Field(default=(), description="The keys, each a table of its own.")
