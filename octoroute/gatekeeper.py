"""Keys and limits of one worker: lets tenants' requests in, holds them to their limits, books what they used.

Made only where the config has keys. What a limit is stands in admission/limits.py; here it meets the clock,
the metrics, and other gateways.
"""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from octoroute.admission.limits import ADMITTED, Entry, Limits, LimitTable, Tenant, Tenants, used_tokens
from octoroute.config import Auth, AuthKey
from octoroute.errors import Forbidden, LimitReached
from octoroute.exchange import Outcome, Plan, RequestView, Target
from octoroute.observe.registry import Registry
from octoroute.routing.facts import read_text
from octoroute.sharing.limits import SharedLimits

# Reasons of a plan for a request that said itself where it should go.
NAMED = ("named", "alias")


class Gatekeeper:
    """`enter` before a body is read, `admit` when it is known where the request goes, `leave` at the end.

    `shared` are the limits across gateways, where the config says so: then `confirm` comes after `admit`.
    """

    def __init__(
        self,
        auth: Auth,
        table: LimitTable,
        registry: Registry,
        shared: SharedLimits | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.public = frozenset(auth.public)
        self.tenants = Tenants(_tenant(key, table) for key in auth.keys)
        self.shared = shared
        self.now = now
        self._refused = registry.bound("octoroute_unauthorized_total")
        self._requests = registry.bound("octoroute_tenant_requests_total")
        self._tokens = registry.bound("octoroute_tenant_tokens_total")
        self._limited = registry.bound("octoroute_tenant_limited_total")
        self._decided = registry.bound("octoroute_shared_limits_decisions_total")

    def stranger(self, why: str) -> None:
        """A request was turned away for its key."""
        self._refused[(why,)].inc()

    def enter(self, tenant: Tenant) -> "Visit":
        """A request of a tenant has come. Raises LimitReached."""
        self._requests[(tenant.name,)].inc()
        try:
            return Visit(self, Entry(tenant, self.limits(tenant), self.now()))
        except LimitReached as error:
            self.limited(tenant, error)
            raise

    def let_in(self, tenant: Tenant) -> "Visit | None":
        """The same, but None, and nothing is counted, where there is no room."""
        try:
            entry = Entry(tenant, self.limits(tenant), self.now())
        except LimitReached:
            return None
        self._requests[(tenant.name,)].inc()
        return Visit(self, entry)

    def limits(self, tenant: Tenant) -> Limits:
        """What may be let through here."""
        return tenant.limits if self.shared is None else self.shared.limits(tenant)

    def limited(self, tenant: Tenant, error: LimitReached) -> None:
        """A request was refused for a limit."""
        self._limited[tenant.name, error.limit].inc()

    def decided(self, by: str) -> None:
        """A request was held to its limits by `redis`, or, where that is away, to the gateway's `share`."""
        self._decided[(by,)].inc()

    def used(self, tenant: Tenant, outcome: Outcome) -> None:
        """A server reported what a request used."""
        if outcome.prompt_tokens > 0:
            self._tokens[tenant.name, "prompt"].add(outcome.prompt_tokens)
        if outcome.completion_tokens > 0:
            self._tokens[tenant.name, "completion"].add(outcome.completion_tokens)


class Visit:
    """One request of a tenant. It stays with the keeper that let it in, whatever a reload does."""

    __slots__ = ("_alone", "_entry", "_keeper", "_second")

    def __init__(self, keeper: Gatekeeper, entry: Entry) -> None:
        self._keeper = keeper
        self._entry = entry
        self._second = -1  # when Redis let it through, by its clock
        self._alone = False  # or whether it was let through without

    @property
    def must_confirm(self) -> bool:
        """Whether `confirm` has to follow `admit`."""
        return self._keeper.shared is not None and bool(self._entry.tenant.limits)

    def admit(self, view: RequestView, plan: Plan) -> Plan:
        """The plan for a request that may go on. Raises Forbidden or LimitReached."""
        keeper, entry, tenant = self._keeper, self._entry, self._entry.tenant
        view.tenant = tenant.name
        view.tiers = tenant.tiers
        plan = _within(plan, tenant)
        if not tenant.limits:
            return plan
        try:
            if tenant.limits.tokens:
                estimate = plan.facts.tokens if plan.facts else read_text(view.fields, view.lengths).tokens
                entry.reserve(max(1, estimate), keeper.now())
        except LimitReached as error:
            keeper.limited(tenant, error)
            raise
        return plan if keeper.shared is not None else self._with_headers(plan)

    async def confirm(self, plan: Plan) -> Plan:
        """The plan, where other gateways have left room too. Raises LimitReached."""
        keeper, entry, tenant = self._keeper, self._entry, self._entry.tenant
        shared = keeper.shared
        assert shared is not None
        decision = await shared.decide(tenant, entry.reserved)
        try:
            if decision is None:
                keeper.decided("share")
                entry.hold_to(shared.limits(tenant), keeper.now())
                shared.let_through(tenant, entry.reserved)
                self._alone = True
            else:
                keeper.decided("redis")
                entry.standings = decision.requests, decision.tokens
                if decision.verdict != ADMITTED:
                    raise entry.refuse(decision.verdict, keeper.now(), entry.reserved)
                self._second = decision.second
        except LimitReached as error:
            keeper.limited(tenant, error)
            raise
        return self._with_headers(plan)

    def abandon(self) -> None:
        """The request ended before it came to `admit`."""
        self._entry.leave(0, monotonic())

    def leave(self, outcome: Outcome) -> None:
        """The request is over, however it ended. To be called once."""
        keeper, entry, tenant, shared = self._keeper, self._entry, self._entry.tenant, self._keeper.shared
        reserved, used = entry.reserved, used_tokens(entry.reserved, outcome)
        entry.leave(used, keeper.now())
        keeper.used(tenant, outcome)
        if shared is None:
            return
        if self._alone:
            shared.left_alone(tenant, reserved, used)
        elif self._second >= 0:
            shared.left(tenant, self._second, reserved, used)

    def _with_headers(self, plan: Plan) -> Plan:
        headers = self._entry.headers(self._keeper.now())
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return replace(plan, lines=lines.encode())


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
