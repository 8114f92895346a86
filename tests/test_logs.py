"""The log: filters, their variables, both formats, and that set up again it is as if set up once."""

import contextlib
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute import logs
from octoroute.config import Observability
from octoroute.errors import ConfigError
from octoroute.logs import OFF, TRACE, Filter, JsonFormatter, StderrHandler, TextFormatter, parse_filter


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("info", Filter(logging.INFO)),
        ("TRACE", Filter(TRACE)),
        ("warn", Filter(logging.WARNING)),
        ("warning", Filter(logging.WARNING)),
        ("off", Filter(OFF)),
        ("octoroute.routing=debug", Filter(None, {"octoroute.routing": logging.DEBUG})),
        ("info,octoroute.routing=debug", Filter(logging.INFO, {"octoroute.routing": logging.DEBUG})),
        (" info , asyncio = error ,", Filter(logging.INFO, {"asyncio": logging.ERROR})),
        ("octoroute::routing=debug", Filter(None, {"octoroute.routing": logging.DEBUG})),
        ("octoroute", Filter(None, {"octoroute": TRACE})),
        ("warn,octoroute::server", Filter(logging.WARNING, {"octoroute.server": TRACE})),
        ("info,error", Filter(logging.ERROR)),
        ("", Filter()),
    ],
)
def test_a_filter_is_a_level_and_levels_of_modules(text: str, expected: Filter) -> None:
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "inof",
            '"inof" is not a level; allowed are trace, debug, info, warn, error, off; did you mean "info"?',
        ),
        ("a=loud", '"loud" is not a level; allowed are trace, debug, info, warn, error, off'),
        ("a=", '"" is not a level; allowed are trace, debug, info, warn, error, off'),
        ("=info", '"" is not a module; write a filter such as info,octoroute.routing=debug'),
        ("a b=info", '"a b" is not a module; write a filter such as info,octoroute.routing=debug'),
        (
            "a[b{c=d}]=info",
            '"a[b{c=d}]" is not a module; write a filter such as info,octoroute.routing=debug',
        ),
    ],
)
def test_a_wrong_filter_is_told_with_its_variable(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_filter(text)
    assert str(caught.value) == f"OCTOROUTE_LOG: {problem}"


def test_all_that_is_wrong_with_a_filter_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_filter("inof,a=loud")
    assert len(caught.value.problems) == 2


@given(st.text())
def test_any_text_is_a_filter_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse_filter(text), Filter)


@pytest.mark.parametrize(
    ("environ", "level"),
    [
        ({}, None),
        ({"OCTOROUTE_LOG": ""}, None),
        ({"OCTOROUTE_LOG": "debug", "RUST_LOG": "error"}, logging.DEBUG),
        ({"OCTOROUTE_LOG": " ", "RUST_LOG": "error"}, logging.ERROR),
        ({"RUST_LOG": "error"}, logging.ERROR),
    ],
)
def test_the_older_variable_counts_where_the_newer_is_not_set(
    environ: Mapping[str, str], level: int | None
) -> None:
    assert logs.filter_of_environment(environ).level == level


def test_a_wrong_older_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^RUST_LOG: "):
        logs.filter_of_environment({"RUST_LOG": "loud"})


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Gives what the log wrote; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield lambda: capsys.readouterr().err
    logs.setup(Observability(), environ={})
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_config_decides_without_a_filter(written: Callable[[], str]) -> None:
    logs.setup(Observability(log_level="warn"), environ={})
    logging.getLogger("octoroute.a").info("not this")
    logging.getLogger("octoroute.a").warning("this")
    (line,) = written().splitlines()
    assert line.endswith("Z WARN octoroute.a: this")


def test_a_filter_overrides_the_config_module_by_module(written: Callable[[], str]) -> None:
    logs.setup(Observability(), environ={"OCTOROUTE_LOG": "off,octoroute.loud=trace"})
    logging.getLogger("octoroute.quiet").critical("not this")
    logging.getLogger("octoroute.loud.part").log(TRACE, "this")
    (line,) = written().splitlines()
    assert line.endswith("Z TRACE octoroute.loud.part: this")


def test_set_up_again_it_writes_each_line_once_and_forgets_the_old_filter(written: Callable[[], str]) -> None:
    logs.setup(Observability(), environ={"OCTOROUTE_LOG": "octoroute.loud=trace"})
    logs.setup(Observability(log_level="error", log_format="json"), environ={})
    logging.getLogger("octoroute.loud").debug("not this")
    logging.getLogger("octoroute.loud").error("this")
    assert json.loads(written())["message"] == "this"


def test_a_wrong_filter_changes_nothing(written: Callable[[], str]) -> None:
    logs.setup(Observability(), environ={})
    with pytest.raises(ConfigError):
        logs.setup(Observability(), environ={"OCTOROUTE_LOG": "loud"})
    logging.getLogger("octoroute").info("still here")
    assert written().endswith("still here\n")


def test_a_stream_that_is_closed_disturbs_nobody(
    written: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    logs.setup(Observability(), environ={})
    closed.close()
    monkeypatch.undo()
    logging.getLogger("octoroute").error("lost")
    assert written() == ""


def _record(message: str, *arguments: object, **more: Any) -> logging.LogRecord:
    record = logging.LogRecord(
        "octoroute.a", logging.INFO, __file__, 1, message, arguments, more.pop("error", None)
    )
    vars(record).update(created=1_769_860_800.25, **more)
    return record


def _error() -> Any:
    try:
        raise ValueError("wrong")
    except ValueError:
        return sys.exc_info()


def test_a_line_of_text_has_time_level_logger_and_message() -> None:
    line = TextFormatter().format(_record("%d of %s", 1, "x", extra=5))
    assert line == "2026-01-31T12:00:00.250Z INFO octoroute.a: 1 of x"


def test_what_a_client_sent_can_not_pass_for_another_line() -> None:
    assert TextFormatter().format(_record("a\nb\x1b[31m")).endswith("octoroute.a: a\\nb\\x1b[31m")


def test_a_traceback_follows_the_line() -> None:
    lines = TextFormatter().format(_record("failed", error=_error())).splitlines()
    assert lines[0].endswith(": failed")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: wrong"


def test_a_line_of_json_has_what_came_as_extra_too() -> None:
    assert json.loads(JsonFormatter().format(_record("hello", tier="fast", status=200))) == {
        "time": "2026-01-31T12:00:00.250Z",
        "level": "info",
        "logger": "octoroute.a",
        "message": "hello",
        "tier": "fast",
        "status": 200,
    }


def test_a_traceback_in_json_stays_on_the_line() -> None:
    line = JsonFormatter().format(
        _record("failed", error=_error(), stack_info="Stack (most recent call last):")
    )
    assert "\n" not in line
    assert "ValueError: wrong\nStack" in json.loads(line)["traceback"]


@given(st.text(st.characters()), st.one_of(st.text(st.characters()), st.integers(), st.floats(), st.binary()))
def test_every_message_is_one_line_of_json(message: str, extra: object) -> None:
    line = JsonFormatter().format(_record("%s", message, extra=extra))
    assert "\n" not in line
    assert isinstance(json.loads(line), dict)


def test_levels_that_have_no_name_of_ours_are_numbers() -> None:
    assert [logs.level_name(level) for level in (TRACE, logging.WARNING, logging.CRITICAL, 33)] == [
        "trace",
        "warn",
        "critical",
        "33",
    ]


def test_a_handler_knows_its_modules() -> None:
    assert StderrHandler({"a": TRACE}).modules == {"a": TRACE}
