"""The tenants as operators see them: what each may use, and how much of it it has used. Never a key."""

from itertools import islice
from typing import Any, Final

from octoroute.admission.limits import Tenant
from octoroute.gateway import Gateway

MAX_TENANTS: Final = 1000


def tenants(gateway: Gateway, now: float) -> list[dict[str, Any]]:
    """In the order of the config; the first MAX_TENANTS of them. What they used here, in all workers."""
    if gateway.keys is None:
        return []
    return [entry(tenant, now) for tenant in islice(gateway.keys.tenants, MAX_TENANTS)]


def entry(tenant: Tenant, now: float) -> dict[str, Any]:
    """What is told of a tenant. A limit of 0 is no limit, and what nobody limits is not counted: null."""
    limits, table, slot = tenant.limits, tenant.table, tenant.slot
    requests = table.requests(slot, now, limits.requests)[0] if limits.requests else None
    tokens = table.tokens(slot, now, limits.tokens)[0] if limits.tokens else None
    return {
        "name": tenant.name,
        "admin": tenant.admin,
        "tiers": tenant.tiers,
        "in_flight": table.in_flight(slot)[1],
        "max_in_flight": limits.in_flight,
        "requests": requests,
        "requests_per_minute": limits.requests,
        "tokens": tokens,
        "tokens_per_minute": limits.tokens,
    }


def shared_limits(gateway: Gateway) -> dict[str, Any] | None:
    """Whether limits hold across gateways just now; null where they are this one's alone."""
    if gateway.sharing is None:
        return None
    outage = gateway.shared.outage
    return {"redis": outage.state, "workers_away": outage.away, "gateways": outage.gateways}
