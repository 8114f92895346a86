"""Sets up the log: where it goes, how a line looks, and who may speak how loudly.

Levels come from OCTOROUTE_LOG (or RUST_LOG, its name in 1.0), else from the config. A filter is a level for
all, levels for single modules, or both: `info,octoroute.routing=debug`. This module writes nothing by itself.
"""

import difflib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from octoroute.config import Observability
from octoroute.errors import ConfigError

TRACE: Final = 5
# Above every level there is, so that nothing passes.
OFF: Final = logging.CRITICAL + 10

LEVELS: Final[Mapping[str, int]] = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": OFF,
}
_SYNONYMS: Final[Mapping[str, str]] = {"warning": "warn"}
_NAMES: Final[Mapping[int, str]] = {
    **{number: name for name, number in LEVELS.items()},
    logging.CRITICAL: "critical",
}
VARIABLES: Final = ("OCTOROUTE_LOG", "RUST_LOG")

# What every record has by itself; anything else came in through `extra`.
_OWN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@dataclass(frozen=True, slots=True)
class Filter:
    """The level of all loggers (None: as configured), and of single modules with what is below them."""

    level: int | None = None
    modules: Mapping[str, int] = field(default_factory=dict)


def parse_filter(text: str, source: str = "OCTOROUTE_LOG") -> Filter:
    """The filter that a text such as `info,octoroute.routing=debug` means. Raises ConfigError."""
    level: int | None = None
    modules: dict[str, int] = {}
    problems: list[str] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        module, equals, word = (piece.strip() for piece in part.rpartition("="))
        # 1.0 wrote modules as Rust does, and a module alone let everything of it through.
        module = module.replace("::", ".")
        if not equals and word.replace("::", ".").split(".")[0] == "octoroute":
            module, equals, word = word.replace("::", "."), "=", "trace"
        number = _level(word)
        if number is None:
            problems.append(_no_level(word))
        elif not equals:
            level = number
        elif not all(name.isidentifier() for name in module.split(".")):
            problems.append(
                f'"{module}" is not a module; write a filter such as info,octoroute.routing=debug'
            )
        else:
            modules[module] = number
    if problems:
        raise ConfigError(source, problems)
    return Filter(level, modules)


def _level(word: str) -> int | None:
    word = word.lower()
    return LEVELS.get(_SYNONYMS.get(word, word))


def _no_level(word: str) -> str:
    near = difflib.get_close_matches(word.lower(), LEVELS, n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f'"{word}" is not a level; allowed are {", ".join(LEVELS)}{hint}'


def filter_of_environment(environ: Mapping[str, str]) -> Filter:
    """The filter of the first variable that is set and not empty; else one that leaves all as configured."""
    for variable in VARIABLES:
        if environ.get(variable, "").strip():
            return parse_filter(environ[variable], source=variable)
    return Filter()


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z INFO octoroute.gateway: message`, one line but for a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        # A line break in a message could pass for a line of its own.
        message = "".join(
            character if character.isprintable() else repr(character)[1:-1]
            for character in record.getMessage()
        )
        line = f"{_time(record)} {level_name(record.levelno).upper()} {record.name}: {message}"
        trouble = _traceback(self, record)
        return f"{line}\n{trouble}" if trouble else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, what came in `extra`, a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": level_name(record.levelno),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {
            name: value
            for name, value in vars(record).items()
            if name not in _OWN_ATTRIBUTES and name not in entry
        }
        trouble = _traceback(self, record)
        if trouble:
            entry["traceback"] = trouble
        try:
            return orjson.dumps(entry, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except orjson.JSONEncodeError:
            # Lone surrogates and integers over 64 bits: better a line with all as text than none.
            plain = {name: str(value).encode(errors="replace").decode() for name, value in entry.items()}
            return orjson.dumps(plain).decode()


FORMATTERS: Final[Mapping[str, type[logging.Formatter]]] = {"text": TextFormatter, "json": JsonFormatter}


def level_name(number: int) -> str:
    """The word for a level, in lower case."""
    return _NAMES.get(number, str(number))


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


class StderrHandler(logging.StreamHandler[Any]):
    """Writes to stderr, and knows which loggers were given a level, so that a reload can take it back."""

    def __init__(self, modules: Mapping[str, int]) -> None:
        super().__init__(sys.stderr)
        self.modules = modules

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A log that can't be written (its reader is gone, the disk is full) must not disturb a request."""


def setup(observability: Observability, environ: Mapping[str, str] = os.environ) -> None:
    """Makes the log go to stderr as configured. May be called again: it replaces what it set up before.

    Raises ConfigError if the filter in the environment is wrong, and changes nothing then.
    """
    wanted = filter_of_environment(environ)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, StderrHandler)]:
        root.removeHandler(handler)
        for module in handler.modules:
            logging.getLogger(module).setLevel(logging.NOTSET)
    handler = StderrHandler(wanted.modules)
    handler.setFormatter(FORMATTERS[observability.log_format]())
    root.addHandler(handler)
    root.setLevel(LEVELS[observability.log_level] if wanted.level is None else wanted.level)
    for module, number in wanted.modules.items():
        logging.getLogger(module).setLevel(number)
