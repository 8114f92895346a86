"""From a request to a plan or a question: names, aliases, the three strategies, and what can't be served."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.errors import InvalidRequest
from octoroute.exchange import IMPORTANCES, TASK_TYPES, TIERS, Plan, Target
from octoroute.routing.decide import STRATEGIES, build_table, decide, default_tier
from octoroute.routing.question import Question
from tests.routing.making import FLEET, chat, table, view
from tests.routing.test_facts import JSON, ROUTE_FIELDS
from tests.routing.test_rules import BOUNDARIES, expected


def plan_for(model: str, **aliases: str) -> Plan:
    decision = decide(view(chat("debug"), model), table(aliases=aliases))
    assert isinstance(decision, Plan)
    return decision


def refusal(fields: dict[str, Any], model: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        decide(view(fields, model), table())
    return caught.value


# Names


@pytest.mark.parametrize("tier", TIERS)
def test_a_tier_is_named_in_any_case(tier: str) -> None:
    for model in (tier, tier.upper(), tier.title()):
        plan = plan_for(model)
        assert (plan.target, plan.strategy, plan.reason) == (Target(tier), "rule", "named")
        assert (plan.routing_ms, plan.facts) == (0.0, None)


def test_an_endpoint_name_means_its_replicas_only() -> None:
    assert plan_for("small-8b").target == Target("fast", "small-8b")
    assert plan_for("Medium-30B").target == Target("balanced", "Medium-30B")


def test_an_endpoint_name_is_matched_exactly() -> None:
    assert 'Did you mean "Medium-30B"?' in refusal(chat("x"), "medium-30b").message


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_named_request_gets_the_one_plan_made_with_the_table(strategy: str) -> None:
    made = table(strategy)
    assert decide(view({}, "deep"), made) is decide(view({}, "DEEP"), made)
    assert decide(view({}, "small-8b"), made) is made.plans["small-8b"]


@pytest.mark.parametrize("model", ["auto", "AUTO", "Auto"])
def test_auto_is_named_in_any_case(model: str) -> None:
    assert plan_for(model).reason == "rule:code"


def test_the_four_words_come_before_endpoint_names_and_aliases() -> None:
    made = build_table(
        [*FLEET, ("deep", "FAST", 1), ("deep", "Auto", 1)],
        strategy="rule",
        aliases={"Balanced": "deep", "AUTO": "deep"},
    )
    for model, target in [("FAST", "fast"), ("Balanced", "balanced")]:
        decision = decide(view(chat("debug"), model), made)
        assert isinstance(decision, Plan)
        assert decision.target == Target(target)
    decision = decide(view(chat("debug"), "AUTO"), made)
    assert isinstance(decision, Plan)
    assert decision.reason == "rule:code"
    assert made.models == ("auto", "fast", "balanced", "deep", "small-8b", "Medium-30B", "large-120b")
    assert made.aliases == {}


# Aliases


@pytest.mark.parametrize(
    ("meant", "target"),
    [
        ("deep", Target("deep")),
        ("DEEP", Target("deep")),
        ("small-8b", Target("fast", "small-8b")),
    ],
)
def test_an_alias_stands_for_a_tier_or_an_endpoint_name(meant: str, target: Target) -> None:
    plan = plan_for("gpt-4o", **{"gpt-4o": meant})
    assert (plan.target, plan.strategy, plan.reason) == (target, "rule", "alias")


def test_an_alias_for_auto_is_decided_as_auto() -> None:
    assert plan_for("gpt-4o", **{"gpt-4o": "Auto"}).reason == "rule:code"


def test_an_alias_comes_before_an_endpoint_of_the_same_name() -> None:
    assert plan_for("small-8b", **{"small-8b": "deep"}).target == Target("deep")
    assert plan_for("small-8b", **{"small-8b": "auto"}).reason == "rule:code"
    assert plan_for("other", **{"small-8b": "deep", "other": "small-8b"}).target == Target("fast", "small-8b")


def test_an_alias_for_what_is_not_there_is_an_unknown_model() -> None:
    made = table(aliases={"gpt-4o": "gone", "gpt-4": "deep"})
    with pytest.raises(InvalidRequest) as caught:
        decide(view({}, "gpt-4o"), made)
    assert caught.value.code == "model_not_found"
    assert made.aliases == {"gpt-4": "deep"}


# What can't be served


def test_an_unknown_model_is_refused_with_what_is_there() -> None:
    error = refusal(chat("x"), "smal-8b")
    assert (error.status, error.param, error.code) == (400, "model", "model_not_found")
    assert error.message == (
        'Unknown model "smal-8b". Did you mean "small-8b"? '
        "Available: auto, fast, balanced, deep, small-8b, Medium-30B, large-120b"
    )


def test_aliases_are_listed_with_what_is_there() -> None:
    with pytest.raises(InvalidRequest, match=r"large-120b, gpt-4o$"):
        decide(view({}, "nothing"), table(aliases={"gpt-4o": "deep"}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, 'model is missing: name one, or ask for "auto"'),
        ({"model": ""}, 'model is missing: name one, or ask for "auto"'),
        ({"model": None}, "model must be a string, not null"),
        ({"model": 5}, "model must be a string, not a number"),
        ({"model": 0.5}, "model must be a string, not a number"),
        ({"model": True}, "model must be a string, not a boolean"),
        ({"model": ["fast"]}, "model must be a string, not an array"),
        ({"model": {"id": "fast"}}, "model must be a string, not an object"),
    ],
)
def test_a_model_that_is_no_name_is_refused(fields: dict[str, Any], message: str) -> None:
    error = refusal(fields, "")
    assert (error.status, error.param, error.message) == (400, "model", message)


# Strategies


def sized(tokens: int) -> dict[str, Any]:
    return chat("z" * (4 * tokens))


@pytest.mark.parametrize("task_type", TASK_TYPES)
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_each_strategy_decides_every_combination(task_type: str, importance: str) -> None:
    for tokens in BOUNDARIES:
        if tokens < 10_000:
            each_strategy_decides(task_type, importance, tokens)


def each_strategy_decides(task_type: str, importance: str, tokens: int) -> None:
    asked = view(sized(tokens), importance=importance, task_type=task_type)
    tier = expected(task_type, importance, tokens)

    by_rule = decide(asked, table("rule"))
    assert isinstance(by_rule, Plan)
    assert by_rule.target == Target(tier or "balanced")
    assert by_rule.strategy == "rule"
    assert by_rule.reason.startswith("rule:") if tier else by_rule.reason == "default"

    hybrid = decide(asked, table("hybrid"))
    assert hybrid == by_rule if tier else isinstance(hybrid, Question)

    by_llm = decide(asked, table("llm"))
    assert isinstance(by_llm, Question)
    for decision in (by_rule, hybrid, by_llm):
        assert decision.facts is not None
        assert decision.facts.tokens == tokens
        assert (decision.facts.importance, decision.facts.task_type) == (importance, task_type)


def test_without_overrides_the_text_and_the_config_say_what_it_is() -> None:
    made = build_table(FLEET, strategy="rule", default_importance="low")
    facts = decide(view(chat("Summarize this")), made).facts
    assert facts is not None
    assert (facts.tokens, facts.importance, facts.task_type) == (3, "low", "document_summary")


def test_the_question_goes_to_the_router_tier_and_shows_what_was_asked() -> None:
    made = build_table(FLEET, strategy="llm", router_tier="fast")
    decision = decide(view(chat("What is love?")), made)
    assert isinstance(decision, Question)
    assert decision.tier == "fast"
    assert "\nWhat is love?\n" in decision.prompt


def test_auto_works_on_every_route_with_text() -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/completions", {"prompt": "debug"}),
        ("/v1/embeddings", {"input": ["debug"]}),
        ("/v1/responses", {"input": "debug"}),
        ("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "debug"}]}]}),
    ]
    for path, fields in bodies:
        decision = decide(view(fields, path=path), table())
        assert isinstance(decision, Plan)
        assert decision.reason == "rule:code"


BODIES = st.dictionaries(ROUTE_FIELDS | st.text(max_size=3), JSON)
MODELS = st.sampled_from(["auto", "fast", "DEEP", "small-8b", "gpt-4o", "", "small"]) | st.text(
    st.characters()
)


@given(BODIES, MODELS, st.sampled_from(list(STRATEGIES)))
def test_no_body_raises_anything_but_an_invalid_request(
    fields: dict[str, Any], model: str, strategy: str
) -> None:
    try:
        decision = decide(view(fields, model), table(strategy, {"gpt-4o": "auto"}))
    except InvalidRequest as error:
        assert error.param == "model"  # noqa: PT017
        assert len(error.message) < 400  # noqa: PT017
    else:
        assert isinstance(decision, Plan | Question)


# The default tier


@pytest.mark.parametrize(
    ("endpoints", "tier"),
    [
        ([("fast", "a", 1), ("balanced", "b", 1), ("deep", "c", 1)], "fast"),
        ([("fast", "a", 1), ("balanced", "b", 2), ("deep", "c", 2)], "balanced"),
        ([("fast", "a", 1), ("balanced", "b", 2), ("deep", "c", 3)], "deep"),
        ([("deep", "c", 7), ("deep", "c", 1), ("balanced", "b", 6), ("fast", "a", 0)], "deep"),
        ([("deep", "c", 0)], "deep"),
        ([], "fast"),
    ],
)
def test_the_default_tier_holds_the_highest_priority(
    endpoints: list[tuple[str, str, int]], tier: str
) -> None:
    assert default_tier(endpoints) == tier
    assert default_tier(reversed(endpoints)) == tier


# Requests that leave things out, or say too much


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
@pytest.mark.parametrize("strategy", ["rule", "llm", "hybrid"])
def test_a_request_for_tokens_may_leave_its_model_out(path: str, strategy: str) -> None:
    for fields in ({"content": "hello"}, {"content": "x" * 20_000, "model": None}):
        decision = decide(view(fields, "", path=path), table(strategy))
        assert decision == Plan(Target("balanced"), "rule", "default")


def test_a_request_for_tokens_that_asks_for_auto_is_judged_by_its_text() -> None:
    decision = decide(view({"content": "hello"}, path="/tokenize"), table())
    assert isinstance(decision, Plan)
    assert decision.target == Target("fast")


def test_a_model_that_is_no_text_is_refused_there_too() -> None:
    with pytest.raises(InvalidRequest):
        decide(view({"content": "a", "model": 7}, "", path="/tokenize"), table())


@pytest.mark.parametrize("model", ["fast", "FAST", "small-8b", "gpt-4o"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"importance": "high"}, "X-Octoroute-Importance ignored"),
        ({"task_type": "code"}, "X-Octoroute-Task-Type ignored"),
        (
            {"importance": "high", "task_type": "code"},
            "X-Octoroute-Importance and X-Octoroute-Task-Type ignored",
        ),
    ],
)
def test_an_override_that_a_named_model_makes_void_is_told(
    model: str, given: dict[str, str], told: str
) -> None:
    names = table(aliases={"gpt-4o": "fast"})
    decision = decide(view(chat("a"), model, **given), names)
    assert isinstance(decision, Plan)
    assert [one.startswith(told) for one in decision.warnings] == [True]
    again = decide(view(chat("a"), model), names)
    assert isinstance(again, Plan)
    assert again.warnings == ()
