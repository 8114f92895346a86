"""What a client saw is judged as its user would."""

import gzip
from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from octoroute.demo.client import End, Seen, Target
from octoroute.demo.judging import MEANINGS, Verdict, events, judge

TEXT = "The octopus. "
SSE = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"
FAILED = b'data: {"error":{"message":"it broke"}}\n\n'


def event(delta: dict[str, Any], finish: str | None = None, **names: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "a", "model": "m", **names, "choices": [choice]}) + b"\n\n"


def said(*pieces: str) -> bytes:
    return event({"role": "assistant", "content": ""}) + b"".join(
        event({"content": piece}) for piece in pieces
    )


WHOLE = said("The ", "octopus. ") + event({}, "stop")


def plain(text: str) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": text}}]})


def stream(body: bytes, end: End = End.WHOLE, adds: str = "") -> Verdict:
    return judge(Seen(end, 200, SSE, body), TEXT, stream=True, adds=adds).verdict


def test_a_whole_stream_is_the_same_however_its_connection_ends() -> None:
    for end in (End.WHOLE, End.CUT, End.SILENCE):
        assert stream(WHOLE + DONE, end) is Verdict.SAME


@pytest.mark.parametrize("change", [(b"\n", b"\r\n"), (b"data: ", b"data:"), (b"\n", b"\r")])
def test_every_spelling_of_an_event_stream_is_read(change: tuple[bytes, bytes]) -> None:
    assert stream((WHOLE + DONE).replace(*change)) is Verdict.SAME


def test_comments_and_what_follows_done_do_not_count() -> None:
    assert stream(b": hello\n\n" + WHOLE + DONE + said("more")) is Verdict.SAME


@pytest.mark.parametrize(
    ("end", "verdict"),
    [(End.WHOLE, Verdict.SAME_NO_DONE), (End.CUT, Verdict.SAME_THEN_CUT), (End.SILENCE, Verdict.HANG)],
)
def test_all_of_the_text_without_done(end: End, verdict: Verdict) -> None:
    assert stream(WHOLE, end) is verdict


@pytest.mark.parametrize("body", [b"", said("The "), said("The ", "octopus. "), said("The ") + b"data: {"])
def test_a_part_that_ends_in_order_looks_complete_and_is_bad(body: bytes) -> None:
    assert stream(body) is Verdict.SILENTLY_CUT
    assert stream(body, End.CUT) is Verdict.CUT
    assert stream(body, End.SILENCE) is Verdict.HANG


def test_an_error_event_behind_a_part_is_honest() -> None:
    assert stream(said("The ") + FAILED) is Verdict.ERROR
    assert stream(said("Thy ") + FAILED) is Verdict.WRONG


@pytest.mark.parametrize(
    "body",
    [
        said("The ", "The ", "octopus. ") + event({}, "stop") + DONE,
        said("octopus. ") + event({}, "stop") + DONE,
        said("The ", "octopus. ") + DONE,
        said("The ", "octopus. ") + event({}, "stop") + event({}, "stop") + DONE,
        said("The ") + said("octopus. ") + event({}, "stop") + DONE,
        said("The ") + event({"content": "octopus. "}, "stop", id="b") + DONE,
        said("The ") + b"data: {oops\n\n" + DONE,
        said("The ") + b"data: 7\n\n" + DONE,
    ],
    ids=["doubled", "lost", "no finish", "two finishes", "two roles", "two ids", "garbled", "no object"],
)
def test_what_was_not_said_is_wrong(body: bytes) -> None:
    assert stream(body) is Verdict.WRONG


def test_text_that_the_fault_adds_may_be_there_or_not() -> None:
    assert stream(said("xx") + WHOLE[len(said()) :] + DONE, adds="xx") is Verdict.SAME
    assert stream(WHOLE + DONE, adds="xx") is Verdict.SAME


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (Seen(End.WHOLE, 200, JSON, plain(TEXT)), Verdict.SAME),
        (Seen(End.WHOLE, 200, JSON | {"content-encoding": "gzip"}, gzip.compress(plain(TEXT))), Verdict.SAME),
        (Seen(End.WHOLE, 200, JSON | {"content-encoding": "gzip"}, b"no gzip"), Verdict.WRONG),
        (
            Seen(End.CUT, 200, JSON | {"content-encoding": "gzip"}, gzip.compress(plain(TEXT))[:-9]),
            Verdict.CUT,
        ),
        (
            Seen(End.WHOLE, 200, JSON | {"content-encoding": "gzip"}, gzip.compress(plain(TEXT))[:-9]),
            Verdict.WRONG,
        ),
        (Seen(End.WHOLE, 200, JSON, plain("The ")), Verdict.SILENTLY_CUT),
        (Seen(End.WHOLE, 200, JSON, plain("evil")), Verdict.WRONG),
        (Seen(End.WHOLE, 200, JSON, plain(TEXT)[:-4]), Verdict.CUT),
        (Seen(End.CUT, 200, JSON, plain(TEXT)[:-4]), Verdict.CUT),
        (Seen(End.SILENCE, 200, JSON, b""), Verdict.HANG),
        (Seen(End.SILENCE), Verdict.HANG),
        (Seen(End.NO_ANSWER), Verdict.CUT),
        (Seen(End.WHOLE, 502, JSON, b'{"error":{"message":"no"}}'), Verdict.ERROR),
        (Seen(End.WHOLE, 502, JSON, b'{"error":"no"}'), Verdict.BARE_ERROR),
        (Seen(End.WHOLE, 502, {}, b"<html>"), Verdict.BARE_ERROR),
        (Seen(End.SILENCE, 502, {}, b""), Verdict.HANG),
    ],
)
def test_plain_answers_and_refusals(seen: Seen, verdict: Verdict) -> None:
    assert judge(seen, TEXT, stream=False).verdict is verdict


def test_a_stream_that_came_as_json_is_told_apart() -> None:
    assert judge(Seen(End.WHOLE, 200, JSON, plain(TEXT)), TEXT, stream=True).verdict is Verdict.NO_STREAM


def test_bad_is_what_misleads_and_every_verdict_is_explained() -> None:
    bad = {Verdict.SILENTLY_CUT, Verdict.HANG, Verdict.WRONG, Verdict.POISONED}
    assert {verdict for verdict in Verdict if verdict.is_bad} == bad
    assert set(MEANINGS) == set(Verdict)


def test_an_event_may_have_several_lines_of_data() -> None:
    lines: Iterable[bytes] = events(b"event: a\ndata: 1\ndata:2\n\ndata\n\ndata: half")
    assert list(lines) == [b"1\n2"]


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix"),
    [
        ("http://gateway", "gateway", 80, ""),
        ("https://gateway/v1/", "gateway", 443, ""),
        ("http://10.0.0.1:4000/proxy/v1", "10.0.0.1", 4000, "/proxy"),
    ],
)
def test_a_target_is_read_from_its_url(url: str, host: str, port: int, prefix: str) -> None:
    target = Target(url, "m")
    assert (target.host, target.port, target.prefix) == (host, port, prefix)


@pytest.mark.parametrize("url", ["", "gateway:4000", "ftp://a", "http://", "http://a/?b"])
def test_what_is_no_url_of_a_gateway_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no URL of a gateway"):
        Target(url, "m")
