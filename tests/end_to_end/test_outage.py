"""Servers that are away for a moment, all of them or one after the other, as when they are started again."""

import asyncio
import os
import signal

import pytest

from octoroute.demo import SimulatedServer
from octoroute.demo.answers import prompt_of_messages
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config, full_port
from tests.end_to_end.processes import until, workers
from tests.end_to_end.wire_client import ask, chat, converse

CHAT = "/v1/chat/completions"
TEXT = prompt_of_messages([{"role": "user", "content": "hello"}])
SAID = b'{"choices":[{"message":{"content":"yes"}}]}'
FIRST = {"failures": 1}  # makes unhealthy; only a probe finds out that it is well again


async def _pair(serve: StartServer) -> tuple[SimulatedServer, SimulatedServer]:
    return await serve("vllm", "same"), await serve("vllm", "same")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_request_waits_where_the_last_healthy_server_has_just_failed(
    serve: StartServer, gateway: StartGateway, stream: bool
) -> None:
    servers = await _pair(serve)
    port = (await gateway(fleet_config(servers, health=FIRST))).port
    for server in servers:
        server.set_fault("reset-before-head", once=True)
    replies = await asyncio.gather(*(converse(port, stream=stream) for _ in range(4)))
    assert [(reply.status, reply.text) for reply in replies] == [(200, servers[0].text(TEXT))] * 4


async def test_a_stream_waits_for_a_server_that_recovers(serve: StartServer, gateway: StartGateway) -> None:
    broken, other = await _pair(serve)
    config = fleet_config([broken, endpoint(other, priority=2)], health=FIRST)
    port = (await gateway(config)).port
    other.set_fault("reset-before-head", once=True)
    broken.set_fault("close-mid-stream", once=True)
    reply = await converse(port, stream=True)
    assert (reply.text, reply.events[-1], reply.ended) == (broken.text(TEXT), "[DONE]", True)
    assert other.completions[-1].json["continue_final_message"]


async def test_a_stalled_stream_goes_on_where_it_was_if_nobody_relieves_it(
    serve: StartServer, gateway: StartGateway
) -> None:
    away, slow = await _pair(serve)
    away.set_fault("refuse")
    slow.set_fault("stall-mid-stream", once=True)
    # It is not known yet that the other one is away.
    health, recovery = {"failures": 1000}, {"stall_seconds": 0.3}
    config = fleet_config([away, endpoint(slow, priority=2)], health=health, recovery=recovery)
    reply = await converse((await gateway(config)).port, stream=True)
    assert (reply.text, reply.events[-1], reply.ended) == (slow.text(TEXT), "[DONE]", True)
    assert slow.completions[-1].json["continue_final_message"]


async def test_a_stream_does_not_go_to_and_fro_between_servers_that_are_slow(
    serve: StartServer, gateway: StartGateway
) -> None:
    servers = [await serve("vllm", "same", tokens_per_second=4) for _ in range(2)]
    port = (await gateway(fleet_config(servers, recovery={"stall_seconds": 0.1}))).port
    reply = await ask(port, CHAT, chat("hello", stream=True, max_tokens=14))
    assert (reply.events[-1], reply.ended) == ("[DONE]", True)
    assert servers[0].text(TEXT).startswith(reply.text)
    assert sum(len(server.completions) for server in servers) < 6


async def test_servers_that_stay_away_are_told_honestly_and_found_again(
    serve: StartServer, gateway: StartGateway
) -> None:
    servers = await _pair(serve)
    one = await gateway(fleet_config(servers, health=FIRST))
    for server in servers:
        server.set_fault("refuse")
    replies = [await converse(one.port, stream=True) for _ in range(4)]
    # The first one may find it out by itself, and the second where a probe of before was answered late.
    assert {reply.status for reply in replies[:2]} <= {502, 503}
    assert [reply.status for reply in replies[2:]] == [503] * 2
    assert [reply.headers["retry-after"] for reply in replies] == ["1"] * 4
    for server in servers:
        server.set_fault(None)
    await until(lambda: "it works again" in one.log)
    assert (await converse(one.port)).status == 200


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_gateway_that_stood_still_blames_no_server_for_it(
    serve: StartServer, gateway: StartGateway, stream: bool
) -> None:
    server, other = await _pair(serve)
    config = fleet_config([endpoint(server, priority=2), other], timeouts={"fast": 1.0}, health=FIRST)
    one = await gateway(config)
    go = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n"
    answer = b'data: {"choices":[{"delta":{"content":"yes"}}]}\n\n' if stream else SAID
    of_kind = b"text/event-stream" if stream else b"application/json"
    server.script(lambda _: [go, head % (of_kind, len(answer)) + answer])
    asked = asyncio.create_task(converse(one.port, stream=stream))
    await server.wait_for(lambda: bool(server.completions))
    (worker,) = workers(one)
    os.kill(worker, signal.SIGSTOP)
    await asyncio.sleep(1.5)  # the gateway's clock goes on
    os.kill(worker, signal.SIGCONT)
    await asyncio.sleep(0.3)  # so do its ticks
    go.set()
    assert (await asked).text == "yes"
    assert not other.completions


async def test_a_server_that_takes_no_connections_is_passed_over(
    serve: StartServer, gateway: StartGateway
) -> None:
    other = await serve("vllm")
    with full_port() as (_, _, base_url):
        config = fleet_config(
            [endpoint(other, base_url=base_url, priority=2), other], timeouts={"connect_seconds": 0.5}
        )
        one = await gateway(config)
        for stream in (False, True):
            assert (await converse(one.port, stream=stream)).text == other.text(TEXT)
        await until(lambda: "connect" in one.log)


async def test_a_server_that_is_silent_does_not_hold_up_the_probes_of_others(
    serve: StartServer, gateway: StartGateway
) -> None:
    asked = []
    silent = await asyncio.start_server(lambda *connection: asked.append(connection), "127.0.0.1")
    base_url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1"
    other = await serve("vllm")
    config = fleet_config(
        [endpoint(other, name="silent", base_url=base_url), other],
        health={"interval_seconds": 0.2, "timeout_seconds": 300.0, "load_interval_seconds": 0},
    )
    await gateway(config)
    seen = len(other.requests)
    await other.wait_for(lambda: bool(asked) and len(other.requests) >= seen + 3)
    assert len(asked) == 1
    for _, writer in asked:
        writer.close()
    silent.close()
