"""A small valid config as decoded TOML, and what is wrong with a changed one."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from octoroute.config import Config, build
from octoroute.errors import ConfigError

SAMPLE: dict[str, Any] = {
    "server": {"host": "127.0.0.1", "port": 3000},
    "models": {
        "fast": [{"name": "small", "base_url": "http://gpu-1:8080/v1", "max_tokens": 4096}],
        "balanced": [{"name": "middle", "base_url": "http://gpu-2:8080/v1", "max_tokens": 4096}],
        "deep": [{"name": "large", "base_url": "http://gpu-3:8080/v1", "max_tokens": 4096}],
    },
    "routing": {"strategy": "rule"},
}


def sample(*changes: tuple[str, Any]) -> dict[str, Any]:
    """The sample with changes such as `("models.fast.0.name", "other")`; what is missing is made."""
    tree = copy.deepcopy(SAMPLE)
    for path, value in changes:
        *steps, last = path.split(".")
        table: Any = tree
        for step, after in zip(steps, path.split(".")[1:], strict=True):
            if isinstance(table, list):
                _lengthen(table, int(step))
                table = table[int(step)]
            else:
                table = table.setdefault(step, [] if after.isdigit() else {})
        if isinstance(table, list):
            _lengthen(table, int(last))
            table[int(last)] = value
        else:
            table[last] = value
    return tree


def _lengthen(array: list[Any], position: int) -> None:
    array.extend({} for _ in range(len(array), position + 1))


def without(path: str) -> dict[str, Any]:
    """The sample less one key."""
    tree = sample()
    *steps, last = path.split(".")
    table: Any = tree
    for step in steps:
        table = table[int(step)] if isinstance(table, list) else table[step]
    del table[last]
    return tree


def config(*changes: tuple[str, Any], environ: Mapping[str, str] | None = None) -> Config:
    return build(sample(*changes), environ=environ or {})


def problems_of(
    tree: dict[str, Any], environ: Mapping[str, str] | None = None, folder: Path = Path()
) -> tuple[str, ...]:
    """What is wrong with a tree; nothing if it is valid."""
    try:
        build(tree, folder=folder, environ=environ or {})
    except ConfigError as error:
        return error.problems
    return ()


def problem(*changes: tuple[str, Any], environ: Mapping[str, str] | None = None) -> str:
    """The one problem that the changes make."""
    (only,) = problems_of(sample(*changes), environ)
    return only
