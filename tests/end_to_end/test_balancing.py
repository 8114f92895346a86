"""Policies over real sockets: several workers, conversations, sessions, a server that hangs."""

import asyncio
from typing import Any

import pytest

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.wire_client import WireClient, ask, chat, fetch

PATH = "/v1/chat/completions"
# The ring goes by base URLs, so by ports, which differ from run to run: with as many conversations, one of
# three servers is left out in fewer than 1 of 10 million runs (3 x (2/3)^48).
CONVERSATIONS = 48


async def three(serve: StartServer) -> list[SimulatedServer]:
    return [await serve("llama_cpp", f"model-{at}", seed=at) for at in range(3)]


def answered(servers: list[SimulatedServer]) -> list[int]:
    return [len(server.completions) for server in servers]


async def counted(port: int, name: str) -> dict[str, float]:
    text = (await fetch(port, "/metrics")).body.decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(name)]
    return {series.removeprefix(name): float(value) for series, _, value in lines}


async def idle(port: int) -> None:
    """Returns when no request holds a place. One that another worker has just answered may for a moment, and
    with two its server is over its bound.
    """
    while (await counted(port, "octoroute_in_flight"))['{tier="fast"}'] > 0:  # noqa: ASYNC110
        await asyncio.sleep(0.002)


@pytest.mark.parametrize("workers", [1, 2])
async def test_each_conversation_stays_on_one_server_and_all_servers_have_some(
    serve: StartServer, gateway: StartGateway, workers: int
) -> None:
    servers = await three(serve)
    one = await gateway(
        fleet_config(
            servers,
            tiers={"fast": {"policy": "prefix_affinity"}},
            server={"workers": workers},
            # A request that comes while its server is asked for its load, and is over by then, seems to be
            # somebody else's until it is asked again.
            health={"load_interval_seconds": 0},
        )
    )
    places: list[set[str]] = []
    for number in range(CONVERSATIONS):
        messages: list[dict[str, Any]] = [{"role": "system", "content": "You are brief. " * 100}]
        places.append(set())
        for turn in range(3):
            messages.append({"role": "user", "content": f"Question {turn} of conversation {number}"})
            # A connection each, so that any worker may take it.
            reply = await ask(one.port, PATH, {"model": "fast", "messages": messages})
            await idle(one.port)
            places[-1].add(reply.headers["x-octoroute-endpoint"])
            messages.append({"role": "assistant", "content": reply.text})
    assert [len(place) for place in places] == [1] * CONVERSATIONS
    assert all(answered(servers))

    choices: dict[str, float] = {}
    while sum(choices.values()) < 3 * CONVERSATIONS:  # booked about once a second, by each worker
        await asyncio.sleep(0.1)
        choices = await counted(one.port, "octoroute_affinity_choices_total")
    assert choices['{choice="ring",tier="fast"}'] == CONVERSATIONS


async def test_a_session_stays_and_moves_only_when_its_server_is_gone(
    serve: StartServer, gateway: StartGateway
) -> None:
    servers = await three(serve)
    one = await gateway(
        fleet_config(
            [endpoint(server, max_in_flight=4) for server in servers],
            tiers={"fast": {"policy": "session_affinity"}},
        )
    )

    async def place(**fields: Any) -> str:
        body = {"model": "fast", "messages": [{"role": "user", "content": "hi"}], **fields}
        return (await ask(one.port, PATH, body)).headers["x-octoroute-endpoint"]

    home = await place(user="someone")
    assert {await place(user="someone") for _ in range(5)} == {home}
    await ask(one.port, f"/admin/endpoints/fast/{home}/drain")
    away = await place(user="someone")
    assert away != home
    await ask(one.port, f"/admin/endpoints/fast/{home}/undrain")
    assert {await place(user="someone", prompt_cache_key=None) for _ in range(5)} == {away}
    assert len({await place(prompt_cache_key=f"key {at}") for at in range(CONVERSATIONS)}) == 3


@pytest.mark.parametrize("path", [PATH, "/chat"])
async def test_the_header_that_names_a_session_is_for_the_gateway_alone(
    path: str, serve: StartServer, gateway: StartGateway
) -> None:
    servers = await three(serve)
    rules = {"fast": {"policy": "session_affinity"}}
    one = await gateway(fleet_config(servers, tiers=rules))
    fields = chat() if path == PATH else {"message": "hello", "task_type": "casual_chat"}
    for name in ("x-octoroute-session", "X-Octoroute-Session"):
        async with WireClient(one.port) as client:
            for _ in range(6):
                client.post(path, fields, headers={name: "someone's"})
                assert (await client.reply()).status == 200
    assert sorted(answered(servers)) == [0, 0, 12]
    assert "someone" not in str([request.headers for server in servers for request in server.completions])


async def test_the_least_loaded_server_is_not_the_one_that_hangs(
    serve: StartServer, gateway: StartGateway
) -> None:
    slow = await serve("vllm", "slow", prefill_seconds=60.0, slots=8)
    quick = await serve("vllm", "quick")
    one = await gateway(fleet_config([slow, quick], tiers={"fast": {"policy": "least_loaded"}}))
    body = {"model": "fast", "messages": [{"role": "user", "content": "hi"}]}
    hanging = asyncio.ensure_future(ask(one.port, PATH, {**body, "model": "slow"}))
    # Not `active`: a probe under way would do.
    await slow.wait_for(lambda: len(slow.completions) == 1)
    for _ in range(10):
        assert (await ask(one.port, PATH, body)).headers["x-octoroute-endpoint"] == "quick"
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
