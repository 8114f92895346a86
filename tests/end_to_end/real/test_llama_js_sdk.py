"""OpenAI's SDK for JavaScript against real llama.cpp servers through the gateway."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.install_js import MISSING, sdk_folder

PROGRAM = Path(__file__).with_name("openai_sdk.mjs")


@pytest.fixture(scope="module")
def seen(gateway: Gateway) -> Any:
    """What the program prints."""
    folder = sdk_folder()
    if folder is None:
        pytest.skip(MISSING)
    command = ["node", str(PROGRAM), f"{gateway.url}/v1"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_models_are_listed_and_looked_up(seen: Any) -> None:
    assert seen["models"][:4] == ["auto", "fast", "balanced", "deep"]
    assert seen["model"] == "octoroute"


def test_an_answer_is_the_servers_with_its_usage(seen: Any) -> None:
    plain = seen["plain"]
    assert plain["model"] == "smol-fast"
    assert plain["content"]
    assert plain["usage"]["completion_tokens"] <= 12
    assert (seen["why"], bool(seen["id"])) == ("rule:casual_chat", True)


def test_a_stream_has_content_and_one_finish_and_a_usage_only_for_who_asks(seen: Any) -> None:
    for name in ("stream", "counted"):
        assert seen[name]["content"]
        assert seen[name]["finished"] == 1
    assert (seen["stream"]["withoutChoice"], seen["stream"]["usage"]) == (0, None)
    assert seen["counted"]["withoutChoice"] == 1
    assert seen["counted"]["usage"]["completion_tokens"] <= 12


def test_a_stream_can_be_stopped(seen: Any) -> None:
    assert seen["stopped"]


def test_errors_are_the_sdks_own(seen: Any) -> None:
    refused = {"class": "BadRequestError", "status": 400}
    for name in ("unknownModel", "badValue", "tooLong"):
        assert seen[name].items() >= refused.items()
    assert (seen["unknownModel"]["param"], seen["badValue"]["param"]) == ("model", "temperature")
    assert seen["badValue"]["type"] == "invalid_request_error"
    assert seen["tooLong"]["type"] == "exceed_context_size_error"
