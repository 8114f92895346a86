"""What the client sends is what the server gets, and what the server sends is what the client gets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, Request, SimulatedServer, Step
from octoroute.demo.wire import LAST_CHUNK, chunk, head
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config
from tests.end_to_end.wire_client import WireClient, chat, converse

PATH = "/v1/chat/completions"
SSE = ("Content-Type", "text/event-stream")
SSE_HEAD = head(200, [SSE, ("Transfer-Encoding", "chunked")])
DELTA = 'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
EMOJI = (DELTA % "n\u00e9\u4f60\U0001f419").encode()
BIG = (DELTA % ("x" * (1 << 20))).encode()


@dataclass
class Fleet:
    server: SimulatedServer
    port: int

    async def stream(self, *steps: Step) -> bytes:
        """The body that a client gets of a stream that is sent in these steps."""
        self.server.script(lambda _: steps)
        reply = await converse(self.port, stream=True)
        assert reply.status == 200
        assert reply.ended
        return reply.body

    async def plain(self, *steps: Step) -> bytes:
        self.server.script(lambda _: steps)
        return (await converse(self.port)).body

    async def sent_on(self, body: bytes) -> bytes:
        """The body that the server gets of a request with this body."""
        self.server.script(None)
        async with WireClient(self.port) as client:
            client.post(PATH, body=body)
            assert (await client.reply()).status == 200
        return self.server.completions[-1].body


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    server = await serve_module("llama_cpp", "qwen3-8b")
    gateway = await gateway_module(fleet_config([server], recovery={"cancel_plain": False}))
    return Fleet(server, gateway.port)


async def test_only_the_model_is_rewritten_and_every_other_byte_stays(fleet: Fleet) -> None:
    body = (
        b'{ "a" : [1, 2.50, 1e3, -0.0, 123456789012345678901234567890],\n\t"model"  : "fast" ,'
        b' "max_tokens":7, "temperature":0.10, "messages":'
        b'[{"role":"user","content":"\\u00e9 \\ud83d\\ude00 \xc3\xa9 model"}],'
        b' "chat_template_kwargs": {"model": "fast", "enable_thinking": false}, "tools": [], "x": null }'
    )
    expected = body.replace(b'"model"  : "fast"', b'"model"  : "qwen3-8b"')
    assert await fleet.sent_on(body) == expected


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ({}, {"temperature": 0.7, "max_tokens": 64}),
        ({"temperature": None, "max_tokens": None}, {"temperature": 0.7, "max_tokens": 64}),
        ({"temperature": 0}, {"temperature": 0, "max_tokens": 64}),
        ({"max_tokens": 3}, {"temperature": 0.7, "max_tokens": 3}),
        ({"max_completion_tokens": 5}, {"temperature": 0.7, "max_completion_tokens": 5}),
    ],
)
async def test_temperature_and_max_tokens_are_filled_in_where_absent(
    fleet: Fleet, given: dict[str, Any], filled: dict[str, Any]
) -> None:
    fields = chat(**given, seed=1, metadata={"a": ["b"]})
    sent = orjson.loads(await fleet.sent_on(orjson.dumps(fields)))
    assert sent == {**fields, **filled, "model": "qwen3-8b"}


async def test_a_model_name_inside_the_messages_is_left_alone(fleet: Fleet) -> None:
    body = b'{"messages":[{"role":"user","content":"\\"model\\":\\"fast\\"","model":"fast"}],"model":"fast"}'
    sent = await fleet.sent_on(body)
    assert rb'"messages":[{"role":"user","content":"\"model\":\"fast\"","model":"fast"}]' in sent
    assert orjson.loads(sent)["model"] == "qwen3-8b"


async def test_a_body_of_several_megabytes_reaches_the_server(fleet: Fleet) -> None:
    body = orjson.dumps(chat("y" * (4 << 20), max_tokens=1, temperature=1))
    fleet.server.script(lambda _: [head(200, [("Content-Length", "2")]) + b"{}"])
    async with WireClient(fleet.port) as client:
        client.post(PATH, body=body)
        assert (await client.reply()).body == b"{}"
    assert fleet.server.completions[-1].body == body.replace(b'"fast"', b'"qwen3-8b"')


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([BIG, DONE], id="an event of 1 MB"),
        pytest.param([b": hi\n\n", EMOJI, b": still here\n\n", DONE], id="comments"),
        pytest.param([b"event: delta\nid: 7\nretry: 10\n" + EMOJI, DONE], id="event, id and retry lines"),
        pytest.param([EMOJI.replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r\n")], id="CRLF"),
        pytest.param([EMOJI.replace(b"\n", b"\r"), DONE.replace(b"\n", b"\r")], id="CR"),
        pytest.param([b"data: {\ndata: }\n\n", DONE], id="an event of two data lines"),
        pytest.param([EMOJI, EMOJI], id="no DONE"),
        pytest.param([EMOJI * 50 + DONE], id="many events in one chunk"),
        pytest.param([bytes([byte]) for byte in EMOJI + DONE], id="a chunk a byte"),
    ],
)
async def test_a_stream_comes_as_it_was_sent(fleet: Fleet, pieces: list[bytes]) -> None:
    body = await fleet.stream(SSE_HEAD, *map(chunk, pieces), LAST_CHUNK, CLOSE)
    assert body == b"".join(pieces)


async def test_a_stream_cut_at_any_byte_comes_as_it_was_sent(fleet: Fleet) -> None:
    for cut in range(1, len(EMOJI)):
        cut_event = (chunk(EMOJI[:cut]), chunk(EMOJI[cut:]))
        assert await fleet.stream(SSE_HEAD, *cut_event, chunk(DONE), LAST_CHUNK, CLOSE) == EMOJI + DONE


async def test_the_framing_cut_at_any_byte_does_not_matter(fleet: Fleet) -> None:
    wire = SSE_HEAD + chunk(EMOJI) + b"0000e;x=1\r\n" + DONE + b"\r\n" + LAST_CHUNK
    for cut in range(1, len(wire), 7):
        assert await fleet.stream(wire[:cut], wire[cut:], CLOSE) == EMOJI + DONE


async def test_a_stream_with_a_length_and_one_that_ends_by_closing_come_whole(fleet: Fleet) -> None:
    length = ("Content-Length", str(len(EMOJI + DONE)))
    assert await fleet.stream(head(200, [SSE, length]), EMOJI, DONE) == EMOJI + DONE
    assert await fleet.stream(head(200, [SSE]), EMOJI, DONE, CLOSE) == EMOJI + DONE
    assert await fleet.stream(head(200, [SSE], "HTTP/1.0"), EMOJI, DONE, CLOSE) == EMOJI + DONE


async def test_an_event_sent_alone_arrives_alone_before_the_next_is_sent(fleet: Fleet) -> None:
    events = [(DELTA % number).encode() for number in range(5)]
    goes = [asyncio.Event() for _ in events]

    async def script(_: Request) -> AsyncIterator[Step]:
        yield SSE_HEAD
        for event, go in zip(events, goes, strict=True):
            yield chunk(event)
            yield go
        yield chunk(DONE)
        yield LAST_CHUNK
        yield CLOSE

    fleet.server.script(script)
    async with WireClient(fleet.port) as client:
        client.post(PATH, chat(stream=True))
        assert (await client.head()).status == 200
        for event, go in zip(events, goes, strict=True):
            assert await client.data_of(len(event)) == event
            go.set()
        assert await client.data_of(len(DONE)) == DONE
        assert await client.data() == b""


async def test_half_an_event_is_not_held_back(fleet: Fleet) -> None:
    go = asyncio.Event()
    fleet.server.script(
        lambda _: [SSE_HEAD, chunk(EMOJI), chunk(EMOJI[:9]), go, chunk(EMOJI[9:]), LAST_CHUNK, CLOSE]
    )
    async with WireClient(fleet.port) as client:
        client.post(PATH, chat(stream=True))
        await client.head()
        assert await client.data_of(len(EMOJI) + 9) == EMOJI + EMOJI[:9]
        go.set()
        assert await client.data_of(len(EMOJI) - 9) == EMOJI[9:]


async def test_half_a_chunk_is_not_held_back(fleet: Fleet) -> None:
    go = asyncio.Event()
    big = chunk(BIG)
    fleet.server.script(
        lambda _: [SSE_HEAD, chunk(EMOJI), big[:500_000], go, big[500_000:], LAST_CHUNK, CLOSE]
    )
    async with WireClient(fleet.port) as client:
        client.post(PATH, chat(stream=True))
        await client.head()
        await client.data_of(len(EMOJI) + 400_000)
        go.set()
        assert len(await client.data_of(len(BIG) - 500_000)) > 0


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_server_comes_as_it_is(fleet: Fleet, status: int, stream: bool) -> None:
    body = b'{ "error": {"message": "n\xc3\xb6", "n_ctx": 512} }'
    headers = [("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(body)))]
    fleet.server.script(lambda _: [head(status, headers), body])
    reply = await converse(fleet.port, stream=stream)
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


async def test_a_plain_answer_comes_byte_by_byte_the_same(fleet: Fleet) -> None:
    body = b'{"id":"x",  "choices":[], "unknown": [1.0, 1e5, "\\u00e9\xc3\xa9"] }\n'
    for headers in ([("Content-Length", str(len(body)))], [("Transfer-Encoding", "chunked")]):
        framed = (
            [body] if headers[0][0] == "Content-Length" else [chunk(body[:9]), chunk(body[9:]), LAST_CHUNK]
        )
        whole = [head(200, [("Content-Type", "application/json"), *headers]), *framed]
        assert await fleet.plain(*whole) == body


async def test_a_stream_is_marked_so_that_proxies_do_not_buffer_it(fleet: Fleet) -> None:
    fleet.server.script(None)
    reply = await converse(fleet.port, stream=True)
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "keep-alive" not in reply.headers
    assert reply.headers["x-request-id"]


async def test_a_server_without_answer_to_other_fields_is_asked_for_them_all(fleet: Fleet) -> None:
    fleet.server.script(None)
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    reply = await converse(fleet.port, tools=[tool], n=2, stop=["zz"], logit_bias={"5": 1}, stream=True)
    sent = fleet.server.completions[-1].json
    assert (sent["tools"], sent["n"], sent["stop"], sent["logit_bias"]) == ([tool], 2, ["zz"], {"5": 1})
    assert reply.events[-1] == "[DONE]"
