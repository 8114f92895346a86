"""How key paths and values are written in messages: as in TOML, on one line, short, and without secrets."""

import datetime
import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, Final

MASK: Final = '"***"'
MAX_SHOWN_CHARS: Final = 120

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def quoted(text: str) -> str:
    """A TOML string; whatever can't be printed is escaped."""
    if len(text) > MAX_SHOWN_CHARS:
        text = text[:MAX_SHOWN_CHARS] + "..."
    return "".join(
        character if character.isprintable() else _escaped(character)
        for character in json.dumps(text, ensure_ascii=False)
    )


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def key_path(path: Iterable[str | int]) -> str:
    """`models.fast[1].base_url`; keys that need quotes have them."""
    written = ""
    for step in path:
        if isinstance(step, int):
            written += f"[{step}]"
        else:
            written += ("." if written else "") + (step if _BARE_KEY.fullmatch(step) else quoted(step))
    return written


def value_shown(value: Any) -> str:
    """A value as it would stand in the file. What is inside tables and arrays stays out: it may be secret."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 10**MAX_SHOWN_CHARS:
        # Python refuses to write integers of more than 4,300 digits.
        return f"a number of more than {MAX_SHOWN_CHARS} digits"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return "an array" if value else "empty"
    return "a table"


def url_without_secrets(url: str) -> str:
    """The URL without user and password, and without the values of a query."""
    url = re.sub(r"^([a-z]*://)?.*@", r"\1***@", url, flags=re.IGNORECASE | re.DOTALL)
    return re.sub(r"[?#].+", lambda match: match[0][0] + "***", url, flags=re.DOTALL)


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The choice that was most likely meant, if any is near. Case is ignored, `-` and `_` are the same."""
    known = {choice.casefold().replace("-", "_"): choice for choice in choices}
    matches = difflib.get_close_matches(word.casefold().replace("-", "_"), known, n=1, cutoff=cutoff)
    return known[matches[0]] if matches else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A question to put after a message, or nothing."""
    match = nearest(word, choices)
    return f"; did you mean {quoted(match)}?" if match is not None else ""
