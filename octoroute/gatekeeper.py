"""Keys and limits of one worker: lets tenants' requests in, holds them to their limits, books what they used.

Made only where the config has keys. What a limit is stands in admission/limits.py; here it meets the clock
and the metrics.
"""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from octoroute.admission.limits import Entry, Limits, LimitTable, Tenant, Tenants, used_tokens
from octoroute.config import Auth, AuthKey
from octoroute.errors import Forbidden, LimitReached
from octoroute.exchange import Outcome, Plan, RequestView, Target
from octoroute.observe.registry import Registry
from octoroute.routing.facts import read_text

# Reasons of a plan for a request that said itself where it should go.
NAMED = ("named", "alias")


class Gatekeeper:
    """`enter` before a body is read, `admit` when it is known where the request goes, `leave` at the end."""

    def __init__(
        self, auth: Auth, table: LimitTable, registry: Registry, now: Callable[[], float] = monotonic
    ) -> None:
        self.public = frozenset(auth.public)
        self.tenants = Tenants(_tenant(key, table) for key in auth.keys)
        self._now = now
        self._refused = registry.bound("octoroute_unauthorized_total")
        self._requests = registry.bound("octoroute_tenant_requests_total")
        self._tokens = registry.bound("octoroute_tenant_tokens_total")
        self._limited = registry.bound("octoroute_tenant_limited_total")

    def stranger(self, why: str) -> None:
        """A request was turned away for its key."""
        self._refused[(why,)].inc()

    def enter(self, tenant: Tenant) -> "Visit":
        """A request of a tenant has come. Raises LimitReached."""
        self._requests[(tenant.name,)].inc()
        try:
            return Visit(self, Entry(tenant, tenant.limits, self._now()))
        except LimitReached as error:
            self._limited[tenant.name, error.limit].inc()
            raise

    def let_in(self, tenant: Tenant) -> "Visit | None":
        """The same, but None, and nothing is counted, where there is no room."""
        try:
            entry = Entry(tenant, tenant.limits, self._now())
        except LimitReached:
            return None
        self._requests[(tenant.name,)].inc()
        return Visit(self, entry)

    def admit(self, entry: Entry, view: RequestView, plan: Plan) -> Plan:
        """The plan for a request that may go on. Raises Forbidden or LimitReached."""
        tenant = entry.tenant
        view.tenant = tenant.name
        view.tiers = tenant.tiers
        plan = _within(plan, tenant)
        if not tenant.limits:
            return plan
        try:
            if tenant.limits.tokens:
                estimate = plan.facts.tokens if plan.facts else read_text(view.fields).tokens
                entry.reserve(max(1, estimate), self._now())
        except LimitReached as error:
            self._limited[tenant.name, error.limit].inc()
            raise
        headers = entry.headers(self._now())
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return replace(plan, lines=lines.encode())

    def leave(self, entry: Entry, outcome: Outcome) -> None:
        """A request is over, however it ended."""
        entry.leave(used_tokens(entry.reserved, outcome), self._now())
        name = entry.tenant.name
        if outcome.prompt_tokens > 0:
            self._tokens[name, "prompt"].add(outcome.prompt_tokens)
        if outcome.completion_tokens > 0:
            self._tokens[name, "completion"].add(outcome.completion_tokens)


class Visit:
    """One request of a tenant. It stays with the keeper that let it in, whatever a reload does."""

    __slots__ = ("_entry", "_keeper")

    def __init__(self, keeper: Gatekeeper, entry: Entry) -> None:
        self._keeper = keeper
        self._entry = entry

    def admit(self, view: RequestView, plan: Plan) -> Plan:
        """See Gatekeeper.admit."""
        return self._keeper.admit(self._entry, view, plan)

    def abandon(self) -> None:
        """The request ended before it came to `admit`."""
        self._entry.leave(0, monotonic())

    def leave(self, outcome: Outcome) -> None:
        """See Gatekeeper.leave. To be called once."""
        self._keeper.leave(self._entry, outcome)


def _tenant(key: AuthKey, table: LimitTable) -> Tenant:
    limits = Limits(key.requests_per_minute, key.tokens_per_minute, key.max_in_flight)
    return Tenant(table, key.name, key.digest, limits, key.tiers, admin=key.admin)


def _within(plan: Plan, tenant: Tenant) -> Plan:
    """The plan in the nearest tier that the key is good for. Raises Forbidden if the client named another."""
    tier = plan.target.tier
    if tier in tenant.tiers:
        return plan
    if plan.reason in NAMED:
        raise Forbidden(
            f"{tenant.name} may not use the tier {tier}, but {', '.join(tenant.tiers)}",
            param="model",
            code="model_not_found",
        )
    nearest = tenant.nearest_tier(tier)
    warning = f"{tenant.name} may not use the tier {tier}, which was decided on: {nearest} answers"
    return replace(
        plan, target=Target(nearest), reason=f"{plan.reason};key", warnings=(*plan.warnings, warning)
    )
