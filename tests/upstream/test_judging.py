"""What the beginning of an answer, an error and a probe's answer are taken for."""

import pytest

from octoroute._http1 import parse_head
from octoroute._sse import first_data_event
from octoroute.upstream.answer import Answer, server_message
from octoroute.upstream.connection import is_error_event
from octoroute.upstream.probe import judge


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b"", None),
        (b": ping\n\n", None),
        (b"data: 1", None),
        (b"data: 1\n", None),
        (b"data: 1\n\n", b"data: 1"),
        (b"data: 1\r\n\r\nmore", b"data: 1"),
        (b"data: 1\r\rmore", b"data: 1"),
        (b": ping\n\n: ping\n\ndata: 1\n\ndata: 2\n\n", b"data: 1"),
        (b"event: x\ndata: 1\n\n", b"event: x\ndata: 1"),
        (b"event: x\n\ndata: 1\n\n", b"data: 1"),
        (b"retry: 10\r\n\r\ndata: 1\n\n", b"data: 1"),
    ],
)
def test_the_first_event_with_data_is_the_first_sign_of_life(payload: bytes, event: bytes | None) -> None:
    assert first_data_event(payload) == event


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b'data: {"error":{"message":"no"}}', True),
        (b'data:{"error":"no"}', True),
        (b'event: error\ndata: {"error":{"message":"no"}}', True),
        (b'data: {"error":null,"choices":[]}', False),
        (b'data: {"choices":[{"delta":{"content":"\\"error\\""}}]}', False),
        (b'data: {"error":{"message":"no"},"choices":[]}', False),
        (b"data: [DONE]", False),
        (b"data: {", False),
    ],
)
def test_an_event_is_an_error_only_where_it_is_nothing_else(event: bytes, error: bool) -> None:
    assert is_error_event(event) is error


def answer(body: bytes) -> Answer:
    head, _ = parse_head(b"HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\n")
    assert head is not None
    return Answer(head, body)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"code":500,"message":"out of memory","type":"server_error"}}', "out of memory"),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"object":"error","message":"too long","code":400}', "too long"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["x"]}]}', ""),
        (b"<html>", ""),
        (b"[]", ""),
        (b'{"error":{"message":"can\'t reach http://gpu-7:8080/v1 now"}}', "can't reach [address] now"),
        (
            b'{"error":{"message":"no route to gpu-7.internal or fd00::12"}}',
            "no route to [address] or [address]",
        ),
        (b'{"error":{"message":"std::bad_alloc in llama.cpp"}}', "std::bad_alloc in llama.cpp"),
        (b'{"error":{"message":"connect 10.0.0.7:8000: refused"}}', "connect [address] refused"),
        (
            b'{"error":{"message":"upstream gpu-7.internal:8000 and [fd00::1]:80"}}',
            "upstream [address] and [address]",
        ),
        (b'{"error":{"message":"ratio 3:2 of 10 layers"}}', "ratio 3:2 of 10 layers"),
    ],
)
def test_a_servers_words_are_passed_on_without_addresses(body: bytes, message: str) -> None:
    assert server_message(answer(body)).replace("[address]:", "[address]") == message


@pytest.mark.parametrize(
    ("status", "body", "healthy"),
    [
        (200, b'{"object":"list","data":[]}', True),
        (200, b'{"models":[{"name":"x"}]}', True),
        (200, b'{"status":"ok"}', True),
        (200, b"", True),
        (204, b"", True),
        (200, b'{"error":"Unexpected endpoint or method. (GET /nope)"}', False),
        (200, b"<html>hello</html>", False),
        (200, b"[]", False),
        (200, b'{"hello":1}', False),
        (503, b'{"error":{"message":"Loading model"}}', False),
        (401, b"", False),
        (404, b"", False),
    ],
)
def test_a_probe_looks_at_the_body_too(status: int, body: bytes, healthy: bool) -> None:
    assert (judge(status, body) == "") is healthy
