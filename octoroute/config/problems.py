"""Turns what validation found into sentences: the key's path, its value, what is allowed, and a hint.

Only words of ours reach a person. Secret values, and what `env:` and `file:` stand for, are not shown.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from octoroute.config.describe import Path, kind_at, kind_of, table_name, tables
from octoroute.config.references import is_reference
from octoroute.config.schema import Config
from octoroute.config.section import Section
from octoroute.config.sources import Source
from octoroute.config.values import HINT, PEM_BEGIN, UNRESOLVED
from octoroute.config.wording import (
    MASK,
    did_you_mean,
    key_path,
    nearest,
    quoted,
    url_without_secrets,
    value_shown,
)

Tree = Mapping[str, Any]


def sentences(error: ValidationError, tree: Tree) -> list[str]:
    """One sentence per problem, in the order of the schema."""
    details = error.errors(include_url=False)
    # A key that is missing because it was misspelt is one problem, not two.
    misspelt = {(*_path(entry)[:-1], _suggestion(_path(entry))) for entry in details if _is_unknown(entry)}
    return [
        _sentence(entry, tree)
        for entry in details
        if not (entry["type"] == "missing" and _path(entry) in misspelt)
        # pydantic counts only the good entries of an array; the bad ones have their own sentences.
        and not (entry["type"] == "too_short" and entry["input"])
    ]


def _sentence(entry: ErrorDetails, tree: Tree) -> str:
    path = _path(entry)
    where = place(path, tree)
    if _is_unknown(entry):
        return f"{where} is not a known key{_unknown_key_hint(path)}"
    if entry["type"] == "missing":
        return f"{where} is missing; it must be {_needed(path)}"
    if entry["type"] == UNRESOLVED:
        return f"{where} is {shown(path, tree)}, but {entry['ctx']['trouble']}"
    value = value_at(path, tree)
    its = "its value" if isinstance(value, str) and is_reference(value) else "it"
    return f"{where} is {shown(path, tree)}; {its} must be {_needed(path)}{_hint(entry, value)}"


def _path(entry: ErrorDetails) -> Path:
    return entry["loc"]


def _is_unknown(entry: ErrorDetails) -> bool:
    return entry["type"] == "extra_forbidden"


def place(path: Path, tree: Tree) -> str:
    """The key's path, with the endpoint's name if it has one: positions are hard to count in a long file."""
    written = key_path(path)
    if len(path) > 3 and path[0] == "models" and path[3] != "name":
        name = value_at((*path[:3], "name"), tree)
        if isinstance(name, str) and name and not is_reference(name):
            return f"{written} (endpoint {quoted(name)})"
    return written


def shown(path: Path, tree: Tree) -> str:
    """The value of a key as the file has it, without secrets."""
    value = value_at(path, tree)
    if isinstance(value, str) and is_reference(value):
        return quoted(value)
    if path[-1] in ("base_url", "redis_url") and isinstance(value, str):
        return quoted(url_without_secrets(value))
    if kind_at(path).type is SecretStr and not isinstance(value, dict | list):
        return MASK
    if isinstance(value, str) and PEM_BEGIN in value:
        return MASK
    return value_shown(value)


def value_at(path: Path, tree: Any) -> Any:
    """What the file has at a path; None if it has nothing."""
    for step in path:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def _needed(path: Path) -> str:
    kind = kind_at(path)
    if kind.is_array and kind.item.section is not None:
        return f"an array of at least one table, each written [[{table_name(path)}]]"
    if kind.section is not None:
        return f"a table, written {_brackets(path)}"
    return kind.allowed


def _brackets(path: Path) -> str:
    return f"[[{table_name(path)}]]" if isinstance(path[-1], int) else f"[{table_name(path)}]"


def _hint(entry: ErrorDetails, value: Any) -> str:
    if entry["type"] == HINT:
        return f" ({entry['ctx']['hint']})" if entry["ctx"]["hint"] else ""
    kind = kind_at(_path(entry))
    if kind.choices and isinstance(entry["input"], str):
        return did_you_mean(entry["input"], kind.choices)
    if kind.type in (int, float, bool) and isinstance(value, str):
        return (
            " (env: and file: stand for text only)" if is_reference(value) else " (write it without quotes)"
        )
    if (kind.choices or kind.type in (str, SecretStr)) and isinstance(value, int | float):
        return " (write it in quotes)"
    return ""


def _suggestion(path: Path, cutoff: float = 0.6) -> str | None:
    section = kind_at(path[:-1]).section
    return nearest(str(path[-1]), section.model_fields, cutoff) if section else None


def _unknown_key_hint(path: Path) -> str:
    """A key of this table that is very near; or the tables that know the key; or one that is fairly near."""
    near = _suggestion(path, cutoff=0.8)
    if near is None:
        homes = [
            _brackets(home)
            for home, section in tables()
            # A source has all keys of a server: a server is the likelier one.
            if home and not issubclass(section, Source) and _has_leaf(section, path[-1])
        ]
        if homes:
            return f"; it belongs in {' or '.join(homes)}"
        near = _suggestion(path)
    if near is not None:
        return f"; did you mean {quoted(near)}?"
    section = kind_at(path[:-1]).section or Config
    return f"; known here: {', '.join(section.model_fields)}"


def _has_leaf(section: type[Section], key: str | int) -> bool:
    field = section.model_fields.get(str(key))
    return field is not None and kind_of(field).section is None
