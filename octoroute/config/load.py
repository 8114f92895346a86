"""From a file's bytes to a Config, or to one ConfigError with everything that is wrong."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tomli
from pydantic import ValidationError

from octoroute.config.agreement import disagreements
from octoroute.config.problems import sentences
from octoroute.config.reading import read_text
from octoroute.config.references import References
from octoroute.config.schema import Config
from octoroute.errors import ConfigError

# What tomli says to the most frequent slips, in words that tell what to do.
_PLAIN_WORDS: Final[Mapping[str, str]] = {
    "Invalid value": "this is not a value; text needs quotes",
    "Expected newline or end of document after a statement": (
        "the line should have ended here; text needs quotes"
    ),
    "Cannot overwrite a value": "this key is given twice",
}
_TOML_KEY_TUPLE: Final = re.compile(r"\(((?:'[^']*'(?:, )?)+),?\)")


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The config in a file. Raises ConfigError with all problems at once."""
    return parse(read_text(path), source=str(path), folder=path.parent, environ=environ)


def parse(
    text: str,
    *,
    source: str = "config",
    folder: Path = Path(),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The config in a text, whose relative paths begin at `folder`. Raises ConfigError with all problems."""
    return build(_tree(text, source), source=source, folder=folder, environ=environ)


def build(
    tree: Mapping[str, Any],
    *,
    source: str = "config",
    folder: Path = Path(),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """The config in decoded TOML. Raises ConfigError with all problems."""
    references = References(folder, environ)
    problems: list[str] = []
    config = None
    try:
        config = Config.model_validate(tree, context=references)
    except ValidationError as error:
        problems += sentences(error, tree)
    problems += disagreements(tree, references)
    if config is None or problems:
        # Outside the except clause: a traceback must not carry pydantic's error, which holds the values.
        raise ConfigError(source, problems)
    return config


def _tree(text: str, source: str) -> dict[str, Any]:
    try:
        tree = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        problem = f"line {error.lineno}, column {error.colno}: {_syntax_problem(error.msg)}"
    except RecursionError:
        problem = "arrays or tables are nested too deeply"
    except ValueError:
        # The only other error of tomli's: Python's bound on the digits of an integer.
        problem = "a number in it has too many digits"
    else:
        if tree:
            return tree
        problem = "the file has no keys in it; `octoroute config` prints a template to start from"
    raise ConfigError(source, [problem])


def _syntax_problem(message: str) -> str:
    message = _TOML_KEY_TUPLE.sub(lambda match: match[1].rstrip(",").replace("', '", ".").strip("'"), message)
    return _PLAIN_WORDS.get(message, message[:1].lower() + message[1:])
