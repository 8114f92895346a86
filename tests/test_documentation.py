"""The pages agree with the code: those made from it, the lists they give, the configs they show.

The requests they show are sent by tests/end_to_end/test_documented_requests.py.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from octoroute import errors
from octoroute.config import parse
from octoroute.demo import FAULTS
from octoroute.demo.judging import Verdict
from octoroute.routing.facts import KEYWORDS
from octoroute.routing.rules import ANY_LENGTH, ANY_TASK, RULES
from octoroute.server.app import ROUTES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_page_about_the_config_is_what_the_schema_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_page_about_reliability_has_every_fault_and_what_it_is() -> None:
    rows = re.findall(r"^\| `([a-z0-9.-]+)` \| (.+?) \| .* \|$", RELIABILITY, re.MULTILINE)
    assert dict(rows) == {name: fault.about for name, fault in FAULTS.items()}, "run: make reliability"


def test_the_page_about_reliability_has_no_bad_case() -> None:
    assert [verdict.value for verdict in Verdict if verdict.is_bad and verdict.value in RELIABILITY] == []


def toml_blocks(page: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize(
    "text", [pytest.param(text, id=page.name) for page in PAGES for text in toml_blocks(page)]
)
def test_a_config_that_a_page_shows_is_valid(text: str) -> None:
    assert (
        parse(text, environ={"DEEP_SERVER_KEY": "sk-1", "OPERATOR_KEY": "sk-2"}).models.deep[0].name
        == "gpt-oss-120b"
    )


def test_the_page_about_the_api_lists_every_route_with_its_methods() -> None:
    listed = {
        path: methods
        for paths, methods in re.findall(r"^\| (`/[^|]*) \| ([A-Z, ]+) \|", API, re.MULTILINE)
        for path in re.findall(r"`([^`]+)`", paths)
    }
    assert listed == {path: ", ".join(methods) for path, methods in ROUTES.items()}


def test_the_page_about_the_api_lists_every_error() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (?:`(\w+)`|null) \|", API, re.MULTILINE)
    listed = {(int(status), type_, code) for status, type_, code in rows}
    own = {
        (kind.status, kind.type, kind.code or "")
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.GatewayError)
        and kind is not errors.GatewayError
    }
    assert own <= listed
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "octoroute").rglob("*.py"))
    given = set(re.findall(r'[( ]code(?:: str \| None)? ?= ?"(\w+)"', sources))
    assert given == {code for _, _, code in listed if code}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_the_page_about_routing_lists_the_rules() -> None:
    page = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| (\w+) \|$", page, re.MULTILINE)
    assert [(name, tier) for name, *_, tier in rows] == [(rule.name, rule.tier) for rule in RULES]
    for (_, tasks, importances, tokens, _), rule in zip(rows, RULES, strict=True):
        assert (tokens == "any") == (rule.tokens == ANY_LENGTH)
        numbers = [int(number) for number in re.findall(r"\d+", tokens)]
        assert all(number in rule.tokens for number in numbers)
        edges = {rule.tokens.start, rule.tokens.stop - 1} - {0, ANY_LENGTH.stop - 1}
        assert set(numbers) == edges
        assert importances == "any" or set(importances.split(", ")) == rule.importances
        named = {"casual_chat"} ^ ANY_TASK if tasks == "all but casual_chat" else {tasks}
        assert tasks == "any" or named == rule.task_types


def test_the_keywords_that_the_page_about_routing_names_are_those_looked_for() -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "routing.md").read_text(encoding="utf-8"))
    for task_type, keywords in KEYWORDS:
        written = ", ".join(f'"{word}"' if word.endswith(" ") else word for word in keywords)
        assert (
            f"`{task_type}` ({written.replace('```', chr(92) + '`' + chr(92) + '`' + chr(92) + '`')}" in page
        )
