"""One line for each request, as text or JSON. Never content, never a key; a client's own words made harmless.

An entry is a plain tuple in the order of FIELDS, since one is built for each request: strings as they came,
but cut, and numbers unrounded. What leaves this module is harmless and rounded.
"""

import logging
from collections.abc import Callable
from string import ascii_letters, digits
from typing import Final, Literal

import orjson

from octoroute._line import Template

# Each with what a value looks like on a line: see _line.Template. Negative numbers say that there was none.
FIELDS: Final[dict[str, Literal["time", "word", "text", "count", "tenths"]]] = {
    "time": "time",
    "request_id": "text",
    "tenant": "text",
    "model": "text",
    "tier": "word",
    "why": "text",
    "endpoint": "text",
    "attempts": "count",
    "status": "count",
    "result": "word",
    "ttft_ms": "tenths",
    "duration_ms": "tenths",
    "prompt_tokens": "count",
    "completion_tokens": "count",
    "bytes": "count",
    "resumed": "count",
}
Entry = tuple[float, str, str, str, str, str, str, int, int, str, float, float, int, int, int, int]
Format = Callable[[Entry], bytes]

LOGGER: Final = "octoroute.request"  # what the lines are called in the log, and in a filter of its levels
BARE: Final = ascii_letters + digits + "!#$%&'()*+,-./:;<>?@[]^_`{|}~"  # need no quotes on a line of text
PLAIN: Final = f"{BARE} ="  # need no escape in JSON


def enabled(configured: bool) -> bool:
    """Whether lines are wanted: by the config's `request_log`, and by the log's level."""
    return configured and logging.getLogger(LOGGER).isEnabledFor(logging.INFO)


def _quoted(value: str) -> str:
    return '"' + harmless(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _json(value: str) -> str:
    return orjson.dumps(harmless(value)).decode()


_text_parts = [(b" %b=" % name.encode(), kind) for name, kind in FIELDS.items()]
_text_parts[:2] = [(b"", "time"), (b" INFO %b: request_id=" % LOGGER.encode(), "text")]
_text_template = Template(_text_parts, b"\n", b"-", b"-", b"", BARE, _quoted)

_json_parts = [
    (b',"%b":' % name.encode(), "text" if kind == "word" else kind) for name, kind in FIELDS.items()
]
_json_parts[:2] = [
    (b'{"time":"', "time"),
    (b'","level":"info","logger":"%b","message":"request","request_id":' % LOGGER.encode(), "text"),
]
_json_template = Template(_json_parts, b"}\n", b"null", b'""', b'"', PLAIN, _json)
_object_template = Template(
    [(b'{"time":"', "time"), (b'","request_id":', "text"), *_json_parts[2:]],
    b"}",
    b"null",
    b'""',
    b'"',
    PLAIN,
    _json,
)


def as_text(entry: Entry) -> bytes:
    """`<time> INFO octoroute.request: request_id=... status=200 ...`, `-` for what is absent, quotes where
    needed."""
    return _text_template.line(entry)


def as_json(entry: Entry) -> bytes:
    """The same fields as one JSON object, null for what is absent, beside those that every JSON line of the
    log has."""
    return _json_template.line(entry)


FORMATS: Final[dict[str, Format]] = {"text": as_text, "json": as_json}


def as_object(entry: Entry) -> bytes:
    """The fields alone as one JSON object, null for what is absent."""
    return _object_template.line(entry)


def harmless(text: str) -> str:
    """`text` with a replacement character for each that a terminal or a parser might obey."""
    if text.isprintable():  # false for control characters, line ends, bidirectional marks, lone surrogates
        return text
    return "".join(each if each.isprintable() else "\ufffd" for each in text)
