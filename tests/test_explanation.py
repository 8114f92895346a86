"""The explanation of a request by a config, and by the command line."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from octoroute._state import FleetState
from octoroute.cli import main
from octoroute.config import parse
from octoroute.explanation import explain_request, route_of
from octoroute.snapshot import Snapshot, compile_snapshot
from tests.routing.making import chat, view

ROOT = Path(__file__).parent.parent
CONFIG = """
[server]
host = "127.0.0.1"
port = 0
[routing]
strategy = "hybrid"
[tiers.fast]
fallback = ["balanced"]
[[models.fast]]
name = "small"
base_url = "http://gpu-1:8080/v1"
max_tokens = 64
weight = 3.0
[[models.fast]]
name = "small"
base_url = "http://gpu-2:8080/v1"
max_tokens = 64
[[models.fast]]
name = "backup"
base_url = "http://gpu-3:8080/v1"
max_tokens = 64
priority = 0
[[models.balanced]]
name = "medium"
base_url = "http://gpu-4:8080/v1"
max_tokens = 64
[[models.deep]]
name = "large"
base_url = "http://gpu-5:8080/v1"
max_tokens = 64
"""
Output = pytest.CaptureFixture[str]


@pytest.fixture
def snapshot() -> Snapshot:
    return compile_snapshot(parse(CONFIG), FleetState())


def odds(explained: dict[str, Any]) -> list[tuple[str, int, bool, float]]:
    return [
        (one["name"], one["replica"], one["healthy"], one["probability"]) for one in explained["candidates"]
    ]


def test_the_candidates_of_a_tier_come_with_their_odds(snapshot: Snapshot) -> None:
    explained = explain_request(view(chat("hello")), snapshot)
    assert (explained["tier"], explained["fallback"]) == ("fast", ["balanced"])
    assert odds(explained) == [
        ("small", 1, True, 0.75),
        ("small", 2, True, 0.25),
        ("backup", 1, True, 0.0),
    ]
    assert "gpu-" not in str(explained)


def test_an_unhealthy_or_draining_candidate_has_no_chance(snapshot: Snapshot) -> None:
    first, second, _ = snapshot.endpoints[:3]
    first.state.count_failure(first.slot, 1)
    assert [one[3] for one in odds(explain_request(view(chat("hello")), snapshot))] == [0.0, 1.0, 0.0]
    second.drain()
    assert [one[3] for one in odds(explain_request(view(chat("hello")), snapshot))] == [0.0, 0.0, 1.0]


def test_a_named_endpoint_has_its_replicas_as_candidates_and_no_stand_in(snapshot: Snapshot) -> None:
    explained = explain_request(view(chat("hello"), "small"), snapshot)
    assert [one[:2] for one in odds(explained)] == [("small", 1), ("small", 2)]
    assert explained["fallback"] == []


def test_a_question_has_those_who_may_be_asked_as_candidates(snapshot: Snapshot) -> None:
    explained = explain_request(view(chat("Why?")), snapshot)
    assert (explained["tier"], explained["question"]["asked_of"]) == (None, "balanced")
    assert odds(explained) == [("medium", 1, True, 1.0)]


def test_a_body_is_checked_as_on_the_route_that_it_is_for() -> None:
    assert route_of({"messages": [], "prompt": ""}) == "/v1/chat/completions"
    assert route_of({"prompt": ""}) == "/v1/completions"
    assert route_of({"input": ""}) == "/v1/responses"


def explained_by_cli(folder: Path, body: Any, *arguments: str) -> int:
    (folder / "config.toml").write_text(CONFIG)
    (folder / "request.json").write_bytes(body if isinstance(body, bytes) else orjson.dumps(body))
    return main(
        ["explain", str(folder / "request.json"), "--config", str(folder / "config.toml"), *arguments]
    )


def test_the_command_prints_the_explanation(tmp_path: Path, capsys: Output) -> None:
    assert explained_by_cli(tmp_path, chat("hello")) == 0
    explained = json.loads(capsys.readouterr().out)
    assert (explained["tier"], explained["reason"]) == ("fast", "rule:casual_chat")
    assert odds(explained)[0] == ("small", 1, True, 0.75)


def test_the_command_takes_what_headers_would_say(tmp_path: Path, capsys: Output) -> None:
    assert explained_by_cli(tmp_path, chat("why"), "--importance", "high", "--task-type", "code") == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["reason"] == "rule:high_importance"
    assert explained["facts"] == {"tokens": 0, "importance": "high", "task_type": "code"}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"{", "the body is not valid JSON"),
        (b"[]", "the body must be a JSON object, not an array"),
        (chat("hello") | {"model": "nothing"}, "nothing"),
        (chat("hello") | {"temperature": 3}, "temperature is 3; allowed: 0 to 2"),
        ({"model": "auto", "messages": []}, "messages must not be empty"),
    ],
)
def test_a_request_that_would_be_refused_is_refused(
    tmp_path: Path, capsys: Output, body: Any, told: str
) -> None:
    assert explained_by_cli(tmp_path, body) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert told in output.err
    assert "Traceback" not in output.err


def test_a_request_file_that_is_not_there_is_named(tmp_path: Path, capsys: Output) -> None:
    assert main(["explain", str(tmp_path / "none.json"), "--config", "examples/minimal.toml"]) == 1
    assert "none.json" in capsys.readouterr().err
