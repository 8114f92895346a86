"""The rendered decision: the same that would be taken, with what led to it."""

import orjson
import pytest

from octoroute.errors import InvalidRequest
from octoroute.routing.explain import explain
from tests.routing.making import chat, table, view


def test_a_rules_decision_shows_facts_and_every_rule() -> None:
    shown = explain(view(chat("debug this please")), table("hybrid"))
    assert (shown["tier"], shown["name"], shown["reason"]) == ("balanced", None, "rule:code")
    assert shown["facts"] == {"tokens": 4, "importance": "normal", "task_type": "code"}
    assert [rule["rule"] for rule in shown["rules"] if not rule["misses"]] == ["code"]
    assert shown["question"] is None


def test_an_unmatched_request_shows_what_each_rule_misses() -> None:
    shown = explain(view(chat("Why?")), table("rule"))
    assert shown["reason"] == "default"
    missed = {rule["rule"]: rule["misses"] for rule in shown["rules"]}
    assert missed["question_answer"] == ["tokens"]
    assert missed["high_importance"] == ["importance"]


@pytest.mark.parametrize("strategy", ["hybrid", "llm"])
def test_a_question_is_shown_and_no_tier(strategy: str) -> None:
    shown = explain(view(chat("Why?")), table(strategy))
    assert (shown["tier"], shown["strategy"], shown["reason"]) == (None, "llm", "llm")
    assert shown["question"]["asked_of"] == "balanced"
    assert "\nWhy?\n" in shown["question"]["prompt"]
    assert len(shown["question"]["key"]) == 32
    assert (shown["rules"] is None) == (strategy == "llm")


def test_a_name_explains_itself() -> None:
    shown = explain(view({}, "small-8b"), table())
    assert (shown["tier"], shown["name"], shown["reason"]) == ("fast", "small-8b", "named")
    assert (shown["facts"], shown["rules"]) == (None, None)


def test_an_alias_shows_what_it_stands_for() -> None:
    shown = explain(view({}, "gpt-4o"), table(aliases={"gpt-4o": "deep"}))
    assert (shown["stands_for"], shown["tier"], shown["reason"]) == ("deep", "deep", "alias")


def test_the_rendering_is_json() -> None:
    for strategy in ("rule", "llm", "hybrid"):
        assert orjson.dumps(explain(view(chat("\ud800?")), table(strategy)))


def test_an_unknown_model_is_refused_as_in_production() -> None:
    with pytest.raises(InvalidRequest):
        explain(view({}, "nothing"), table())
