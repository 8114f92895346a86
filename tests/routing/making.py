"""Makers of requests and tables for the tests of this folder."""

from typing import Any

from octoroute.exchange import RequestView
from octoroute.routing.decide import RoutingTable, build_table

FLEET = (
    ("fast", "small-8b", 1),
    ("fast", "small-8b", 1),
    ("balanced", "Medium-30B", 5),
    ("deep", "large-120b", 5),
)


def chat(text: str, role: str = "user") -> dict[str, Any]:
    """A chat body with one message."""
    return {"model": "auto", "messages": [{"role": role, "content": text}]}


def view(
    fields: dict[str, Any],
    model: str = "auto",
    *,
    importance: str | None = None,
    task_type: str | None = None,
    path: str = "/v1/chat/completions",
) -> RequestView:
    return RequestView(
        request_id="r-1",
        path=path,
        body=b"",
        fields=fields,
        model=model,
        stream=False,
        importance=importance,
        task_type=task_type,
    )


def table(strategy: str = "rule", aliases: dict[str, str] | None = None) -> RoutingTable:
    return build_table(FLEET, strategy=strategy, aliases=aliases)
