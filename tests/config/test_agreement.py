"""The rules between keys."""

from typing import Any

import pytest

from tests.config.sample import config, problem, problems_of, sample

OWN_NAMES = "auto, fast, balanced, deep are octoroute's own model names, in any case; choose another"


def _server(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "base_url": "http://gpu-9/v1", "max_tokens": 1, **more}


def test_a_name_may_repeat_inside_a_tier() -> None:
    made = config(("models.fast", [_server("one"), _server("one"), _server("one")]))
    assert [server.name for server in made.models.fast] == ["one"] * 3


def test_a_name_may_not_be_in_two_tiers() -> None:
    assert problem(("models.balanced.0.name", "large")) == (
        'models.deep[0].name is "large", the name of models.balanced[0] too; '
        "a name may repeat inside a tier, never in two tiers"
    )


def test_a_name_in_three_tiers_is_told_once_for_each_further_tier() -> None:
    tree = sample(
        *((f"models.{tier}", [_server("one"), _server("one")]) for tier in ("fast", "balanced", "deep"))
    )
    assert [message.partition(" is ")[0] for message in problems_of(tree)] == [
        "models.balanced[0].name",
        "models.deep[0].name",
    ]


def test_names_that_differ_in_case_are_two_names() -> None:
    assert config(("models.deep.0.name", "Small")).models.deep[0].name == "Small"


def test_a_name_from_the_environment_is_compared_by_its_value_and_shown_by_its_reference() -> None:
    message = problem(("models.deep.0.name", "env:IT"), environ={"IT": "small"})
    assert message.startswith('models.deep[0].name is "env:IT", the name of models.fast[0] too')


@pytest.mark.parametrize("name", ["auto", "fast", "balanced", "deep", "Auto", "FAST"])
def test_an_endpoint_may_not_have_a_name_of_octoroutes_own(name: str) -> None:
    assert problem(("models.fast.0.name", name)) == f'models.fast[0].name is "{name}"; {OWN_NAMES}'


@pytest.mark.parametrize("target", ["auto", "fast", "balanced", "deep", "small", "large"])
def test_an_alias_stands_for_auto_a_tier_or_an_endpoint(target: str) -> None:
    assert config(("routing.aliases", {"gpt-4o": target})).routing.aliases == {"gpt-4o": target}


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("depe", '; did you mean "deep"?'),
        ("FAST", '; did you mean "fast"?'),
        ("smal", '; did you mean "small"?'),
        ("xyzzy", ""),
        ("other", " (it is an alias itself)"),
    ],
)
def test_an_alias_may_not_stand_for_anything_else(target: str, hint: str) -> None:
    assert problem(("routing.aliases", {"gpt 4": target, "other": "deep"})) == (
        f'routing.aliases."gpt 4" is "{target}"; it must be "auto", a tier or an endpoint name{hint}'
    )


@pytest.mark.parametrize("target", [5, True, [], {}, ""])
def test_the_target_of_an_alias_is_text(target: object) -> None:
    message = problem(("routing.aliases", {"gpt": target}))
    assert message.startswith("routing.aliases.gpt is ")
    assert 'it must be "auto", a tier or an endpoint name' in message


@pytest.mark.parametrize("alias", ["auto", "Fast", "DEEP"])
def test_an_alias_may_not_have_a_name_of_octoroutes_own(alias: str) -> None:
    assert problem(("routing.aliases", {alias: "deep"})) == (
        f"routing.aliases.{alias} can't be an alias; {OWN_NAMES}"
    )


def test_an_alias_may_not_hide_an_endpoint() -> None:
    assert problem(("routing.aliases", {"small": "deep"})) == (
        "routing.aliases.small can't be an alias: an endpoint has that name; choose another"
    )


def test_an_alias_has_a_name() -> None:
    assert problem(("routing.aliases", {"": "deep"})).startswith('routing.aliases."" has an empty name')


def test_a_target_is_not_judged_as_long_as_a_name_is_missing() -> None:
    tree = sample(("routing.aliases", {"gpt": "tiny"}))
    del tree["models"]["fast"][0]["name"]
    (message,) = problems_of(tree)
    assert message.startswith("models.fast[0].name is missing")


@pytest.mark.parametrize(("given", "absent"), [("tls_cert", "tls_key"), ("tls_key", "tls_cert")])
def test_half_of_tls_is_refused(given: str, absent: str) -> None:
    assert problem((f"server.{given}", "/dev/null")) == (
        f"server.{given} is given but server.{absent} is not; HTTPS needs both, plain HTTP none"
    )


def test_weights_that_add_up_to_infinity_are_refused() -> None:
    huge = [_server("one", weight=1e308), _server("two", weight=1e308)]
    assert problem(("models.fast", huge)) == (
        "models.fast: the weights of priority 1 add up to more than a number can hold; use smaller weights"
    )
    assert problem(("models.fast", [_server("one", weight=10**308), huge[1]])).startswith(
        "models.fast: the w"
    )


def test_huge_weights_in_different_groups_are_no_problem() -> None:
    made = config(("models.fast", [_server("one", weight=1e308), _server("two", weight=1e308, priority=2)]))
    assert len(made.models.fast) == 2


def test_problems_of_keys_and_between_keys_are_told_together() -> None:
    tree = sample(
        ("server.port", "3000"),
        ("server.tls_key", "/dev/null"),
        ("models.deep.0.name", "small"),
        ("routing.aliases", {"gpt": "smoll"}),
    )
    assert [message.split()[0] for message in problems_of(tree)] == [
        "server.port",
        "server.tls_key",
        "models.deep[0].name",
        "routing.aliases.gpt",
    ]
