"""What is told about a wrong file: unknown keys with the nearest known one, no foreign word, no crash."""

import datetime
import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octoroute.config import Config, build
from octoroute.config.describe import kind_of, table_name, tables
from octoroute.config.section import Section
from octoroute.errors import ConfigError
from tests.config.sample import problem, problems_of, sample

# Each table with known keys: its path in the sample, and its struct.
TABLES: list[tuple[str, type[Section]]] = [
    (".".join(map(str, path)), section)
    for path, section in tables()
    if not any(tier in path for tier in ("balanced", "deep"))
]


def _edits(word: str) -> st.SearchStrategy[str]:
    """The word with one letter lost, doubled by another, changed, or swapped with its neighbour."""
    letters = st.sampled_from(string.ascii_lowercase + "_-")
    spots = st.integers(0, len(word) - 1)
    lost = spots.map(lambda at: word[:at] + word[at + 1 :])
    more = st.builds(lambda at, letter: word[:at] + letter + word[at:], st.integers(0, len(word)), letters)
    other = st.builds(lambda at, letter: word[:at] + letter + word[at + 1 :], spots, letters)
    swapped = spots.map(lambda at: word[:at] + word[at : at + 2][::-1] + word[at + 2 :])
    return st.one_of(lost, more, other, swapped, st.just(word.upper()), st.just(word.replace("_", "-")))


@st.composite
def _misspelt(draw: st.DrawFn) -> tuple[str, str, str]:
    """A table's path, a wrong key for it, and the right one."""
    path, section = draw(st.sampled_from(TABLES))
    right = draw(st.sampled_from(sorted(section.model_fields)))
    return path, draw(_edits(right).filter(lambda wrong: wrong not in section.model_fields)), right


def _is_one_slip(wrong: str, right: str) -> bool:
    """Whether a letter lost, added, changed or swapped makes one of the other."""
    short, long = sorted((wrong, right), key=len)
    if len(short) < len(long):
        return any(short == long[:at] + long[at + 1 :] for at in range(len(long)))
    differing = [at for at in range(len(right)) if wrong[at] != right[at]]
    swapped = len(differing) == 2 and [wrong[at] for at in differing] == [right[at] for at in differing][::-1]
    return len(differing) == 1 or swapped


@given(_misspelt())
@example(("server", "post", "host"))
@settings(max_examples=500)
def test_a_key_with_one_slip_gets_the_right_one(case: tuple[str, str, str]) -> None:
    path, wrong, right = case
    unknown = [
        message
        for message in problems_of(sample((f"{path}.{wrong}" if path else wrong, 1)))
        if "is not a known key" in message
    ]
    assert len(unknown) == 1
    # A slip such as `post` may have been `host` or `port`.
    candidates = {key for key in dict(TABLES)[path].model_fields if _is_one_slip(wrong, key)} | {right}
    assert any(unknown[0].endswith(f'is not a known key; did you mean "{key}"?') for key in candidates)


def test_a_misspelt_key_is_told_once_and_not_as_missing_too() -> None:
    tree = sample()
    tree["sever"] = tree.pop("server")
    assert problems_of(tree) == ('sever is not a known key; did you mean "server"?',)


def test_a_key_in_the_wrong_table_is_sent_to_its_own() -> None:
    assert problem(("server.log_level", "info")) == (
        "server.log_level is not a known key; it belongs in [observability]"
    )
    assert problem(("port", 3000)) == "port is not a known key; it belongs in [server]"
    assert problem(("server.weight", 1)).endswith(
        "it belongs in [[models.fast]] or [[models.balanced]] or [[models.deep]]"
    )


def test_a_key_like_no_other_gets_the_list_of_those_there_are() -> None:
    assert problem(("retry.xyzzy", 1)) == (
        "retry.xyzzy is not a known key; known here: attempts, backoff_seconds, budget"
    )


def test_an_odd_key_is_quoted_and_what_stands_there_is_not_shown() -> None:
    assert problem(("server.a\nb", "secret")).startswith(
        'server."a\\nb" is not a known key; known here: host'
    )


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("server", 5, "server is 5; it must be a table, written [server]"),
        ("models", [], "models is empty; it must be a table, written [models]"),
        ("models.fast.0", "http://host/v1", 'models.fast[0] is "http://host/v1"; it must be a table'),
        ("routing.aliases", [1], "routing.aliases is an array; it must be a table"),
        ("server.port", datetime.date(2026, 1, 31), "server.port is 2026-01-31; it must be a whole number"),
        ("server.host", "x" * 300, f'server.host is "{"x" * 120}..."; it must be'),
        ("server.host", 'a"b\\', 'server.host is "a\\"b\\\\"; it must be'),
        ("server.host", "\U000e0001", 'server.host is "\\U000e0001"; it must be'),
    ],
)
def test_values_are_shown_as_in_the_file_on_one_line_and_short(path: str, value: Any, message: str) -> None:
    assert problem((path, value)).startswith(message)


def test_a_number_that_python_does_not_print_is_described() -> None:
    assert problem(("server.port", 10**5000)).startswith(
        "server.port is a number of more than 120 digits; it"
    )


def test_numbers_where_text_is_meant_are_told_to_be_quoted() -> None:
    assert problem(("models.fast.0.name", 8)).endswith("(write it in quotes)")
    assert problem(("routing.strategy", True)).endswith("(write it in quotes)")


TOML_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.sampled_from(["env:NOPE", "file:/no/such", "http://a:b@c/v1", 10**400, -(2**63), "fast"]),
        st.dates(),
        st.times(),
        st.datetimes(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["fast", "name"])),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


def _all_paths() -> list[str]:
    paths = []
    for path, section in tables():
        prefix = "".join(f"{step}." for step in path)
        paths += [prefix + name for name in section.model_fields]
        paths += [
            f"{prefix}{name}.0"
            for name in section.model_fields
            if kind_of(section.model_fields[name]).is_array
        ]
    return [*paths, "routing.aliases.gpt", "unknown"]


FOREIGN_WORDS = ("Input should", "pydantic", "Traceback", "tuple", "validation", "NoneType", "octoroute_")


@given(st.lists(st.tuples(st.sampled_from(_all_paths()), TOML_VALUES), min_size=1, max_size=3))
@settings(max_examples=400)
def test_any_value_at_any_key_gives_a_config_or_sentences_of_ours(changes: list[tuple[str, Any]]) -> None:
    # Deeper keys first: a change to a table replaces what was changed in it.
    ordered = sorted(changes, key=lambda change: -change[0].count("."))
    try:
        made = build(sample(*ordered), environ={})
    except ConfigError as error:
        for message in error.problems:
            assert not [word for word in FOREIGN_WORDS if word in message]
            assert message.isprintable()
    else:
        assert isinstance(made, Config)


@given(TOML_VALUES)
def test_any_value_for_a_secret_is_kept_out_of_messages_and_of_the_errors_chain(value: Any) -> None:
    tree = sample(("models.fast.0.api_key", value), ("server.port", -1))
    with pytest.raises(ConfigError) as caught:
        build(tree, environ={})
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    if isinstance(value, str) and len(value) > 5 and not value.startswith(("env:", "file:")):
        assert value not in str(caught.value)


def test_every_table_has_a_name_and_every_key_words_for_what_is_allowed() -> None:
    for path, section in tables():
        assert not path or table_name(path)
        for name, field in section.model_fields.items():
            assert kind_of(field).allowed, name
            assert "None" not in kind_of(field).allowed, name
