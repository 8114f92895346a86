"""Every section and key of the config as frozen structs: type, default, bounds and an explanation. Those of
the servers are in servers.py and sources.py.

The descriptions are the source of docs/configuration.md. Reading files and rules between keys are elsewhere.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, Strict

from octoroute.config.clients import Auth
from octoroute.config.section import Section, Tier
from octoroute.config.servers import Models
from octoroute.config.sources import Discovery
from octoroute.config.values import (
    REFERENCE,
    AliasTarget,
    HedgeDelay,
    Host,
    PemPath,
    PollInterval,
    RedisUrl,
    UrlPath,
)

MAX_TIMEOUT_S: Final = 3600


class Server(Section):
    """Where the gateway listens, and what it accepts."""

    host: Host = Field(description="Address to listen on.")
    port: int = Field(
        ge=0, le=65535, description="Port to listen on; 0 takes a free one. Not used with unix:."
    )
    request_timeout_seconds: float = Field(
        default=30.0,
        ge=1,
        le=MAX_TIMEOUT_S,
        description="Longest wait for one attempt: for a whole plain answer, or the first byte of a stream.",
    )
    workers: int = Field(default=1, ge=0, le=256, description="Processes that serve; 0 is one per core.")
    max_body_bytes: int = Field(
        default=33_554_432, ge=1024, le=4_294_967_296, description="Larger request bodies are refused (413)."
    )
    max_messages: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Requests with more messages are refused."
    )
    max_content_chars: int = Field(
        default=20_000_000,
        ge=1,
        le=4_294_967_296,
        description="Requests with more characters of content in all are refused.",
    )
    keepalive_seconds: float = Field(
        default=75.0,
        ge=0,
        le=3600,
        description="How long an idle client connection is kept; 0 closes it at once.",
    )
    drain_seconds: float = Field(
        default=600.0, ge=0, le=86_400, description="How long running requests may go on after SIGTERM."
    )
    why_headers: bool = Field(
        default=True,
        description="Whether answers carry the x-octoroute- headers that say which server answered and why.",
    )
    tls_cert: PemPath = Field(
        default="", description="Certificate chain for HTTPS; relative to the config file. Needs tls_key."
    )
    tls_key: PemPath = Field(
        default="", description="Private key for HTTPS; relative to the config file. Needs tls_cert."
    )


TierList = Annotated[tuple[Annotated[Tier, REFERENCE], ...], Strict(False)]


class TierRules(Section):
    """What goes for all servers of a tier."""

    policy: Annotated[
        Literal["weighted", "least_loaded", "prefix_affinity", "session_affinity"], REFERENCE
    ] = Field(
        default="weighted",
        description="Which server gets a request: by weight; the one with less to do; the one that has the "
        "beginning of the prompt in its cache; the one that had the session before. See balancing.md.",
    )
    fallback: TierList = Field(
        default=(),
        description="Tiers to try, in this order, when this one has no server that is able to answer.",
    )


class Tiers(Section):
    """Rules for each tier."""

    fast: TierRules = Field(default=TierRules(), description="For fast.")
    balanced: TierRules = Field(default=TierRules(), description="For balanced.")
    deep: TierRules = Field(default=TierRules(), description="For deep.")

    def of(self, tier: Tier) -> TierRules:
        """The rules of a tier."""
        rules: TierRules = getattr(self, tier)
        return rules


class RouterTimeouts(Section):
    """Seconds that the model asked for a decision may take, by its tier."""

    fast: float = Field(gt=0, description="Seconds for a fast model.")
    balanced: float = Field(gt=0, description="Seconds for a balanced model.")
    deep: float = Field(gt=0, description="Seconds for a deep model.")


class Routing(Section):
    """How a request for `auto` finds its tier."""

    strategy: Annotated[Literal["rule", "llm", "hybrid"], REFERENCE] = Field(
        description="rule: fixed rules decide. llm: a model does. hybrid: rules, and the model if none fits."
    )
    default_importance: Annotated[Literal["low", "normal", "high"], REFERENCE] = Field(
        default="normal", description="Importance of requests that state none."
    )
    router_tier: Annotated[Tier, REFERENCE] = Field(
        default="balanced", description="The tier whose models decide, for llm and hybrid."
    )
    router_timeouts: RouterTimeouts = Field(
        default=RouterTimeouts(fast=10, balanced=10, deep=10),
        description="Seconds for one try of the deciding model, by tier; all three or none.",
    )
    decision_cache_entries: int = Field(
        default=4096, ge=0, le=10_000_000, description="Decisions of the model that are remembered; 0 is off."
    )
    aliases: Mapping[str, AliasTarget] = Field(
        default_factory=dict,
        description="Model names that clients use already, each with what it stands for.",
    )


class Timeouts(Section):
    """Timeouts by tier, and of the stages of a request."""

    fast: float | None = Field(
        default=None, ge=1, le=MAX_TIMEOUT_S, description="Overrides server.request_timeout_seconds for fast."
    )
    balanced: float | None = Field(
        default=None,
        ge=1,
        le=MAX_TIMEOUT_S,
        description="Overrides server.request_timeout_seconds for balanced.",
    )
    deep: float | None = Field(
        default=None, ge=1, le=MAX_TIMEOUT_S, description="Overrides server.request_timeout_seconds for deep."
    )
    connect_seconds: float = Field(
        default=2.0,
        ge=0.01,
        le=300,
        description="Longest wait for a connection to a server; no longer than an attempt may take.",
    )
    stream_idle_seconds: float = Field(
        default=60.0, ge=0.1, le=86_400, description="Longest silence inside a stream."
    )


class Retry(Section):
    """What happens to a request whose server failed before the answer began."""

    attempts: int = Field(
        default=3, ge=1, le=100, description="Servers tried for a request, the first included."
    )
    backoff_seconds: float = Field(
        default=0.1,
        ge=0,
        le=30,
        description="Pause before the same server is tried again; doubled each time.",
    )
    budget: float = Field(
        default=0.2,
        ge=0,
        le=100,
        description="Retries in a tier, as a share of its requests of the last 10 s;"
        " 10 a second are always allowed, on average.",
    )


class Recovery(Section):
    """What happens to a stream whose server is late or fails."""

    resume: bool = Field(
        default=True,
        description="Whether another server of the same model goes on with a broken stream, unseen.",
    )
    resume_buffer_bytes: int = Field(
        default=1_048_576,
        ge=0,
        le=1_073_741_824,
        description="Text kept of each stream for that; a longer one can't be resumed.",
    )
    cancel_plain: bool = Field(
        default=True,
        description="Whether plain requests to llama.cpp are sent as streams and their answers put together,"
        " so that it stops at once when a client leaves.",
    )
    stall_seconds: float = Field(
        default=0.0,
        ge=0,
        le=86_400,
        description="Silence after which a stream is resumed elsewhere if that is possible; 0 is off.",
    )
    hedge: HedgeDelay = Field(
        default="off",
        description="When a second server is asked too, if the first has sent no event by then: off, seconds,"
        " or p95, what one in twenty takes longer than.",
    )
    hedge_budget: float = Field(
        default=0.02, ge=0, le=1, description="Share of a tier's streams that may be sent to a second server."
    )


class Health(Section):
    """How the gateway finds out which servers work."""

    interval_seconds: float = Field(default=30.0, ge=0.1, le=3600, description="Time between two probes.")
    unhealthy_interval_seconds: float = Field(
        default=1.0,
        ge=0.1,
        le=3600,
        description="Time after which a server that gets no requests is probed again; doubles each time, "
        "up to interval_seconds.",
    )
    timeout_seconds: float = Field(
        default=5.0, ge=0.1, le=300, description="Longest wait for a probe's answer."
    )
    path: UrlPath = Field(default="/models", description="What a probe gets, below base_url.")
    failures: int = Field(
        default=3, ge=1, le=1000, description="Failures in a row after which a server gets no requests."
    )
    successes: int = Field(
        default=1, ge=1, le=1000, description="Good probes in a row after which it gets requests again."
    )
    slow_start_seconds: float = Field(
        default=0.0, ge=0, le=3600, description="Time over which its weight grows back from 10 % to 100 %."
    )
    load_interval_seconds: PollInterval = Field(
        default=2.0, ge=0, le=3600, description="Time between two questions for a server's load; 0 is off."
    )


class Queue(Section):
    """Requests that wait because every server is full. Each worker has a queue for each tier."""

    max_waiting: int = Field(
        default=1000, ge=0, le=100_000, description="Requests that wait at most; what is more gets 429."
    )
    max_wait_seconds: float = Field(
        default=30.0, ge=0.1, le=3600, description="Longest wait; a request that waited so long gets 429."
    )
    max_waiting_bytes: int = Field(
        default=268_435_456,
        ge=0,
        le=1_099_511_627_776,
        description="Bytes of the requests that wait at most; what is more gets 429.",
    )


class Shared(Section):
    """What several gateways have in common."""

    redis_url: RedisUrl = Field(
        default=SecretStr(""),
        description="Redis or Valkey that makes the limits of keys hold across gateways; needs the extra "
        "redis. See auth.md.",
    )


class Observability(Section):
    """What the gateway says about itself."""

    log_level: Annotated[Literal["trace", "debug", "info", "warn", "error"], REFERENCE] = Field(
        default="info",
        description="The least important messages that are logged; OCTOROUTE_LOG overrides it.",
    )
    log_format: Annotated[Literal["text", "json"], REFERENCE] = Field(
        default="text", description="Lines for people, or a JSON object per line."
    )
    request_log: bool = Field(default=True, description="Whether each request gets a line in the log.")
    stream_usage: bool = Field(
        default=True,
        description="Whether streams are asked for token counts; who did not ask for them does not see them.",
    )
    recent_requests: int = Field(
        default=1000,
        ge=0,
        le=10_000,
        description="Requests that each worker keeps for /admin/recent, without their content; 0 is none.",
    )
    dashboard: bool = Field(default=True, description="Whether the page /dashboard is there.")


class Config(Section):
    """A whole config file."""

    server: Server
    models: Models = Models()
    routing: Routing
    tiers: Tiers = Tiers()
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    recovery: Recovery = Recovery()
    health: Health = Health()
    discovery: Discovery = Discovery()
    auth: Auth = Auth()
    queue: Queue = Queue()
    shared: Shared = Shared()
    observability: Observability = Observability()

    def timeout_s(self, tier: Tier) -> float:
        """Seconds for one attempt on a server of the tier."""
        of_tier: float | None = getattr(self.timeouts, tier)
        return self.server.request_timeout_seconds if of_tier is None else of_tier
