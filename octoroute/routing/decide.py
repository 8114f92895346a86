"""DECIDE TIER: from a request and the routing table to a plan, or to the question that has to be asked first.

A request that names its model costs one dict lookup: its plan was made with the table. Text is looked at only
for `auto`. Health and load are not known here: a plan says who may answer, not who can.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from octoroute.errors import InvalidRequest
from octoroute.exchange import TIERS, Facts, Plan, RequestView, Target
from octoroute.routing.facts import Reading, facts_of, read_text
from octoroute.routing.question import Question, make_question
from octoroute.routing.rules import match
from octoroute.routing.unknown_model import unknown_model

AUTO: Final = "auto"
# In the order of GET /v1/models. Their case is ignored, and no endpoint or alias can take them over.
WORDS: Final = (AUTO, *TIERS)
LONGEST_WORD: Final = max(map(len, WORDS))
TARGETS: Final = {tier: Target(tier) for tier in TIERS}
# Their requests may leave the model out, as llama.cpp's clients do. They all go to one tier, whatever their
# text: token counts of different tiers can't be compared.
MODEL_OPTIONAL: Final = frozenset(("/tokenize", "/detokenize"))


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """All that deciding depends on. `plans` holds one plan for each name that needs no look at the text.

    `models` are the four words, then the endpoint names, once each; `aliases` maps to what each stands for.
    """

    strategy: str
    default_importance: str
    default_tier: str
    router_tier: str
    plans: Mapping[str, Plan]
    autos: frozenset[str]
    models: tuple[str, ...]
    aliases: Mapping[str, str]


def build_table(
    endpoints: Iterable[tuple[str, str, int]],
    *,
    strategy: str,
    default_importance: str = "normal",
    router_tier: str = "balanced",
    aliases: Mapping[str, str] | None = None,
) -> RoutingTable:
    """The table for `endpoints`: (tier, name, priority) each, in the order in which they are to be listed.

    Words come before aliases, and aliases before endpoint names. An alias that stands for nothing that is
    there now (its endpoint was discovered and has gone) is left out: asking for it is asking for an unknown
    model.
    """
    fleet = list(endpoints)
    plans = {tier: Plan(TARGETS[tier], "rule", "named") for tier in TIERS}
    names: dict[str, None] = {}
    for tier, name, _ in fleet:
        if name.lower() not in WORDS and name not in names:
            names[name] = None
            plans[name] = Plan(Target(tier, name), "rule", "named")
    targets = {name: plan.target for name, plan in plans.items()}
    autos = {AUTO}
    known: dict[str, str] = {}
    for alias, meant in (aliases or {}).items():
        stands_for = meant.lower() if meant.lower() in WORDS else meant
        if alias.lower() in WORDS or not (stands_for == AUTO or stands_for in targets):
            continue
        known[alias] = stands_for
        if stands_for == AUTO:
            autos.add(alias)
            plans.pop(alias, None)
        else:
            plans[alias] = Plan(targets[stands_for], "rule", "alias")
    return RoutingTable(
        strategy=strategy,
        default_importance=default_importance,
        default_tier=default_tier(fleet),
        router_tier=router_tier,
        plans=plans,
        autos=frozenset(autos),
        models=(*WORDS, *names),
        aliases=known,
    )


def default_tier(endpoints: Iterable[tuple[str, str, int]]) -> str:
    """The tier of the highest priority of all (tier, name, priority); ties go fast, balanced, deep."""
    highest = dict.fromkeys(TIERS, -1)
    for tier, _, priority in endpoints:
        highest[tier] = max(priority, highest[tier])
    return max(TIERS, key=highest.__getitem__)


def decide(view: RequestView, table: RoutingTable) -> Plan | Question:
    """The plan for a request, or the question to ask first. Raises InvalidRequest for an unknown model."""
    plan = table.plans.get(view.model)
    if plan is not None:
        return plan if view.importance is view.task_type is None else _overrides_ignored(plan, view)
    if not view.model and view.path in MODEL_OPTIONAL and view.fields.get("model") is None:
        return Plan(TARGETS[table.default_tier], "rule", "default")
    model = _model_of(view)
    if model not in table.autos:
        word = model.lower() if len(model) <= LONGEST_WORD else ""
        if word in TIERS:
            plan = table.plans[word]
            return plan if view.importance is view.task_type is None else _overrides_ignored(plan, view)
        if word != AUTO:
            raise unknown_model(model, (*table.models, *table.aliases))
    reading = read_text(view.fields, view.lengths)
    facts = facts_of(reading, view.importance or table.default_importance, view.task_type)
    return STRATEGIES[table.strategy](facts, reading, table)


def by_rule(facts: Facts, _reading: Reading, table: RoutingTable) -> Plan:
    """The first rule that matches, else the default tier."""
    return _plan_by_rule(facts) or Plan(TARGETS[table.default_tier], "rule", "default", 0.0, facts)


def by_llm(facts: Facts, reading: Reading, table: RoutingTable) -> Question:
    """Always a question."""
    return make_question(table.router_tier, facts, reading.asked)


def by_hybrid(facts: Facts, reading: Reading, table: RoutingTable) -> Plan | Question:
    """The first rule that matches, else a question."""
    return _plan_by_rule(facts) or by_llm(facts, reading, table)


STRATEGIES: Final[dict[str, Callable[[Facts, Reading, RoutingTable], Plan | Question]]] = {
    "rule": by_rule,
    "llm": by_llm,
    "hybrid": by_hybrid,
}


def _plan_by_rule(facts: Facts) -> Plan | None:
    matched = match(facts)
    if matched is None:
        return None
    tier, name = matched
    return Plan(TARGETS[tier], "rule", f"rule:{name}", 0.0, facts)


def _overrides_ignored(plan: Plan, view: RequestView) -> Plan:
    given = (("X-Octoroute-Importance", view.importance), ("X-Octoroute-Task-Type", view.task_type))
    ignored = " and ".join(name for name, value in given if value is not None)
    return replace(plan, warnings=(f"{ignored} ignored: the request names its model",))


def _model_of(view: RequestView) -> str:
    if view.model:
        return view.model
    asked = view.fields.get("model", "")
    if not isinstance(asked, str):
        found = _JSON_TYPES.get(type(asked), "something else")
        raise InvalidRequest(f"model must be a string, not {found}", param="model")
    raise InvalidRequest(
        'model is missing: name one, or ask for "auto"', param="model", code="missing_required_parameter"
    )


_JSON_TYPES: Final = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    list: "an array",
    dict: "an object",
}
