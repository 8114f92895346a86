"""Every key: its default, both ends of its range, and what is just outside or of another type."""

import math
from typing import Any

import pytest
from pydantic import ValidationError

from octoroute.config import TIERS, Config, build
from tests.config.sample import config, problem, problems_of, sample, without

RANGES: list[tuple[str, Any, Any, str]] = [
    ("server.port", 0, 65535, "a whole number from 0 to 65535"),
    ("server.request_timeout_seconds", 1, 3600, "a number from 1 to 3600"),
    ("server.workers", 0, 256, "a whole number from 0 to 256"),
    ("server.max_body_bytes", 1024, 4294967296, "a whole number from 1024 to 4294967296"),
    ("server.max_messages", 1, 1000000, "a whole number from 1 to 1000000"),
    ("server.max_content_chars", 1, 4294967296, "a whole number from 1 to 4294967296"),
    ("server.keepalive_seconds", 0.0, 3600.0, "a number from 0 to 3600"),
    ("server.drain_seconds", 0.0, 86400.0, "a number from 0 to 86400"),
    ("models.fast.0.max_tokens", 1, 4294967295, "a whole number from 1 to 4294967295"),
    ("models.fast.0.temperature", 0.0, 2.0, "a number from 0 to 2"),
    ("models.fast.0.priority", 0, 255, "a whole number from 0 to 255"),
    ("models.fast.0.max_in_flight", 0, 1000000, "a whole number from 0 to 1000000"),
    ("auth.keys.0.requests_per_minute", 0, 1000000000, "a whole number from 0 to 1000000000"),
    ("auth.keys.0.tokens_per_minute", 0, 1000000000000, "a whole number from 0 to 1000000000000"),
    ("auth.keys.0.max_in_flight", 0, 1000000, "a whole number from 0 to 1000000"),
    ("routing.decision_cache_entries", 0, 10000000, "a whole number from 0 to 10000000"),
    ("timeouts.fast", 1, 3600, "a number from 1 to 3600"),
    ("timeouts.balanced", 1, 3600, "a number from 1 to 3600"),
    ("timeouts.deep", 1, 3600, "a number from 1 to 3600"),
    ("timeouts.connect_seconds", 0.01, 300.0, "a number from 0.01 to 300"),
    ("timeouts.stream_idle_seconds", 0.1, 86400.0, "a number from 0.1 to 86400"),
    ("retry.attempts", 1, 100, "a whole number from 1 to 100"),
    ("retry.backoff_seconds", 0.0, 30.0, "a number from 0 to 30"),
    ("retry.budget", 0.0, 100.0, "a number from 0 to 100"),
    ("recovery.hedge_budget", 0.0, 1.0, "a number from 0 to 1"),
    ("recovery.resume_buffer_bytes", 0, 1_073_741_824, "a whole number from 0 to 1073741824"),
    ("recovery.stall_seconds", 0.0, 86_400.0, "a number from 0 to 86400"),
    ("health.interval_seconds", 0.1, 3600.0, "a number from 0.1 to 3600"),
    ("health.unhealthy_interval_seconds", 0.1, 3600.0, "a number from 0.1 to 3600"),
    ("health.timeout_seconds", 0.1, 300.0, "a number from 0.1 to 300"),
    ("health.failures", 1, 1000, "a whole number from 1 to 1000"),
    ("health.successes", 1, 1000, "a whole number from 1 to 1000"),
    ("health.slow_start_seconds", 0.0, 3600.0, "a number from 0 to 3600"),
    ("health.load_interval_seconds", 0.0, 3600.0, "0 (off) or a number from 1 to 3600"),
    ("queue.max_waiting", 0, 100000, "a whole number from 0 to 100000"),
    ("queue.max_wait_seconds", 0.1, 3600.0, "a number from 0.1 to 3600"),
    ("observability.recent_requests", 0, 10000, "a whole number from 0 to 10000"),
    ("queue.max_waiting_bytes", 0, 1099511627776, "a whole number from 0 to 1099511627776"),
]

KEY = {"name": "team-a", "key": "sk-1"}

CHOICES = [
    ("models.fast.0.kind", ["auto", "llama_cpp", "vllm", "sglang", "ollama", "openai"]),
    ("routing.strategy", ["rule", "llm", "hybrid"]),
    ("routing.default_importance", ["low", "normal", "high"]),
    ("routing.router_tier", ["fast", "balanced", "deep"]),
    ("tiers.fast.policy", ["weighted", "least_loaded", "prefix_affinity", "session_affinity"]),
    ("observability.log_level", ["trace", "debug", "info", "warn", "error"]),
    ("observability.log_format", ["text", "json"]),
]

SWITCHES = [
    "models.fast.0.tls_verify",
    "auth.keys.0.admin",
    "server.why_headers",
    "observability.request_log",
    "observability.stream_usage",
    "observability.dashboard",
    "recovery.cancel_plain",
    "recovery.resume",
]


def _with_key(path: str) -> list[tuple[str, Any]]:
    """What a key in the table of a client's key needs beside it."""
    return [("auth.keys", [dict(KEY)])] if path.startswith("auth.keys") else []


def _at(made: Config, path: str) -> Any:
    value: Any = made
    for step in path.split("."):
        value = value[int(step)] if step.isdigit() else getattr(value, step)
    return value


def _written(path: str) -> str:
    return path.replace(".0.", "[0].")


@pytest.mark.parametrize(("path", "low", "high", "allowed"), RANGES, ids=lambda value: str(value))
def test_both_ends_of_a_range_are_allowed_and_what_is_outside_is_refused(
    path: str, low: Any, high: Any, allowed: str
) -> None:
    for value in (low, high):
        assert _at(config(*_with_key(path), (path, value)), path) == value
    step = 1 if isinstance(low, int) else 0.001
    for value in (low - step, high + step, -1):
        message = problem(*_with_key(path), (path, value))
        assert message.startswith(_written(path))
        assert f"is {value}; it must be {allowed}" in message


@pytest.mark.parametrize(("path", "allowed"), [(row[0], row[3]) for row in RANGES])
def test_only_a_finite_number_is_a_number(path: str, allowed: str) -> None:
    for value in (True, "5", math.nan, math.inf, -math.inf, [5], {"a": 5}):
        message = problem(*_with_key(path), (path, value))
        assert message.startswith(_written(path))
        assert f"it must be {allowed}" in message
        assert ("(write it without quotes)" in message) == (value == "5")


@pytest.mark.parametrize("path", [row[0] for row in RANGES if "whole" in row[3]])
def test_a_whole_number_has_no_decimal_point(path: str) -> None:
    assert "it must be a whole number" in problem(*_with_key(path), (path, 2000.0))


@pytest.mark.parametrize("path", ["server.request_timeout_seconds", "timeouts.fast", "models.fast.0.weight"])
def test_an_integer_will_do_where_a_number_is_meant_and_a_fraction_too(path: str) -> None:
    assert _at(config((path, 2)), path) == 2
    assert _at(config((path, 2.5)), path) == 2.5


@pytest.mark.parametrize("path", ["models.fast.0.weight", "routing.router_timeouts.deep"])
@pytest.mark.parametrize("value", [0, 0.0, -1, math.nan, math.inf, True, "1"], ids=repr)
def test_weights_and_router_timeouts_are_finite_and_above_zero(path: str, value: Any) -> None:
    timeouts = ("routing.router_timeouts", {"fast": 1, "balanced": 1, "deep": 1})
    assert "it must be a finite number above 0" in problem(timeouts, (path, value))


@pytest.mark.parametrize("value", [5e-324, 1, 1e300], ids=repr)
def test_any_weight_above_zero_is_allowed(value: float) -> None:
    assert config(("models.fast.0.weight", value)).models.fast[0].weight == value


@pytest.mark.parametrize(("path", "words"), CHOICES, ids=lambda value: str(value))
def test_a_choice_takes_its_words_and_names_them_if_given_another(path: str, words: list[str]) -> None:
    for word in words:
        assert _at(config((path, word)), path) == word
    allowed = ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'
    for value, shown in (("", '""'), ("xyzzy", '"xyzzy"'), (5, "5"), (True, "true"), ([], "empty")):
        assert f"{_written(path)} " in problem(*_with_key(path), (path, value))
        assert f"is {shown}; it must be {allowed}" in problem(*_with_key(path), (path, value))


@pytest.mark.parametrize(("path", "words"), CHOICES, ids=lambda value: str(value))
def test_a_choice_in_another_case_is_refused_with_the_right_word(path: str, words: list[str]) -> None:
    for word in words:
        assert problem((path, word.upper())).endswith(f'; did you mean "{word}"?')


@pytest.mark.parametrize(
    ("wrong", "right"), [("FAST", "fast"), ("balance", "balanced"), ("fasst", "fast"), ("Deep", "deep")]
)
def test_a_router_tier_that_is_nearly_right_gets_the_right_word(wrong: str, right: str) -> None:
    assert problem(("routing.router_tier", wrong)) == (
        f'routing.router_tier is "{wrong}"; it must be "fast", "balanced" or "deep"; did you mean "{right}"?'
    )


def test_the_strategy_tool_is_refused_with_the_three_that_there_are() -> None:
    message = problem(("routing.strategy", "tool"))
    assert message == 'routing.strategy is "tool"; it must be "rule", "llm" or "hybrid"'


@pytest.mark.parametrize("path", SWITCHES)
def test_a_switch_is_true_or_false_and_nothing_like_it(path: str) -> None:
    for value in (True, False):
        assert _at(config(*_with_key(path), (path, value)), path) is value
    for other in (1, 0, "true", "", 1.0):
        assert "it must be true or false" in problem(*_with_key(path), (path, other))


@pytest.mark.parametrize(
    "path",
    [
        "server",
        "server.host",
        "server.port",
        "models",
        "models.fast",
        "models.balanced",
        "models.deep",
        "models.fast.0.name",
        "models.fast.0.base_url",
        "models.fast.0.max_tokens",
        "routing",
        "routing.strategy",
    ],
)
def test_a_required_key_is_missed(path: str) -> None:
    (message,) = problems_of(without(path))
    assert message.startswith(_written(path))
    assert " is missing; it must be " in message


def test_an_empty_tier_is_refused() -> None:
    assert problem(("models.deep", [])) == (
        "models.deep is empty; it must be an array of at least one table, each written [[models.deep]], "
        "unless [discovery] has a source for the tier"
    )


def test_a_tier_with_single_brackets_is_told_to_use_two() -> None:
    assert problem(("models.deep", {"name": "large"})).endswith("each written [[models.deep]]")


def test_router_timeouts_are_all_given_or_none() -> None:
    assert config().routing.router_timeouts.model_dump() == {"fast": 10, "balanced": 10, "deep": 10}
    messages = problems_of(sample(("routing.router_timeouts", {"balanced": 20})))
    assert [message.split(";")[0] for message in messages] == [
        "routing.router_timeouts.fast is missing",
        "routing.router_timeouts.deep is missing",
    ]


def test_the_defaults_are_those_of_the_documents() -> None:
    made = config()
    assert made.server.model_dump(exclude={"host", "port"}) == {
        "request_timeout_seconds": 30,
        "workers": 1,
        "max_body_bytes": 33554432,
        "max_messages": 10000,
        "max_content_chars": 20000000,
        "keepalive_seconds": 75,
        "drain_seconds": 600,
        "why_headers": True,
        "tls_cert": "",
        "tls_key": "",
    }
    server = made.models.fast[0]
    assert (server.temperature, server.weight, server.priority) == (0.7, 1.0, 1)
    assert (server.kind, server.max_in_flight, server.tls_verify) == ("auto", 0, True)
    assert server.api_key.get_secret_value() == ""
    routing = made.routing
    assert (routing.default_importance, routing.router_tier) == ("normal", "balanced")
    assert (routing.decision_cache_entries, dict(routing.aliases)) == (4096, {})
    assert made.timeouts.model_dump() == {
        "fast": None,
        "balanced": None,
        "deep": None,
        "connect_seconds": 2,
        "stream_idle_seconds": 60,
    }
    assert made.retry.model_dump() == {"attempts": 3, "backoff_seconds": 0.1, "budget": 0.2}
    assert made.health.model_dump() == {
        "interval_seconds": 30,
        "unhealthy_interval_seconds": 1,
        "timeout_seconds": 5,
        "path": "/models",
        "failures": 3,
        "successes": 1,
        "slow_start_seconds": 0,
        "load_interval_seconds": 2,
    }
    assert made.auth.model_dump() == {"public": ("/health",), "keys": ()}
    key = config(("auth.keys", [KEY])).auth.keys[0]
    assert (key.requests_per_minute, key.tokens_per_minute, key.max_in_flight) == (0, 0, 0)
    assert (key.tiers, key.admin) == (TIERS, False)
    assert made.queue.model_dump() == {
        "max_waiting": 1000,
        "max_wait_seconds": 30,
        "max_waiting_bytes": 268435456,
    }
    assert made.shared.redis_url.get_secret_value() == ""
    assert made.observability.model_dump() == {
        "log_level": "info",
        "log_format": "text",
        "request_log": True,
        "stream_usage": True,
        "recent_requests": 1000,
        "dashboard": True,
    }


def test_what_a_server_is_asked_for_is_its_name_unless_another_is_given() -> None:
    assert config().models.fast[0].model == "small"
    assert config(("models.fast.0.model", "")).models.fast[0].model == "small"
    assert config(("models.fast.0.model", "org/small")).models.fast[0].model == "org/small"


def test_the_timeout_of_a_tier_is_its_own_or_the_servers() -> None:
    made = config(("server.request_timeout_seconds", 40), ("timeouts.deep", 120.5))
    assert [made.timeout_s(tier) for tier in TIERS] == [40, 40, 120.5]


def test_the_servers_of_a_tier_keep_the_order_of_the_file() -> None:
    replica = {"name": "small", "base_url": "http://gpu-9:8080/v1", "max_tokens": 1}
    made = config(("models.fast", [replica, sample()["models"]["fast"][0], replica]))
    assert [server.base_url for server in made.models.of("fast")] == [
        "http://gpu-9:8080/v1",
        "http://gpu-1:8080/v1",
        "http://gpu-9:8080/v1",
    ]


def test_a_config_is_frozen() -> None:
    made = config()
    with pytest.raises(ValidationError):
        made.server.port = 1


def test_a_tier_has_no_fallback_unless_the_file_names_some() -> None:
    assert config().tiers.fast.fallback == ()
    made = config(("tiers.fast.fallback", ["deep", "env:OTHER"]), environ={"OTHER": "balanced"})
    assert made.tiers.of("fast").fallback == ("deep", "balanced")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("balanced", 'fallback is "balanced"; it must be an array of "fast", "balanced" or "deep"'),
        (["balance"], '[0] is "balance"; it must be "fast", "balanced" or "deep"; did you mean "balanced"?'),
        ([1], '[0] is 1; it must be "fast", "balanced" or "deep" (write it in quotes)'),
        (["fast"], '[0] is "fast", which is the tier itself; name other tiers, each once'),
        (["deep", "deep"], '[1] is "deep", which is there already; name other tiers, each once'),
    ],
)
def test_a_fallback_names_other_tiers(value: Any, says: str) -> None:
    told = problem(("tiers.fast.fallback", value))
    assert told.startswith("tiers.fast.fallback")
    assert told.endswith(says)


def test_a_key_to_a_server_is_not_in_the_text_of_the_config() -> None:
    made = config(("models.fast.0.api_key", "sk-hidden"))
    assert made.models.fast[0].api_key.get_secret_value() == "sk-hidden"
    assert "sk-hidden" not in repr(made) + str(made)


def test_ranges_and_choices_cover_every_key_with_a_rule() -> None:
    """A key that is added to the schema and to no list here is noticed."""
    listed = {row[0] for row in RANGES} | {row[0] for row in CHOICES} | set(SWITCHES)
    elsewhere = {"server.host", "server.tls_cert", "server.tls_key", "health.path", "routing.aliases"}
    elsewhere |= {"tiers.fast.fallback", "recovery.hedge"}
    elsewhere |= {f"models.fast.0.{key}" for key in ("name", "model", "base_url", "weight", "api_key")}
    elsewhere |= {"models.fast.0.tls_server_name", "discovery.dns", "discovery.kubernetes"}
    elsewhere |= {"auth.public", "auth.keys", "shared.redis_url"}
    elsewhere |= {f"auth.keys.0.{key}" for key in ("name", "key", "key_sha256", "tiers")}
    elsewhere |= {f"routing.router_timeouts.{tier}" for tier in TIERS}
    made = build(sample(("auth.keys", [KEY]))).model_dump()
    keys = {
        f"{section}.{key}"
        for section in made
        if section not in ("models", "routing", "tiers")
        for key in made[section]
    }
    keys |= {f"models.fast.0.{key}" for key in made["models"]["fast"][0]}
    keys |= {f"tiers.fast.{key}" for key in made["tiers"]["fast"]}
    keys |= {f"auth.keys.0.{key}" for key in made["auth"]["keys"][0]}
    keys |= {f"routing.{key}" for key in made["routing"] if key != "router_timeouts"}
    keys |= {f"routing.router_timeouts.{tier}" for tier in made["routing"]["router_timeouts"]}
    assert listed | elsewhere == keys
