"""Log lines: one line each, harmless whatever a client wrote, readable by programs."""

import logging
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.observe.request_log import FIELDS, LOGGER, Entry, as_json, as_object, as_text, enabled

any_text = st.text(st.characters(codec=None, categories=None))  # lone surrogates and controls too
PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=\\]+)')


def entry(request_id: str = "r1", tenant: str = "", model: str = "auto", endpoint: str = "qwen") -> Entry:
    return (
        *(1795428000.0049, request_id, tenant, model, "fast", "rule:casual_chat", endpoint, 2, 200, "ok"),
        *(153.44, 2345.67, 523, 207, 54321, 1),
    )


UNROUTED: Entry = (0.0, "r1", "", "", "", "", "", 0, 400, "error", -1000.0, 0.31, -1, -1, 0, 0)


def read_text(line: bytes) -> dict[str, str]:
    """The fields of a text line, read by the rules that docs/observability.md gives."""
    text = line.decode().removesuffix("\n")
    head, _, pairs = text.partition(f" INFO {LOGGER}: ")
    found = {"time": head}
    at = 0
    while at < len(pairs):
        match = PAIR.match(pairs, at)
        assert match, pairs[at:]
        name, value = match.groups()
        found[name] = (
            re.sub(r"\\(.)", r"\1", value[1:-1]) if value[0] == '"' else "" if value == "-" else value
        )
        at = match.end() + 1
    return found


def test_a_text_line_holds_every_field_in_order() -> None:
    assert as_text(entry()) == (
        b"2026-11-23T10:00:00.004Z INFO octoroute.request: request_id=r1 tenant=- model=auto tier=fast"
        b" why=rule:casual_chat endpoint=qwen attempts=2 status=200 result=ok ttft_ms=153.4"
        b" duration_ms=2345.7 prompt_tokens=523 completion_tokens=207 bytes=54321 resumed=1\n"
    )
    assert tuple(read_text(as_text(entry()))) == tuple(FIELDS)


def test_a_json_line_holds_every_field_with_numbers_as_numbers() -> None:
    assert orjson.loads(as_json(entry())) == {
        "time": "2026-11-23T10:00:00.004Z",
        "level": "info",
        "logger": "octoroute.request",
        "message": "request",
        "request_id": "r1",
        "tenant": "",
        "model": "auto",
        "tier": "fast",
        "why": "rule:casual_chat",
        "endpoint": "qwen",
        "attempts": 2,
        "status": 200,
        "result": "ok",
        "ttft_ms": 153.4,
        "duration_ms": 2345.7,
        "prompt_tokens": 523,
        "completion_tokens": 207,
        "bytes": 54321,
        "resumed": 1,
    }


def test_what_there_was_none_of_is_a_dash_or_null() -> None:
    assert as_text(UNROUTED) == (
        b"1970-01-01T00:00:00.000Z INFO octoroute.request: request_id=r1 tenant=- model=- tier=- why=-"
        b" endpoint=- attempts=0 status=400 result=error ttft_ms=- duration_ms=0.3 prompt_tokens=-"
        b" completion_tokens=- bytes=0 resumed=0\n"
    )
    line = orjson.loads(as_json(UNROUTED))
    assert line["ttft_ms"] is line["prompt_tokens"] is line["completion_tokens"] is None


@given(any_text, any_text, any_text, any_text)
def test_no_text_of_a_client_breaks_a_line_or_reaches_a_terminal(
    request_id: str, tenant: str, model: str, endpoint: str
) -> None:
    for line in (
        as_text(entry(request_id, tenant, model, endpoint)),
        as_json(entry(request_id, tenant, model, endpoint)),
    ):
        assert line.count(b"\n") == 1
        assert line.decode()[:-1].isprintable()


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=2))
def test_a_printable_name_is_read_back_as_it_was(name: str) -> None:
    assert read_text(as_text(entry(name, name, name, name)))["model"] == name
    assert read_text(as_text(entry(name, name, name, name)))["request_id"] == name
    assert orjson.loads(as_json(entry(name, name, name, name)))["model"] == name


@given(any_text)
def test_both_formats_and_the_recent_requests_agree(name: str) -> None:
    logged = orjson.loads(as_json(entry(model=name)))
    shown = orjson.loads(as_object(entry(model=name)))
    assert {field: logged[field] for field in FIELDS} == shown
    if name != "-":
        assert read_text(as_text(entry(model=name)))["model"] == shown["model"]


def test_a_name_that_is_a_dash_is_not_taken_for_nothing() -> None:
    assert b' model="-" ' in as_text(entry(model="-"))


@pytest.mark.parametrize(
    ("now", "expected"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1795428059.9996, "2026-11-23T10:00:59.999Z")],
)
def test_times_are_utc_with_milliseconds(now: float, expected: str) -> None:
    assert orjson.loads(as_object((now, *UNROUTED[1:])))["time"] == expected


def test_lines_are_off_when_the_config_or_the_level_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger(LOGGER)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()  # type: ignore[attr-defined]
    assert enabled(True)
    assert not enabled(False)
    logger.setLevel(logging.WARNING)
    assert not enabled(True)
    logger.setLevel(logging.NOTSET)
