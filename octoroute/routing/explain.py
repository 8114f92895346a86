"""Why a request would go where it would go: the decision rendered for people, made by the same `decide`.

Who may answer within the tier (weights, health, odds) is for the caller to add. Holds the question's prompt,
which quotes the user: show it to whoever sent the request, and log it never.
"""

from typing import Any

from octoroute.exchange import Facts, Plan, RequestView
from octoroute.routing.decide import RoutingTable, decide
from octoroute.routing.rules import RULES


def explain(view: RequestView, table: RoutingTable) -> dict[str, Any]:
    """A JSON-ready dict. Raises InvalidRequest as `decide` does.

    `tier` is None where a model has to be asked first: `question` then says which tier's models, and what.
    `facts` is None where the model's name alone decided, `rules` wherever no rule was looked at.
    """
    decision = decide(view, table)
    facts = decision.facts
    rendered: dict[str, Any] = {
        "model": view.model,
        "stands_for": table.aliases.get(view.model),
        "strategy": "llm",
        "tier": None,
        "name": None,
        "reason": "llm",
        "facts": None if facts is None else _facts(facts),
        "rules": None if facts is None or table.strategy == "llm" else _rules(facts),
        "question": None,
    }
    if isinstance(decision, Plan):
        rendered["strategy"] = decision.strategy
        rendered["tier"] = decision.target.tier
        rendered["name"] = decision.target.name
        rendered["reason"] = decision.reason
    else:
        rendered["question"] = {
            "asked_of": decision.tier,
            "key": decision.key.hex(),
            "prompt": decision.prompt,
        }
    return rendered


def _facts(facts: Facts) -> dict[str, Any]:
    return {"tokens": facts.tokens, "importance": facts.importance, "task_type": facts.task_type}


def _rules(facts: Facts) -> list[dict[str, Any]]:
    """Every rule in order, with the facts that keep it from matching; the first without any decides."""
    return [{"rule": rule.name, "tier": rule.tier, "misses": rule.misses(facts)} for rule in RULES]
