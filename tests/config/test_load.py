"""From TOML text to a config: syntax, the examples, the template."""

import re
from pathlib import Path

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from octoroute.config import AuthKey, load, parse
from octoroute.config.template import template
from octoroute.errors import ConfigError

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.toml"))


def _problem(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, source="it.toml", environ={})
    (problem,) = caught.value.problems
    assert str(caught.value) == f"it.toml: {problem}"
    return problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[server]\nport 3000", "line 2, column 6: expected '=' after a key in a key/value pair"),
        ("[server]\n\n[server]\n", "line 3, column 8: cannot declare server twice"),
        ("[a.b]\n[a.b]\n", "line 2, column 5: cannot declare a.b twice"),
        ("strategy = rule", "line 1, column 12: this is not a value; text needs quotes"),
        ("host = 0.0.0.0", "line 1, column 11: the line should have ended here; text needs quotes"),
        ("[a]\nb = 1\nb = 2\n", "line 3, column 6: this key is given twice"),
        ('a = "\x01"', "line 1, column 6: illegal character '\\x01'"),
        ("a = " + "9" * 5000, "a number in it has too many digits"),
        ("a = " + "[" * 3000, "arrays or tables are nested too deeply"),
    ],
)
def test_a_slip_in_the_syntax_is_told_with_its_place(text: str, problem: str) -> None:
    assert _problem(text) == problem


def test_an_end_that_comes_too_early_has_a_place_too() -> None:
    assert re.fullmatch(r"line 2, column \d+: .*", _problem('a = 1\nb = "open'))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "   "])
def test_a_file_without_keys_is_sent_to_the_template(text: str) -> None:
    assert _problem(text) == "the file has no keys in it; `octoroute config` prints a template to start from"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_gives_problems_on_one_line_each(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ={})
    assert all(problem.isprintable() for problem in caught.value.problems)


def test_all_problems_are_told_at_once_each_with_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('[server]\nhost = "::"\nport = "1"\n[routing]\nstrategy = "tool"', source="it.toml")
    assert [line.split(" is ")[0] for line in str(caught.value).splitlines()] == [
        "it.toml: server.port",
        "it.toml: routing.strategy",
        "it.toml: models",
    ]


def test_there_are_three_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["minimal", "primary-backup", "replicas"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.stem))
def test_an_example_of_1_0_loads_unchanged(path: Path) -> None:
    assert load(path, environ={}).server.port == 3000


def test_the_replicas_are_three_equal_servers_of_one_name() -> None:
    servers = load(ROOT / "examples" / "replicas.toml").models.fast
    assert len({server.base_url for server in servers}) == 3
    assert {(server.name, server.weight, server.priority) for server in servers} == {
        ("qwen3-8b-instruct", 1, 1)
    }


def test_primary_and_backup_differ_in_priority() -> None:
    made = load(ROOT / "examples" / "primary-backup.toml")
    assert [server.priority for server in made.models.fast] == [10, 5]
    assert [server.weight for server in made.models.balanced] == [2, 1, 1]


COMMENTED_OUT = r'^# ("?[a-z][a-z0-9_-]*"? = |\[\[)'


def test_the_template_is_a_valid_config() -> None:
    assert parse(template(), environ={}).routing.strategy == "hybrid"


def test_what_the_template_comments_out_is_the_default() -> None:
    """With every comment that is a key made a key, only the alias, the keys and the sources are new."""
    full = re.sub(COMMENTED_OUT, r"\1", template(), flags=re.MULTILINE)
    plain, made = parse(template()), parse(full, environ={"FAST_SERVER_KEY": "sk-1", "TEAM_A_KEY": "sk-2"})
    assert dict(made.routing.aliases) == {"gpt-4o": "deep"}
    assert made.models.fast[0].api_key.get_secret_value() == "sk-1"
    assert made.auth.keys == (AuthKey.model_validate({"name": "team-a", "key": "sk-2"}),)
    assert [where for *where, _ in made.discovery.sources()] == [["dns", "fast"], ["kubernetes", "fast"]]
    dumped, expected = made.model_dump(), plain.model_dump()
    for tree in (dumped, expected):
        del tree["auth"]["keys"]
        del tree["models"]["fast"][0]["api_key"], tree["routing"]["aliases"], tree["discovery"]
    assert dumped == expected


def test_the_template_explains_every_key() -> None:
    full = tomli.loads(re.sub(COMMENTED_OUT, r"\1", template(), flags=re.MULTILINE))
    dumped = parse(template()).model_dump()
    for section in set(dumped) - {"models"}:
        assert set(full[section]) == set(dumped[section])
    assert set(full["models"]["fast"][0]) == set(dumped["models"]["fast"][0])
    assert set(full["auth"]["keys"][0]) == set(AuthKey.model_fields) - {"key_sha256"}


def test_every_line_of_the_template_fits_a_wide_terminal() -> None:
    assert max(map(len, template().splitlines())) <= 118
