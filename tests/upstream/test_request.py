"""What a model server is sent: the client's bytes with the model's name replaced and defaults filled in."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute.balance.endpoint import EndpointSpec
from octoroute.errors import InvalidRequest
from octoroute.exchange import RequestView
from octoroute.upstream.request import RequestWriter

CHAT = "/v1/chat/completions"
SPEC = EndpointSpec(
    tier="fast",
    name="qwen",
    base_url="http://gpu-1:8080/models/v1",
    model="Qwen/Qwen3-8B",
    max_tokens=512,
    temperature=0.25,
    api_key="secret",
)


def view(body: bytes, path: str = CHAT, headers: bytes = b"") -> RequestView:
    fields = orjson.loads(body)
    return RequestView("id", path, body, fields, fields.get("model", ""), False, headers=headers)


def written(
    body: bytes, path: str = CHAT, headers: bytes = b"", *, ask_usage: bool = False
) -> tuple[bytes, bytes]:
    """(head, body)"""
    pieces = RequestWriter(SPEC).pieces(view(body, path, headers), ask_usage=ask_usage)
    head, _, sent = b"".join(pieces).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(sent)}\r\n".encode() in head + b"\r\n"
    return head, sent


def test_the_head_names_the_server_and_carries_its_key_and_the_clients_headers() -> None:
    head, _ = written(b'{"model":"fast"}', headers=b"X-Request-Id: 1\r\nTraceparent: 00-a\r\n")
    assert head.split(b"\r\n") == [
        b"POST /models/v1/chat/completions HTTP/1.1",
        b"Host: gpu-1:8080",
        b"Content-Type: application/json",
        b"Authorization: Bearer secret",
        b"X-Request-Id: 1",
        b"Traceparent: 00-a",
        b"Content-Length: 61",
    ]


def test_routes_beside_v1_are_asked_for_beside_it() -> None:
    assert written(b'{"model":"fast"}', "/tokenize")[0].startswith(b"POST /models/tokenize HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"model":"fast","temperature":1,"max_tokens":5}', b'{"model":"M","temperature":1,"max_tokens":5}'),
        (b'{ "model" : "fast" }', b'{ "model" : "M" ,"max_tokens":512,"temperature":0.25}'),
        (
            b'{"model":"fast","temperature":null,"max_tokens": null}\n',
            b'{"model":"M","temperature":0.25,"max_tokens": 512}\n',
        ),
        (
            b'{"model":"fast","max_completion_tokens":9}',
            b'{"model":"M","max_completion_tokens":9,"temperature":0.25}',
        ),
        (
            b'{"model":"fast","max_tokens":null,"max_completion_tokens":9,"temperature":0}',
            b'{"model":"M","max_tokens":null,"max_completion_tokens":9,"temperature":0}',
        ),
        (
            b'{"messages":[{"model":"fast"}],"x":1e400,"model":"fast","temperature":0,"max_tokens":1}',
            b'{"messages":[{"model":"fast"}],"x":1e400,"model":"M","temperature":0,"max_tokens":1}',
        ),
    ],
)
def test_only_what_has_to_change_changes(body: bytes, sent: bytes) -> None:
    request = RequestView("id", CHAT, body, dict(_members(body)), "fast", False)
    got = b"".join(RequestWriter(SPEC).pieces(request)).partition(b"\r\n\r\n")[2]
    assert got == sent.replace(b'"M"', b'"Qwen/Qwen3-8B"')


def _members(body: bytes) -> dict[str, Any]:
    return dict(orjson.loads(body.replace(b"1e400", b"1")))


def test_defaults_are_filled_in_for_completions_only() -> None:
    assert b"max_tokens" in written(b'{"model":"fast"}', "/v1/completions")[1]
    assert b"max_tokens" not in written(b'{"model":"fast"}', "/v1/embeddings")[1]


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (b"", b',"stream_options":{"include_usage":true}}'),
        (b',"stream_options":null', b',"stream_options":{"include_usage":true}}'),
        (b',"stream_options":{"include_usage":false} ', b',"stream_options":{"include_usage":true} }'),
    ],
)
def test_a_stream_can_be_asked_for_its_usage(options: bytes, sent: bytes) -> None:
    body = b'{"model":"fast","stream":true,"temperature":1,"max_tokens":5%b}' % options
    written_body = written(body, ask_usage=True)[1]
    assert written_body.endswith(b'"max_tokens":5' + sent)
    assert options in written(body)[1]


def test_every_model_is_replaced_where_it_stands_twice() -> None:
    _, sent = written(b'{"model":"a","model":"fast","temperature":0,"max_tokens":1}')
    assert b'"a"' not in sent
    assert sent.count(b'"Qwen/Qwen3-8B"') == 2


def test_a_model_hidden_behind_an_escape_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="without escapes"):
        written(rb'{"mod\u0065l":"fast"}')


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=8), values, max_size=5), st.integers(0, 30_000))
@settings(max_examples=200)
def test_every_field_of_any_request_arrives(fields: dict[str, Any], padding: int) -> None:
    fields = {**fields, "messages": ["x" * padding], "model": "fast"}
    sent = orjson.loads(written(orjson.dumps(fields))[1])
    expected = {**fields, "model": "Qwen/Qwen3-8B"}
    if expected.get("max_completion_tokens") is None and expected.get("max_tokens") is None:
        expected["max_tokens"] = 512
    if expected.get("temperature") is None:
        expected["temperature"] = 0.25
    assert sent == expected
