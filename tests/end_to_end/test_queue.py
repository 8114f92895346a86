"""Requests that find every server full wait for a place, and what becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from octoroute.demo import Request, SimulatedServer, Step
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import STOP_SECONDS, Gateway, endpoint, fleet_config
from tests.end_to_end.processes import PATH, Held, Stream, refuses, reload, until, worker_of
from tests.end_to_end.test_observability import scrape
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat, converse, fetch

WHOLE = Held.FIRST + Held.LAST


async def waiting(port: int, count: int) -> None:
    """Returns when so many wait."""
    while True:
        queues = (await fetch(port, "/admin/status")).json["queues"]
        if queues["fast"]["waiting"] == count:
            return


def texts(server: SimulatedServer) -> list[str]:
    """What was asked of a server, in the order in which it came there."""
    return [request.json["messages"][-1]["content"] for request in server.completions]


async def lined_up(gateway: Gateway, count: int, **fields: Any) -> list[asyncio.Task[Reply]]:
    """So many requests, `0`, `1` and on, that wait one behind the other."""
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(converse(gateway.port, str(number), **fields)))
        await waiting(gateway.port, number + 1)
    return tasks


class Counting:
    """Script of a server that counts how many requests it has at a time at most."""

    def __init__(self, server: SimulatedServer) -> None:
        self.now = self.most = 0
        self.plain = Held(server)
        self.plain.go.set()
        server.script(self.play)

    async def play(self, request: Request) -> AsyncIterator[Step]:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)
        async for step in self.plain.play(request):
            yield step
        self.now -= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_burst_of_many_times_what_fits_is_served_whole_and_never_more_is_sent_than_fits(
    serve: StartServer, gateway: StartGateway, stream: bool
) -> None:
    servers = [await serve("llama_cpp", f"model-{at}", slots=2) for at in range(2)]
    counts = [Counting(server) for server in servers]
    once = {"cancel_plain": False}
    one = await gateway(fleet_config([endpoint(each, max_in_flight=2) for each in servers], recovery=once))
    replies = await asyncio.gather(*(converse(one.port, stream=stream) for _ in range(60)))
    assert {reply.status for reply in replies} == {200}
    assert [count.most for count in counts] == [2, 2]
    assert sum(len(server.completions) for server in servers) == 60


async def test_who_came_first_is_served_first_and_a_stream_holds_its_place_to_its_end(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)]))
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.port)
        tasks = await lined_up(one, 5)
        assert len(server.completions) == 1
        held.go.set()
        assert await stream.rest() == WHOLE
        replies = await asyncio.gather(*tasks)
    assert {reply.status for reply in replies} == {200}
    assert texts(server)[1:] == ["0", "1", "2", "3", "4"]
    # The wait is no work of the gateway's.
    assert max(float(reply.headers["x-octoroute-overhead-ms"]) for reply in replies) < 1000
    counts = await scrape(one.port)
    assert counts["octoroute_queue_wait_seconds_count{tier=fast}"] == 5
    assert counts["octoroute_queue_waiting{tier=fast}"] == 0


async def test_important_requests_go_first(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = await gateway(
        fleet_config([endpoint(server, max_in_flight=1)], routing={"default_importance": "low"})
    )
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        tasks = await lined_up(one, 2)
        client = await stack.enter_async_context(WireClient(one.port))
        client.post(PATH, chat("urgent"), headers={"X-Octoroute-Importance": "high"})
        await waiting(one.port, 3)
        held.go.set()
        assert (await client.reply()).status == 200
        await asyncio.gather(*tasks)
    assert texts(server)[1:] == ["urgent", "0", "1"]


async def test_a_client_that_leaves_while_it_waits_is_out_at_once(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)], queue={"max_waiting": 2}))
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        async with WireClient(one.port) as client:
            client.post(PATH, chat("gone"))
            await waiting(one.port, 1)
        await waiting(one.port, 0)
        tasks = await lined_up(one, 2)
        held.go.set()
        assert [reply.status for reply in await asyncio.gather(*tasks)] == [200, 200]
    assert texts(server)[1:] == ["0", "1"]
    assert (await scrape(one.port))["octoroute_queue_dropped_total{reason=client_gone,tier=fast}"] == 1


@pytest.mark.parametrize(
    ("bounds", "reason"),
    [
        ({"max_waiting": 1}, "max_waiting"),
        ({"max_waiting_bytes": 110}, "max_waiting_bytes"),
        ({"max_waiting": 0}, "max_waiting"),
    ],
)
async def test_what_is_beyond_the_bounds_gets_429_and_when_to_come_again(
    serve: StartServer, gateway: StartGateway, bounds: dict[str, int], reason: str
) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)], queue=bounds))
    room = 1 if bounds.get("max_waiting") != 0 else 0
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        tasks = await lined_up(one, room)
        refused = await converse(one.port)
        assert (refused.status, refused.error["code"]) == (429, "overloaded")
        assert refused.error["message"] == "every endpoint of tier fast is busy, and too many requests wait"
        assert int(refused.headers["retry-after"]) >= 1
        held.go.set()
        assert [reply.status for reply in await asyncio.gather(*tasks)] == [200] * room
    assert (await scrape(one.port))[f"octoroute_queue_dropped_total{{reason={reason},tier=fast}}"] == 1


async def test_who_has_waited_too_long_gets_429(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm")
    Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)], queue={"max_wait_seconds": 0.1}))
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        reply = await converse(one.port)
        assert (reply.status, int(reply.headers["retry-after"])) == (429, 1)
        assert (
            reply.error["message"] == "every endpoint of tier fast is busy, and no place became free in time"
        )
    counts = await scrape(one.port)
    assert counts["octoroute_queue_dropped_total{reason=max_wait_seconds,tier=fast}"] == 1


async def test_who_waits_for_one_endpoint_holds_up_nobody_else(
    serve: StartServer, gateway: StartGateway
) -> None:
    busy, idle = await serve("vllm", "busy"), await serve("vllm", "idle")
    held = Held(busy)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1) for server in (busy, idle)]))
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port, "busy")
        tasks = await lined_up(one, 2, model="busy")
        for _ in range(5):
            assert (await converse(one.port)).json_model() == "idle"
        held.go.set()
        assert [reply.status for reply in await asyncio.gather(*tasks)] == [200, 200]


async def test_a_request_whose_server_failed_waits_for_the_one_that_is_full(
    serve: StartServer, gateway: StartGateway
) -> None:
    busy, failing = await serve("vllm", "busy"), await serve("vllm", "failing", fault="status-500")
    held = Held(busy)
    one = await gateway(
        fleet_config(
            [endpoint(busy, max_in_flight=1), endpoint(failing, max_in_flight=1)], health={"failures": 1000}
        )
    )
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port, "busy")
        tasks = await lined_up(one, 3)
        assert len(failing.completions) == 3
        held.go.set()
        assert [reply.status for reply in await asyncio.gather(*tasks)] == [200] * 3
    assert texts(busy)[1:] == ["0", "1", "2"]


async def test_those_that_nobody_can_answer_any_more_are_told(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)]))
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        tasks = await lined_up(one, 2)
        await ask(one.port, f"/admin/endpoints/fast/{server.model}/drain")
        replies = await asyncio.gather(*tasks)
    assert [(reply.status, reply.error["code"]) for reply in replies] == [(503, "no_endpoint_available")] * 2


async def test_a_server_that_a_reload_brings_takes_those_that_wait(
    serve: StartServer, gateway: StartGateway
) -> None:
    server, other = await serve("vllm", "old"), await serve("vllm", "new")
    held = Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)]))
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.port)
        tasks = await lined_up(one, 4)
        config = fleet_config([endpoint(each, max_in_flight=1) for each in (server, other)])
        assert (await reload(one, config)).status == 200
        assert [reply.json_model() for reply in await asyncio.gather(*tasks)] == ["new"] * 4
        held.go.set()
        assert await stream.rest() == WHOLE


async def test_a_higher_limit_takes_effect_for_those_that_wait(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)]))
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        tasks = await lined_up(one, 3)
        assert (await reload(one, fleet_config([endpoint(server, max_in_flight=3)]))).status == 200
        await until(lambda: len(server.completions) == 3)
        await waiting(one.port, 1)
        held.go.set()
        assert [reply.status for reply in await asyncio.gather(*tasks)] == [200] * 3


async def test_those_that_wait_are_served_while_the_gateway_drains(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    held = Held(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=1)]))
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.port)
        tasks = await lined_up(one, 3)
        one.process.terminate()
        await refuses(one.port)
        held.go.set()
        assert await stream.rest() == WHOLE
        assert [reply.status for reply in await asyncio.gather(*tasks)] == [200] * 3
        assert await asyncio.to_thread(one.process.wait, STOP_SECONDS) == 0


async def test_two_workers_share_the_places_of_a_server(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm")
    count = Counting(server)
    one = await gateway(fleet_config([endpoint(server, max_in_flight=2)], server={"workers": 2}))
    replies = await asyncio.gather(*(converse(one.port) for _ in range(40)))
    assert {reply.status for reply in replies} == {200}
    assert count.most == 2


async def test_a_question_for_the_tier_waits_for_a_place_too(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    other = await serve("vllm", "other")
    held = Held(server)
    one = await gateway(
        fleet_config(
            [endpoint(server, max_in_flight=1)],
            [other],
            routing={"strategy": "llm", "router_tier": "fast"},
        )
    )
    async with AsyncExitStack() as stack:
        await Stream.open(stack, one.port)
        tasks = await lined_up(one, 1, model="auto")
        server.script(answer_balanced)
        held.go.set()
        assert [reply.json_model() for reply in await asyncio.gather(*tasks)] == ["other"]


async def answer_balanced(request: Request) -> AsyncIterator[Step]:  # noqa: ARG001
    body = b'{"choices":[{"index":0,"message":{"role":"assistant","content":"BALANCED"}}]}'
    yield (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )


async def test_who_finds_a_place_that_those_who_wait_can_t_use_has_not_waited(
    serve: StartServer, gateway: StartGateway
) -> None:
    busy, free = await serve("vllm", "busy"), await serve("vllm", "free")
    held = Held(busy)
    one = await gateway(fleet_config([endpoint(busy, max_in_flight=1, priority=2), free]))
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.port)
        tasks = await lined_up(one, 1, model="busy")
        reply = await converse(one.port)
        assert reply.headers["x-octoroute-endpoint"] == "free"
        assert 0 <= float(reply.headers["x-octoroute-overhead-ms"]) < 1000
        held.go.set()
        assert await stream.rest() == WHOLE
        await asyncio.gather(*tasks)


async def test_a_llama_cpp_under_several_names_gets_no_more_than_it_has_slots(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("llama_cpp", slots=2)
    counting = Counting(server)
    fast, balanced, deep = (
        [endpoint(server, name=name, model=server.model) for name in names] for names in ("ab", "c", "d")
    )
    workers = {"workers": 2}
    health = {"load_interval_seconds": 1.0}
    one = await gateway(fleet_config(fast, balanced, deep, server=workers, health=health))
    while True:
        told = (await fetch(one.port, "/admin/status")).json["endpoints"]
        if {each["capacity"] for each in told} == {2}:
            break
        await asyncio.sleep(0.02)
    models = ["a", "b", "balanced", "deep", "fast"]
    replies = await asyncio.gather(*(converse(one.port, model=models[at % 5]) for at in range(60)))
    assert {reply.status for reply in replies} == {200}
    assert counting.most == 2


async def test_a_place_that_one_worker_gives_back_is_for_those_that_wait_in_another(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")
    held = Held(server)
    config = fleet_config([endpoint(server, max_in_flight=1)], server={"workers": 2})
    one = await gateway(config)
    async with AsyncExitStack() as stack:
        first = await Stream.open(stack, one.port)
        while True:
            waits = await stack.enter_async_context(WireClient(one.port))
            waits.get("/health")
            if worker_of(await waits.reply()) != first.worker:
                break
        waits.post(PATH, chat(stream=True))
        await waiting(one.port, 1)
        held.go.set()
        assert await first.rest() == WHOLE
        assert (await waits.head()).status == 200
        assert await waits.data_of(len(WHOLE)) == WHOLE
