"""compile(config, state, previous) -> Snapshot: everything a request needs to be decided and placed, frozen.

A reload makes a new snapshot and swaps one reference; a request keeps the one it began with. Endpoints that
stay keep their live state, which belongs to their identity and not to the snapshot.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from octoroute._state import FleetState
from octoroute.balance.endpoint import Endpoint, EndpointSpec, claim_endpoints
from octoroute.balance.group import Group, PrefixIndex
from octoroute.config import Config, Tier
from octoroute.exchange import TIERS, Target
from octoroute.routing.decide import RoutingTable, build_table

# After so many in which a server did not tell its load, what it told last is forgotten.
TRUSTED_INTERVALS = 3

# How long requests wait for a tier whose last healthy endpoint has just failed.
HOPE_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Terms:
    """On what terms the requests of a tier are tried."""

    attempts: int
    timeout_ns: int  # of one attempt: for the whole of a plain answer, for the first event of a stream
    idle_ns: int  # longest silence inside a stream
    backoff_s: float
    retry_budget: float  # retries, as a share of requests
    hedge_s: float | None  # after which a stream without an event is late; 0: as learnt, None: never
    hedge_budget: float  # hedges, as a share of requests
    failures: int  # consecutive, then an endpoint is unhealthy
    resume: bool  # whether a broken stream is continued elsewhere
    resume_bytes: int  # of text, of a stream that can be
    stall_ns: int  # silence after which a stream counts as broken if it can be continued; 0: never
    hope_s: float  # how long a tier is waited for whose last healthy endpoint has just failed
    retry_after_s: int  # what a client is told when no endpoint is healthy
    why_headers: bool  # whether answers say how they came about


@dataclass(frozen=True)
class Snapshot:
    """`groups` has one group per tier and one per endpoint name; they share the endpoints. `fallbacks` has
    what may stand in for a tier, of those tiers that have any.
    """

    config: Config
    endpoints: tuple[Endpoint, ...]
    groups: Mapping[Target, Group]
    routing: RoutingTable
    terms: Mapping[str, Terms]
    fallbacks: Mapping[Target, tuple[Target, ...]]


def compile_snapshot(config: Config, state: FleetState, prefixes: PrefixIndex | None = None) -> Snapshot:
    """The snapshot of a config. Endpoints that were in an earlier one find their live state in `state`
    again. `prefixes` is what was sent where, of all workers.
    """
    endpoints = claim_endpoints(endpoint_specs(config), state)
    members: dict[Target, list[Endpoint]] = {Target(tier): [] for tier in TIERS}
    policies = {tier: config.tiers.of(tier).policy for tier in TIERS}
    # What a source finds may be nothing just now: its name is known all the same.
    sources: list[tuple[str, str, int]] = [
        (tier, source.name, source.priority) for _, tier, source in config.discovery.sources()
    ]
    members |= {Target(tier, name): [] for tier, name, _ in sources}
    for endpoint in endpoints:
        members[Target(endpoint.spec.tier)].append(endpoint)
        members.setdefault(Target(endpoint.spec.tier, endpoint.spec.name), []).append(endpoint)
    routing = config.routing
    return Snapshot(
        config=config,
        endpoints=endpoints,
        groups={
            target: Group(
                target.tier,
                group,
                state,
                slow_start_s=config.health.slow_start_seconds,
                policy=policies[target.tier],
                prefixes=prefixes,
                trust_s=trusted_s(config),
            )
            for target, group in members.items()
        },
        routing=build_table(
            [
                *((each.spec.tier, each.spec.name, each.spec.priority) for each in endpoints),
                *sources,
            ],
            strategy=routing.strategy,
            default_importance=routing.default_importance,
            router_tier=routing.router_tier,
            aliases=routing.aliases,
        ),
        terms={tier: _terms(config, tier) for tier in TIERS},
        fallbacks={
            Target(tier): tuple(map(Target, rules.fallback))
            for tier in TIERS
            if (rules := config.tiers.of(tier)).fallback
        },
    )


def trusted_s(config: Config) -> float:
    """How long what a server said of its load counts."""
    return TRUSTED_INTERVALS * config.health.load_interval_seconds


def endpoint_specs(config: Config) -> Iterable[EndpointSpec]:
    """The endpoints of a config, in the order of the file."""
    for tier in TIERS:
        for model in config.models.of(tier):
            yield EndpointSpec(
                tier=tier,
                name=model.name,
                base_url=model.base_url,
                model=model.model or model.name,
                max_tokens=model.max_tokens,
                temperature=model.temperature,
                weight=model.weight,
                priority=model.priority,
                kind=model.kind,
                api_key=model.api_key.get_secret_value(),
                max_in_flight=model.max_in_flight,
                tls_verify=model.tls_verify,
                tls_server_name=model.tls_server_name,
            )


def _terms(config: Config, tier: Tier) -> Terms:
    unhealthy_s = min(config.health.interval_seconds, config.health.unhealthy_interval_seconds)
    # Where a probe can come in time, and no other tier stands in.
    hopes = 2 * unhealthy_s <= HOPE_SECONDS and not config.tiers.of(tier).fallback
    return Terms(
        attempts=config.retry.attempts,
        timeout_ns=int(config.timeout_s(tier) * 1e9),
        idle_ns=int(config.timeouts.stream_idle_seconds * 1e9),
        backoff_s=config.retry.backoff_seconds,
        retry_budget=config.retry.budget,
        hedge_s={"off": None, "p95": 0.0}.get(config.recovery.hedge, config.recovery.hedge),
        hedge_budget=config.recovery.hedge_budget,
        failures=config.health.failures,
        resume=config.recovery.resume,
        resume_bytes=config.recovery.resume_buffer_bytes,
        stall_ns=int(config.recovery.stall_seconds * 1e9),
        hope_s=HOPE_SECONDS if hopes else 0.0,
        retry_after_s=max(1, ceil(unhealthy_s)),
        why_headers=config.server.why_headers,
    )
