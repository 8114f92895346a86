"""One line for each request, as text or JSON. Never content, never a key; a client's own words made harmless.

An entry is a plain tuple in the order of FIELDS, since one is built for each request: strings as they came,
but cut, and numbers unrounded. What leaves this module is harmless and rounded.
"""

import logging
import re
from collections.abc import Callable
from functools import lru_cache
from time import gmtime, strftime
from typing import Final

import orjson

FIELDS: Final = (
    *("time", "request_id", "tenant", "model", "tier", "why", "endpoint", "attempts", "status", "result"),
    *("ttft_ms", "duration_ms", "prompt_tokens", "completion_tokens", "bytes"),
)
# time is seconds since the epoch; a negative ttft_ms or token count says that there was none.
Entry = tuple[float, str, str, str, str, str, str, int, int, str, float, float, int, int, int]
Format = Callable[[Entry], bytes]

LOGGER: Final = "octoroute.request"  # what the lines are called in the log, and in a filter of its levels
_MILLISECONDS: Final = tuple(f".{each:03d}Z" for each in range(1000))
_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")  # printable ASCII without space, quote, equals sign, backslash


def enabled(configured: bool) -> bool:
    """Whether lines are wanted: by the config's `request_log`, and by the log's level."""
    return configured and logging.getLogger(LOGGER).isEnabledFor(logging.INFO)


def as_text(entry: Entry) -> bytes:
    """`<time> INFO octoroute.request: request_id=... status=200 ...`, `-` for what is absent, quotes where
    needed."""
    time, rid, tenant, model, tier, why, endpoint, attempts, status, result, *numbers = entry
    ttft, duration, prompt, completion, size = numbers
    return (
        f"{timestamp(time)} INFO {LOGGER}:"
        f" request_id={rid if rid.isalnum() and rid.isascii() else _text_once(rid)}"
        f" tenant={_text(tenant)} model={_text(model)} tier={tier or '-'} why={_text(why)}"
        f" endpoint={_text(endpoint)} attempts={attempts} status={status} result={result}"
        f" ttft_ms={f'{ttft:.1f}' if ttft >= 0 else '-'} duration_ms={duration:.1f}"
        f" prompt_tokens={prompt if prompt >= 0 else '-'}"
        f" completion_tokens={completion if completion >= 0 else '-'} bytes={size}\n"
    ).encode()


def as_json(entry: Entry) -> bytes:
    """The same fields as one JSON object, null for what is absent, beside those that every JSON line of the
    log has."""
    time, rid, tenant, model, tier, why, endpoint, attempts, status, result, *numbers = entry
    ttft, duration, prompt, completion, size = numbers
    return (
        f'{{"time":"{timestamp(time)}","level":"info","logger":"{LOGGER}","message":"request"'
        f',"request_id":{_json_once(rid)},"tenant":{_json(tenant)},"model":{_json(model)}'
        f',"tier":"{tier}","why":{_json(why)},"endpoint":{_json(endpoint)}'
        f',"attempts":{attempts},"status":{status},"result":"{result}"'
        f',"ttft_ms":{f"{ttft:.1f}" if ttft >= 0 else "null"},"duration_ms":{duration:.1f}'
        f',"prompt_tokens":{prompt if prompt >= 0 else "null"}'
        f',"completion_tokens":{completion if completion >= 0 else "null"},"bytes":{size}}}\n'
    ).encode()


FORMATS: Final[dict[str, Format]] = {"text": as_text, "json": as_json}


def as_dict(entry: Entry) -> dict[str, object]:
    """The fields by name: time as text, None for what is absent."""
    fields: dict[str, object] = dict(zip(FIELDS, entry, strict=True))
    for name, value in fields.items():
        if isinstance(value, str):
            fields[name] = harmless(value)
        elif isinstance(value, float):
            fields[name] = round(value, 1) if value >= 0 else None
        elif value == -1:
            fields[name] = None
    fields["time"] = timestamp(entry[0])
    return fields


def timestamp(now: float) -> str:
    """ISO 8601, UTC, milliseconds."""
    milliseconds = int(now * 1000)
    return _second(milliseconds // 1000) + _MILLISECONDS[milliseconds % 1000]


def harmless(text: str) -> str:
    """`text` with a replacement character for each that a terminal or a parser might obey."""
    if text.isprintable():  # false for control characters, line ends, bidirectional marks, lone surrogates
        return text
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))


def _text_once(value: str) -> str:
    if not value:
        return "-"
    if _BARE.fullmatch(value) and value != "-":
        return value
    return '"' + harmless(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _json_once(value: str) -> str:
    return orjson.dumps(harmless(value)).decode()


# Tenants, endpoints and most model names come again and again; request ids don't, and must not push them out.
_text = lru_cache(maxsize=1024)(_text_once)
_json = lru_cache(maxsize=1024)(_json_once)
