"""The fleet as operators see and steer it: its live state, drain, live weights.

State is shared, so any worker answers for all. What is set here lives until octoroute ends: only the config
file is lasting. No address of a server is shown.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

import orjson
from aiohttp import web

from octoroute import __version__
from octoroute.balance.endpoint import Endpoint
from octoroute.errors import InvalidRequest
from octoroute.exchange import TIERS
from octoroute.gateway import Gateway
from octoroute.observe.sources import Source
from octoroute.observe.tallies import queue_tallies, tier_tallies
from octoroute.server.admin import json_response
from octoroute.server.completions import check_content_type
from octoroute.server.openai import parse_body
from octoroute.server.reading import read_body
from octoroute.server.tenants import shared_limits, tenants
from octoroute.upstream.kind import known_kind

PREFIX: Final = "/admin/endpoints/"
ROUTE: Final = "/admin/endpoints/{tier}/{name}/"
# Far below where the sum of a tier's weights would no longer be a finite number.
MAX_WEIGHT: Final = 1e6
MAX_NAMES: Final = 100  # in an error
NOTE: Final = "in force until octoroute ends; what is to last belongs in the config file"


async def status(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /admin/status: of all workers, whichever is asked."""
    now = time.monotonic()
    series = gateway.registry.series()
    queues, tiers = queue_tallies(series), tier_tallies(series)
    rules = gateway.snapshot.config.tiers
    in_flight: Counter[str] = Counter()
    for endpoint in gateway.snapshot.endpoints:
        in_flight[endpoint.spec.tier] += endpoint.in_flight
    body = {
        "gateway": {
            "version": __version__,
            "uptime_seconds": int(now - gateway.shared.started_s),
            "workers": gateway.shared.workers,
            "requests": int(sum(value for _, (value,) in series["octoroute_requests_total"])),
        },
        "tenants": tenants(gateway, now),
        "shared_limits": shared_limits(gateway),
        "queues": {tier: {"waiting": gateway.shared.board.waiting(tier), **queues[tier]} for tier in TIERS},
        "tiers": {
            tier: {**rules.of(tier).model_dump(), "in_flight": in_flight[tier], **tiers[tier]}
            for tier in TIERS
        },
        "endpoints": _entries(gateway, numbered(gateway.snapshot.endpoints), now),
        "discovery": [source_entry(source, time.time()) for source in gateway.shared.sources.read()],
    }
    return json_response(orjson.dumps(body), request_id)


async def drain(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:
    """POST /admin/endpoints/{tier}/{name}/drain: no new requests; those that run end as they would."""
    return _steer(request, path, request_id, gateway, lambda endpoint: endpoint.drain())


async def undrain(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:
    """POST /admin/endpoints/{tier}/{name}/undrain"""
    return _steer(request, path, request_id, gateway, lambda endpoint: endpoint.drain(False))


async def weight(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:
    """POST /admin/endpoints/{tier}/{name}/weight with {"weight": 2.0}; null puts the config's back."""
    server = gateway.snapshot.config.server
    check_content_type(request)
    body = await read_body(request, server.max_body_bytes, server.request_timeout_seconds)
    value = read_weight(parse_body(body))
    return _steer(request, path, request_id, gateway, lambda endpoint: endpoint.set_weight(value))


def read_weight(fields: dict[str, Any]) -> float | None:
    """The weight that a body asks for, None for the config's. Raises InvalidRequest."""
    if "weight" not in fields:
        raise InvalidRequest("weight is missing", param="weight", code="missing_required_parameter")
    unknown = next((name for name in fields if name != "weight"), None)
    if unknown is not None:
        raise InvalidRequest(f"the field {unknown[:100]!r} is not known here; only weight is", param=unknown)
    value = fields["weight"]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAX_WEIGHT:
        raise InvalidRequest(
            f"weight must be a number above 0 and at most {MAX_WEIGHT:.0f}, or null for the config's; "
            "drain takes an endpoint out",
            param="weight",
        )
    return float(value)


def route_of(path: str) -> str:
    """The entry of the routes that a path below PREFIX belongs to, there or not."""
    return ROUTE + path.rpartition("/")[2]


def numbered(endpoints: Iterable[Endpoint]) -> Iterator[tuple[Endpoint, int]]:
    """Endpoints, each with its number among the replicas of its name, from 1."""
    seen: Counter[str] = Counter()
    for endpoint in endpoints:
        seen[endpoint.spec.name] += 1
        yield endpoint, seen[endpoint.spec.name]


def _entries(gateway: Gateway, endpoints: Iterable[tuple[Endpoint, int]], now: float) -> list[dict[str, Any]]:
    return [
        entry(endpoint, replica, now, known_kind(endpoint, gateway.sites[endpoint]))
        for endpoint, replica in endpoints
    ]


def entry(endpoint: Endpoint, replica: int, now: float, software: str = "") -> dict[str, Any]:
    """What is told of an endpoint. Null is "never" or "not known"; a capacity of 0 is "no limit".

    `software` is which kind of server it is, as configured or as learnt.
    """
    spec, seen = endpoint.spec, endpoint.seen
    load = None
    if isfinite(seen["load_at"]):
        load = {
            "running": seen["running"],
            "waiting": seen["waiting"],
            "kv_use": round(seen["kv_use"], 4),
            "seconds_ago": _ago(seen["load_at"], now),
        }
    return {
        "tier": spec.tier,
        "name": spec.name,
        "replica": replica,
        "model": spec.model or spec.name,
        "kind": spec.kind,
        "software": software or None,
        "healthy": endpoint.healthy,
        "draining": endpoint.draining,
        "asleep": endpoint.asleep,
        "priority": spec.priority,
        "weight": endpoint.weight,
        "configured_weight": spec.weight,
        "in_flight": endpoint.in_flight,
        "capacity": endpoint.capacity,
        "consecutive_failures": seen["failures"],
        "last_check_seconds_ago": _ago(seen["last_check"], now),
        "ttft_ms": round(seen["ttft_s"] * 1e3, 1) if seen["ttft_s"] >= 0.0 else None,
        "load": load,
    }


def source_entry(source: Source, now_s: float) -> dict[str, Any]:
    """What is told of a source of servers; `failing` is why nothing can be found out, null where it can."""
    return {
        "source": source.source,
        "tier": source.tier,
        "servers": source.servers,
        "failing": source.failing or None,
        "success_seconds_ago": round(max(0.0, now_s - source.success_s), 1) if source.success_s else None,
    }


def _ago(then: float, now: float) -> float | None:
    return round(max(0.0, now - then), 1) if isfinite(then) else None


def _steer(
    request: web.BaseRequest,
    path: str,
    request_id: str,
    gateway: Gateway,
    turn: Callable[[Endpoint], None],
) -> web.Response:
    chosen = list(_chosen(request, path, gateway))
    for endpoint, _ in chosen:
        turn(endpoint)
    entries = _entries(gateway, chosen, time.monotonic())
    return json_response(orjson.dumps({"endpoints": entries, "note": NOTE}), request_id)


def _chosen(request: web.BaseRequest, path: str, gateway: Gateway) -> Iterable[tuple[Endpoint, int]]:
    """The endpoints that a path names. A name may have slashes in it. Raises InvalidRequest."""
    tier, _, name = path.removeprefix(PREFIX).rpartition("/")[0].partition("/")
    name = unquote(name)
    number = _replica(request.raw_path.partition("?")[2])
    named = [
        (endpoint, replica)
        for endpoint, replica in numbered(gateway.snapshot.endpoints)
        if (endpoint.spec.tier, endpoint.spec.name) == (tier, name)
    ]
    if not named:
        known = list(
            dict.fromkeys(f"{each.spec.tier}/{each.spec.name}" for each in gateway.snapshot.endpoints)
        )
        problem = f"there is no endpoint {name[:100]!r} in tier {tier}" if tier in TIERS else "no such tier"
        raise InvalidRequest(
            f"{problem}; the endpoints are: {', '.join(known[:MAX_NAMES])}",
            status=404,
            code="unknown_endpoint",
        )
    if number is None:
        return named
    if number > len(named):
        raise InvalidRequest(
            f"{tier}/{name} has no replica {number}; it has {len(named)}", status=404, code="unknown_endpoint"
        )
    return named[number - 1 : number]


def _replica(query: str) -> int | None:
    """The `replica` of a query: from 1; None where all are meant. Raises InvalidRequest."""
    number = None
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key != "replica":
            raise InvalidRequest(f"the query has {key[:100]!r}; only replica is known here", param=key)
        if not (value.isascii() and value.isdigit() and len(value) < 7 and int(value) > 0):
            raise InvalidRequest("replica must be a whole number from 1", param="replica")
        number = int(value)
    return number
