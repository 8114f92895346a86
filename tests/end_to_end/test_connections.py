"""Connections to servers are used again where that is safe, and nobody notices when it was not."""

import asyncio
from contextlib import suppress

import orjson
import pytest

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config, full_port
from tests.end_to_end.test_observability import scrape_until
from tests.end_to_end.wire_client import WireClient, chat, converse

PATH = "/v1/chat/completions"
PROBE_CONNECTIONS = 1


async def test_a_hundred_streams_in_a_row_through_a_server_that_closes_after_each(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("llama_cpp")
    port = (await gateway(fleet_config([server], retry={"attempts": 1}))).port
    async with WireClient(port) as client:
        for number in range(100):
            client.post(PATH, chat(f"hello {number}", stream=True))
            reply = await client.reply()
            assert (reply.status, reply.events[-1]) == (200, "[DONE]")
    assert len(server.completions) == 100


async def test_a_hundred_streams_at_the_same_time(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("llama_cpp", slots=100)
    port = (await gateway(fleet_config([server], retry={"attempts": 1}))).port
    replies = await asyncio.gather(*(converse(port, f"hello {at}", stream=True) for at in range(100)))
    assert [reply.status for reply in replies] == [200] * 100
    assert all(reply.events[-1] == "[DONE]" for reply in replies)


async def test_streams_and_plain_requests_in_turn(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("llama_cpp")
    port = (await gateway(fleet_config([server], retry={"attempts": 1}))).port
    async with WireClient(port) as client:
        for number in range(20):
            client.post(PATH, chat(stream=number % 2 == 0))
            assert (await client.reply()).status == 200


async def test_a_server_that_keeps_connections_gets_its_streams_on_one(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    # Of the gateway's own questions there is one, the first probe.
    unasked = {"interval_seconds": 3600.0, "load_interval_seconds": 0}
    port = (await gateway(fleet_config([server], health=unasked))).port
    # That the server keeps them has to be learnt first.
    while (
        len({request.connection for request in server.completions[-2:]}) != 1 or len(server.completions) < 2
    ):
        await converse(port, stream=True)
    before = server.connections.total
    for number in range(20):
        assert (await converse(port, stream=number % 2 == 0)).status == 200
    assert server.connections.total <= before + PROBE_CONNECTIONS


async def test_no_connection_is_used_after_it_carried_a_stream_of_a_server_that_closes(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("llama_cpp")
    port = (await gateway(fleet_config([server]))).port
    for _ in range(10):
        await converse(port, stream=True)
    used = [request.connection for request in server.completions]
    assert len(set(used)) == len(used) == 10


async def test_connections_that_the_server_closed_when_idle_are_not_used(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", idle_seconds=0.05)
    port = (await gateway(fleet_config([server], retry={"attempts": 1}))).port
    for _ in range(5):
        assert (await converse(port)).status == 200
        await server.wait_for(lambda: server.connections.open == 0)


async def test_a_reused_connection_that_dies_is_replaced_unseen(
    serve: StartServer, gateway: StartGateway
) -> None:
    server, other = await serve("vllm"), await serve("vllm", "other")
    config = fleet_config([endpoint(server, priority=2), other], health={"failures": 1})
    port = (await gateway(config)).port
    server.set_fault("closes-idle")
    for number in range(10):
        assert (await converse(port, stream=number % 2 == 0)).json_model() == server.model
    assert any(request.fault for request in server.completions)
    assert len(other.completions) == 0


async def test_answers_of_a_connection_never_reach_another_request(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    port = (await gateway(fleet_config([server]))).port
    server.set_fault("bytes-after-end")
    for number in range(6):
        reply = await converse(port, f"hello {number}", stream=number % 2 == 0)
        assert b"evil" not in reply.body
        assert reply.json_model() == server.model


async def test_a_connection_that_a_client_left_is_not_used_again(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", tokens_per_second=50)
    port = (await gateway(fleet_config([server]))).port
    async with WireClient(port) as client:
        client.post(PATH, chat("first", stream=True))
        await client.head()
    await server.wait_for(lambda: server.completions[0].left_at is not None)
    server.engine.tokens_per_second = 1e6
    reply = await converse(port, "second")
    assert reply.json_model() == server.model
    first, second = server.completions
    assert first.connection != second.connection


async def test_a_client_may_send_the_next_request_before_the_answer(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    port = (await gateway(fleet_config([server]))).port
    request = b'{"model":"fast","messages":[{"role":"user","content":"hi"}],"max_tokens":1}'
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    async with WireClient(port) as client:
        first = head % (PATH.encode(), len(request), b"") + request
        last = head % (PATH.encode(), len(request), b"Connection: close\r\n") + request
        client.send_raw(first + last)
        answers = await client.read_raw()
    assert answers.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize("characters", [10, 3_000_000], ids=["in one write", "in many"])
async def test_a_server_that_takes_its_time_to_accept_gets_the_request_whole(
    serve: StartServer, gateway: StartGateway, characters: int
) -> None:
    """Its backlog is full when it is asked, and has room a moment later."""
    spare = await serve("vllm")
    bodies: asyncio.Queue[bytes] = asyncio.Queue()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            bodies.put_nowait(await reader.readexactly(length))
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"late":true}')
        writer.close()

    with full_port() as (full, only, base_url):
        late = endpoint(spare, base_url=base_url)
        one = await gateway(
            fleet_config(
                [late],
                server={"max_content_chars": 4_000_000},
                health={"interval_seconds": 3600.0},
                timeouts={"connect_seconds": 60.0},
            )
        )
        async with WireClient(one.port) as client:
            client.post(PATH, chat("x" * characters))
            await scrape_until(one.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 1)
            only.close()
            async with await asyncio.start_server(accepted, sock=full, limit=1 << 20):
                assert (await client.reply()).status == 200
        assert orjson.loads(await bodies.get())["messages"][0]["content"] == "x" * characters


async def test_a_server_named_by_its_host_is_reached_at_the_address_that_takes_connections(
    serve: StartServer, gateway: StartGateway
) -> None:
    # It listens on 127.0.0.1 only; where the name stands for ::1 too, that refuses.
    server = await serve("vllm")
    named = endpoint(server, base_url=f"http://localhost:{server.port}/v1")
    port = (await gateway(fleet_config([named], retry={"attempts": 1}))).port
    replies = [await converse(port, stream=stream) for stream in (False, True, True)]
    assert [reply.status for reply in replies] == [200] * 3
    assert len({reply.text for reply in replies}) == 1


async def test_a_server_whose_host_has_no_address_is_tried_in_vain(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    named = endpoint(server, base_url="http://no-such-host.invalid:1234/v1")
    port = (await gateway(fleet_config([named], retry={"attempts": 1}))).port
    reply = await converse(port)
    assert reply.status == 502
    assert "no-such-host" not in reply.error["message"]
