"""What would become of a request, without sending it: the decision, and who might answer with which odds.

Made by the same code as in production, from a snapshot: with the live state of a running gateway, or, made
from a config alone, with every endpoint as it starts: healthy.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from octoroute.balance.group import Group
from octoroute.exchange import RequestView, Target
from octoroute.routing.explain import explain
from octoroute.snapshot import Snapshot

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
OTHER: Final = "/v1/responses"


def route_of(fields: Mapping[str, Any]) -> str:
    """The route that a body seems to be for, as far as it matters: by which checks it has to pass."""
    return CHAT if "messages" in fields else COMPLETIONS if "prompt" in fields else OTHER


def explain_request(view: RequestView, snapshot: Snapshot) -> dict[str, Any]:
    """A JSON-ready dict: that of routing/explain.py, and `candidates`, `fallback`. Raises InvalidRequest.

    `candidates` are the endpoints of the target, or, where a model has to be asked first, those that may be
    asked. `fallback` are the tiers that stand in where none of them is able to answer.
    """
    rendered = explain(view, snapshot.routing)
    question = rendered["question"]
    target = Target(rendered["tier"] if question is None else question["asked_of"], rendered["name"])
    rendered["candidates"] = candidates(snapshot.groups[target])
    rendered["fallback"] = [stand_in.tier for stand_in in snapshot.fallbacks.get(target, ())]
    return rendered


def candidates(group: Group) -> Sequence[dict[str, Any]]:
    """Every endpoint of a group in the order of the config. `probability` is the chance that it is the
    first to be tried, were none of them full; 0 for an unhealthy one and for a backup.
    """
    replicas: Counter[str] = Counter()
    found = []
    for endpoint, probability in zip(group.endpoints, group.probabilities(), strict=True):
        name = endpoint.spec.name
        replicas[name] += 1
        found.append(
            {
                "name": name,
                "replica": replicas[name],
                "priority": endpoint.spec.priority,
                "weight": endpoint.weight,
                "healthy": endpoint.healthy,
                "draining": endpoint.draining,
                "full": endpoint.full,
                "probability": round(probability, 4),
            }
        )
    return found
