"""The rule table against the plain statement of its five conditions."""

from itertools import product

import pytest

from octoroute.exchange import IMPORTANCES, TASK_TYPES, Facts
from octoroute.routing.rules import RULES, match

BOUNDARIES = (0, 1, 199, 200, 201, 255, 256, 257, 1023, 1024, 1025, 2047, 2048, 2049, 10_000_000)


def expected(task_type: str, importance: str, tokens: int) -> str | None:
    if task_type == "casual_chat" and tokens < 256 and importance != "high":
        return "fast"
    if importance == "high" and task_type != "casual_chat":
        return "deep"
    if task_type in ("deep_analysis", "creative_writing"):
        return "deep"
    if task_type == "code":
        return "deep" if tokens > 1024 else "balanced"
    if task_type in ("question_answer", "document_summary") and 200 <= tokens < 2048:
        return "balanced"
    return None


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_every_combination_goes_where_the_conditions_say(task_type: str) -> None:
    for importance, tokens in product(IMPORTANCES, BOUNDARIES):
        matched = match(Facts(tokens, importance, task_type))
        assert (matched and matched[0]) == expected(task_type, importance, tokens), (importance, tokens)


@pytest.mark.parametrize(
    ("task_type", "importance", "tokens", "matched"),
    [
        ("casual_chat", "normal", 255, ("fast", "casual_chat")),
        ("casual_chat", "low", 255, ("fast", "casual_chat")),
        ("casual_chat", "normal", 256, None),
        ("casual_chat", "high", 1, None),
        ("question_answer", "high", 1, ("deep", "high_importance")),
        ("code", "high", 1, ("deep", "high_importance")),
        ("deep_analysis", "high", 1, ("deep", "high_importance")),
        ("deep_analysis", "low", 1, ("deep", "deep_analysis")),
        ("creative_writing", "low", 1, ("deep", "creative_writing")),
        ("code", "normal", 1024, ("balanced", "code")),
        ("code", "normal", 1025, ("deep", "long_code")),
        ("question_answer", "normal", 199, None),
        ("question_answer", "normal", 200, ("balanced", "question_answer")),
        ("question_answer", "normal", 2047, ("balanced", "question_answer")),
        ("question_answer", "normal", 2048, None),
        ("document_summary", "low", 199, None),
        ("document_summary", "low", 200, ("balanced", "document_summary")),
        ("document_summary", "low", 2047, ("balanced", "document_summary")),
        ("document_summary", "low", 2048, None),
    ],
)
def test_the_rule_is_named(
    task_type: str, importance: str, tokens: int, matched: tuple[str, str] | None
) -> None:
    assert match(Facts(tokens, importance, task_type)) == matched


def test_names_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("task_type", TASK_TYPES)
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_the_first_rule_that_misses_nothing_is_the_one_that_matches(task_type: str, importance: str) -> None:
    for tokens in BOUNDARIES:
        facts = Facts(tokens, importance, task_type)
        first = next(((rule.tier, rule.name) for rule in RULES if not rule.misses(facts)), None)
        assert match(facts) == first


def test_a_rule_says_which_facts_keep_it_from_matching() -> None:
    assert RULES[0].misses(Facts(256, "high", "code")) == ["task_type", "importance", "tokens"]
