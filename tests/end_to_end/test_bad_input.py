"""Bad input gets an OpenAI error object with the right status, leaks nothing, and harms nobody else."""

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, fleet_config
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat, converse

PATH = "/v1/chat/completions"
MAX_BODY_BYTES = 100_000
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@dataclass
class Fleet:
    server: SimulatedServer
    gateway: Gateway

    async def refused(self, reply: Reply, status: int, param: str | None = None) -> dict[str, Any]:
        """Checks the refusal, and that the next request on a fresh connection works. Returns the error."""
        assert reply.status == status, reply.body
        assert reply.headers["content-type"].startswith("application/json")
        error = reply.error
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param
        assert f":{self.server.port}" not in error["message"]
        assert "Traceback" not in self.gateway.log
        assert (await converse(self.gateway.port)).status == 200
        return error

    async def raw(self, data: bytes) -> Reply:
        """The answer to these bytes."""
        async with WireClient(self.gateway.port) as client:
            client.send_raw(data)
            return await client.unasked_reply()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    server = await serve_module("vllm")
    limits = {"request_timeout_seconds": 1, "max_body_bytes": MAX_BODY_BYTES, "max_messages": 5}
    return Fleet(server, await gateway_module(fleet_config([server], server=limits)))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"model": fast}', b"\xff\xfe", b"[]", b'"text"', b"null", b'{"a":1}{', b"[" * 50_000],
)
async def test_a_body_that_is_no_json_object(fleet: Fleet, body: bytes) -> None:
    async with WireClient(fleet.gateway.port) as client:
        client.post(PATH, body=body)
        await fleet.refused(await client.reply(), 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_content_type_that_is_not_json(fleet: Fleet, kind: str) -> None:
    async with WireClient(fleet.gateway.port) as client:
        client.post(PATH, chat(), headers={"content-type": kind})
        error = await fleet.refused(await client.reply(), 415)
    assert "application/json" in error["message"]


async def test_a_content_type_with_a_charset_is_fine(fleet: Fleet) -> None:
    async with WireClient(fleet.gateway.port) as client:
        client.post(PATH, chat(), headers={"content-type": "Application/JSON; charset=utf-8"})
        assert (await client.reply()).status == 200


async def test_an_unknown_model_lists_what_is_available(fleet: Fleet) -> None:
    reply = await converse(fleet.gateway.port, model="gpt-17")
    error = await fleet.refused(reply, 400, "model")
    assert all(name in error["message"] for name in ("auto", "fast", "balanced", "deep", "qwen3-8b"))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user", "content": "a"}] * 6}, "messages"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": ""}]}, "messages[0].content"),
        ({"temperature": 2.01}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"model": 7}, "model"),
        ({"model": None}, "model"),
    ],
    ids=str,
)
async def test_a_field_out_of_range_is_named(fleet: Fleet, fields: dict[str, Any], param: str) -> None:
    before = len(fleet.server.completions)
    reply = await ask(fleet.gateway.port, fields={**chat(), **fields})
    assert len(fleet.server.completions) == before
    await fleet.refused(reply, 400, param)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"1e999", b"1" * 5000])
async def test_numbers_that_are_not_finite(fleet: Fleet, number: bytes) -> None:
    body = b'{"model":"fast","temperature":' + number + b',"messages":[{"role":"user","content":"a"}]}'
    async with WireClient(fleet.gateway.port) as client:
        client.post(PATH, body=body)
        reply = await client.reply()
    assert reply.status == 400
    await fleet.refused(reply, 400, reply.error["param"])


async def test_an_assistants_message_may_be_blank(fleet: Fleet) -> None:
    fields = chat()
    fields["messages"].insert(0, {"role": "assistant", "content": ""})
    assert (await ask(fleet.gateway.port, fields=fields)).status == 200


async def test_a_body_over_the_limit(fleet: Fleet) -> None:
    await fleet.refused(await converse(fleet.gateway.port, "x" * MAX_BODY_BYTES), 413)


async def test_a_chunked_body_over_the_limit(fleet: Fleet) -> None:
    chunks = (b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 11
    reply = await fleet.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    await fleet.refused(reply, 413)


async def test_a_declared_length_of_a_gigabyte_is_refused_at_once(fleet: Fleet) -> None:
    await fleet.refused(await fleet.raw(HEAD + b"Content-Length: 1073741824\r\n\r\n{"), 413)


async def test_a_hundred_kilobytes_of_headers(fleet: Fleet) -> None:
    lines = b"".join(b"X-Filler-%d: %b\r\n" % (at, b"a" * 980) for at in range(100))
    await fleet.refused(await fleet.raw(HEAD + lines + b"Content-Length: 2\r\n\r\n{}"), 431)


async def test_one_header_of_a_hundred_kilobytes(fleet: Fleet) -> None:
    filler = b"X-Filler: " + b"a" * 100_000 + b"\r\n"
    await fleet.refused(await fleet.raw(HEAD + filler + b"Content-Length: 2\r\n\r\n{}"), 431)


async def test_half_a_request_and_then_silence(fleet: Fleet) -> None:
    halves = [
        b"POST /v1/chat/comple",
        HEAD,
        HEAD + b"Content-Length: 100\r\n\r\n",
        HEAD + b"Content-Length: 9\r\n\r\n{",
        HEAD + b"Content-Length: 90000\r\n\r\n{",
    ]
    for reply in await asyncio.gather(*map(fleet.raw, halves)):
        await fleet.refused(reply, 408)


@pytest.mark.parametrize(
    "bytes_", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", HEAD + b"Content-Length: -1\r\n\r\n"]
)
async def test_bytes_that_are_no_http_request(fleet: Fleet, bytes_: bytes) -> None:
    await fleet.refused(await fleet.raw(bytes_), 400)


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/health", b"/nowhere"])
async def test_a_body_that_can_not_be_unpacked(fleet: Fleet, path: bytes) -> None:
    head = HEAD.replace(PATH.encode(), path) + b"Content-Encoding: gzip\r\nContent-Length: 40000\r\n\r\n"
    status = {b"/health": 405, b"/nowhere": 404}.get(path, 400)
    await fleet.refused(await fleet.raw(head + b"plain text" * 4000), status)


@pytest.mark.parametrize("line", [b"GET /health HTTP/2.0", b"GET /health"])
async def test_another_version_of_http(fleet: Fleet, line: bytes) -> None:
    await fleet.refused(await fleet.raw(line + b"\r\nHost: a\r\n\r\n"), 505)


async def test_a_target_may_name_the_host_too(fleet: Fleet) -> None:
    async with WireClient(fleet.gateway.port) as client:
        client.get("http://gateway/v1/models?limit=1")
        assert (await client.reply()).status == 200


async def test_two_lengths_are_not_guessed_about(fleet: Fleet) -> None:
    smuggled = b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    await fleet.refused(await fleet.raw(HEAD + smuggled), 400)


async def test_an_unknown_path_gets_a_hint(fleet: Fleet) -> None:
    for path in ("/v1/chat/completion", "/", "/v1", "/admin/../v1/models", "/" + "a" * 3000):
        async with WireClient(fleet.gateway.port) as client:
            client.get(path)
            error = await fleet.refused(await client.reply(), 404)
        assert PATH in error["message"]


@pytest.mark.parametrize(("method", "path"), [("GET", PATH), ("PUT", PATH), ("DELETE", "/v1/models")])
async def test_a_wrong_method(fleet: Fleet, method: str, path: str) -> None:
    async with WireClient(fleet.gateway.port) as client:
        client.get(path, method)
        await fleet.refused(await client.reply(), 405)


async def test_the_same_connection_goes_on_after_a_refusal(fleet: Fleet) -> None:
    async with WireClient(fleet.gateway.port) as client:
        for fields in (chat(model="nobody"), chat(), chat(temperature=9), chat()):
            client.post(PATH, fields)
            reply = await client.reply()
            assert reply.status == (400 if fields["model"] == "nobody" or "temperature" in fields else 200)


async def test_a_sane_request_id_is_kept_and_another_is_replaced(fleet: Fleet) -> None:
    for given, kept in (("abc-123", True), ("a b<script>", False), ("x" * 500, False)):
        async with WireClient(fleet.gateway.port) as client:
            client.post(PATH, body=orjson.dumps(chat()), headers={"x-request-id": given})
            answered = (await client.reply()).headers["x-request-id"]
        assert (answered == given) is kept
