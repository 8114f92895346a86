"""A large body is read into its place and looked at in an abridged form: nobody can tell."""

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, endpoint, fleet_config
from tests.end_to_end.processes import until
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat, converse

TLS = Path(__file__).parent / "tls"
PATH = "/v1/chat/completions"
HEAD = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
SMALL = b'{"model":"fast","messages":[{"role":"user","content":"hello"}],"temperature":1,"max_tokens":1}'
LARGE = SMALL.replace(b"hello", "Grüße, 世界!\\n ".encode() * 30_000)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def request(body: bytes, lines: bytes = b"") -> bytes:
    return HEAD % (PATH.encode(), len(body), lines) + body


@dataclass
class Fleet:
    server: SimulatedServer
    gateway: Gateway

    @property
    def port(self) -> int:
        return self.gateway.port

    def last(self, count: int) -> list[bytes]:
        """The bodies that the server was sent last, as their clients wrote them."""
        model = orjson.dumps(self.server.model)
        return [one.body.replace(model, b'"fast"', 1) for one in self.server.completions[-count:]]


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(serve: StartServer, gateway: StartGateway) -> Fleet:
    server = await serve("vllm")
    server.script(lambda _: [ANSWER])
    limits = {"max_content_chars": 500_000}
    return Fleet(server, await gateway(fleet_config([server], server=limits)))


async def test_what_comes_behind_a_large_body_is_the_next_request(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        close = b"Connection: close\r\n"
        client.send_raw(request(LARGE) + request(SMALL) + request(LARGE) + request(SMALL, close))
        got = await client.read_raw()
    assert got.count(b"HTTP/1.1 200") == 4
    assert fleet.last(4) == [LARGE, SMALL, LARGE, SMALL]


@pytest.mark.parametrize("split", [1, 16, 40_000, len(LARGE) - 40_000, len(LARGE) - 1])
async def test_a_large_body_may_come_in_pieces(fleet: Fleet, split: int) -> None:
    async with WireClient(fleet.port) as client:
        client.send_raw(HEAD % (PATH.encode(), len(LARGE), b"") + LARGE[:split])
        await client.writer.drain()
        # An answer to another request shows that the gateway has read what it was sent before.
        assert (await converse(fleet.port)).status == 200
        client.send_raw(LARGE[split:])
        assert (await client.unasked_reply()).status == 200
    assert fleet.last(1) == [LARGE]


async def test_a_client_may_leave_in_the_middle_of_a_large_body(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        client.send_raw(request(LARGE)[:-1])
        await client.writer.drain()
    assert (await converse(fleet.port)).status == 200
    assert "Traceback" not in fleet.gateway.log


async def test_a_large_body_comes_through_tls(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm")
    server.script(lambda _: [ANSWER])
    tls = {"tls_cert": str(TLS / "one.pem"), "tls_key": str(TLS / "one.key")}
    one = Fleet(server, await gateway(fleet_config([server], server=tls)))
    context = one.gateway.tls
    assert isinstance(context, ssl.SSLContext)
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port, ssl=context)
    writer.write(request(LARGE) + request(LARGE, b"Connection: close\r\n"))
    got = await reader.read()
    writer.close()
    assert got.count(b"HTTP/1.1 200") == 2
    assert one.last(2) == [LARGE, LARGE]


def sized(text: str, **more: Any) -> bytes:
    return orjson.dumps(chat(text, **more))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (sized("x" * 500_001), "the messages hold 500001 characters; at most 500000 are allowed"),
        (sized(" " * 100_000), "messages[0].content must not be blank for the role user"),
        (sized("x" * 100_000, temperature=3), "temperature is 3; allowed: 0 to 2"),
        (LARGE[:-1], f"unexpected end of data: line 1 column {len(LARGE.decode())}"),
        (LARGE.replace(b"!", b"\n", 1), "control character"),
    ],
    ids=["too many characters", "blank", "out of range", "cut", "a line feed in a string"],
)
async def test_what_is_wrong_with_a_large_body_is_told_of_what_was_sent(
    fleet: Fleet, body: bytes, message: str
) -> None:
    async with WireClient(fleet.port) as client:
        client.post(PATH, body=body)
        reply: Reply = await client.reply()
    assert reply.status == 400
    assert message in reply.error["message"]


async def test_a_content_of_exactly_the_limit_is_fine(fleet: Fleet) -> None:
    async with WireClient(fleet.port) as client:
        client.post(PATH, body=sized("ü" * 500_000))
        assert (await client.reply()).status == 200


async def test_a_stream_of_a_large_prompt_is_resumed_with_the_whole_of_it(
    serve: StartServer, gateway: StartGateway
) -> None:
    """The simulated servers' text is a function of the prompt."""
    first, second = await serve("vllm", seed=7), await serve("vllm", seed=7)
    first.set_fault("close-mid-stream")
    members = [endpoint(first, priority=2), endpoint(second, priority=1)]
    port = (await gateway(fleet_config(members))).port
    fields = chat("A long tale. " * 20_000, stream=True)
    whole = await ask(second.port, PATH, {**fields, "model": second.model})
    assert (await ask(port, PATH, fields)).text == whole.text
    await until(lambda: len(first.completions) == 1)
    messages = second.completions[-1].json["messages"]
    assert messages[:-1] == fields["messages"]
