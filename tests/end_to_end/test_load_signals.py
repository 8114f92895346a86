"""What servers say of their load reaches every worker's picks, and asking harms no server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config
from tests.end_to_end.wire_client import WireClient, ask, chat, converse, fetch

EVERY_SECOND = {"load_interval_seconds": 1.0}
BY_LOAD = {"fast": {"policy": "least_loaded"}}


async def loads(port: int) -> dict[str, dict[str, Any] | None]:
    reply = await fetch(port, "/admin/status")
    return {entry["name"]: entry["load"] for entry in reply.json["endpoints"]}


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """For what the gateway finds out by polling."""
    while not await holds():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def asked(server: SimulatedServer, path: str) -> list[float]:
    return [request.arrived_at for request in list(server.requests) if request.target == path]


def once_a_second(times: list[float]) -> bool:
    """Each may have been seen late, and the next not."""
    return times[-1] - times[0] > len(times) - 1.5


async def test_a_server_that_others_keep_busy_is_not_the_least_loaded(
    serve: StartServer, gateway: StartGateway
) -> None:
    for kind in ("llama_cpp", "vllm"):
        busy = await serve(kind, f"busy-{kind}", prefill_seconds=60.0)
        quiet = await serve(kind, f"quiet-{kind}")
        one = await gateway(
            fleet_config([busy, quiet], health=EVERY_SECOND, tiers=BY_LOAD, server={"workers": 2})
        )
        async with WireClient(busy.port) as stranger:
            stranger.post("/v1/chat/completions", chat(model=busy.model))

            async def told(port: int = one.port, name: str = busy.model) -> bool:
                load = (await loads(port))[name]
                return load is not None and load["running"] == 1

            await until(told)

            async def passed_over(port: int = one.port, name: str = quiet.model) -> bool:
                # The busy one does not answer for a minute.
                try:
                    async with asyncio.timeout(2.0):
                        replies = [await converse(port) for _ in range(12)]
                except TimeoutError:
                    return False
                return {reply.headers["x-octoroute-endpoint"] for reply in replies} == {name}

            await until(passed_over)  # each worker looks at the clock once a second


async def test_a_vllm_that_sleeps_gets_nothing_until_it_is_awake_and_is_no_less_healthy(
    serve: StartServer, gateway: StartGateway
) -> None:
    sleeper, other = await serve("vllm", "sleeper"), await serve("vllm", "other")
    sleeper.engine.sleep()
    one = await gateway(fleet_config([sleeper, other], health=EVERY_SECOND))

    async def asleep() -> bool:
        return b'signal="asleep",tier="fast"} 1.0' in (await fetch(one.port, "/metrics")).body

    await until(asleep)
    assert {(await converse(one.port)).headers["x-octoroute-endpoint"] for _ in range(12)} == {"other"}
    assert (
        b'octoroute_endpoint_up{endpoint="sleeper",tier="fast"} 1.0'
        in (await fetch(one.port, "/metrics")).body
    )
    sleeper.engine.wake()

    async def answers() -> bool:
        return (await converse(one.port)).headers["x-octoroute-endpoint"] == "sleeper"

    await until(answers)
    assert "sleeper, healthy, 0 in flight> is asleep and gets no requests" in one.log
    assert "is awake again" in one.log


async def test_a_llama_cpp_that_sleeps_is_not_woken_by_being_asked(
    serve: StartServer, gateway: StartGateway
) -> None:
    sleeper, other = await serve("llama_cpp", "sleeper"), await serve("llama_cpp", "other")
    sleeper.engine.sleep()
    one = await gateway(fleet_config([sleeper, other], health=EVERY_SECOND, tiers=BY_LOAD))
    await sleeper.wait_for(lambda: len(asked(sleeper, "/props")) >= 2)
    assert asked(sleeper, "/slots") == []
    assert sleeper.engine.asleep
    await other.wait_for(lambda: len(asked(other, "/slots")) >= 3)
    assert once_a_second(asked(other, "/slots"))
    assert {(await converse(one.port)).headers["x-octoroute-endpoint"] for _ in range(8)} == {"other"}
    # But it is there when it is needed, and awake from then on.
    await ask(one.port, "/admin/endpoints/fast/other/drain")
    assert (await converse(one.port)).headers["x-octoroute-endpoint"] == "sleeper"
    await sleeper.wait_for(lambda: len(asked(sleeper, "/slots")) >= 1)


async def test_no_server_is_asked_for_its_load_when_that_is_off(
    serve: StartServer, gateway: StartGateway
) -> None:
    servers = [await serve("llama_cpp", "one"), await serve("vllm", "two")]
    one = await gateway(fleet_config(servers, health={"load_interval_seconds": 0.0, "interval_seconds": 0.5}))
    for server in servers:
        await server.wait_for(lambda server=server: len(asked(server, "/v1/models")) >= 3)  # type: ignore[misc]
        assert {request.target for request in server.requests} == {"/v1/models"}
    assert (await loads(one.port))["one"] is None


async def test_one_server_with_two_names_is_asked_once_for_both(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("llama_cpp", "one")
    one = await gateway(fleet_config([server], [server], health=EVERY_SECOND).replace("one", "other", 1))

    async def both() -> bool:
        return all(load is not None for name, load in (await loads(one.port)).items() if "nobody" not in name)

    await until(both)
    await server.wait_for(lambda: len(asked(server, "/slots")) >= 3)
    assert once_a_second(asked(server, "/slots"))


async def test_a_llama_cpp_gets_no_more_requests_than_it_has_slots_and_the_rest_waits_in_the_gateway(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("llama_cpp", slots=2, prefill_seconds=60.0)
    one = await gateway(fleet_config([server], health=EVERY_SECOND))

    async def told() -> bool:
        endpoints = (await fetch(one.port, "/admin/status")).json["endpoints"]
        return [entry["capacity"] for entry in endpoints if entry["tier"] == "fast"] == [2]

    async def waits() -> bool:
        return bool((await fetch(one.port, "/admin/status")).json["queues"]["fast"]["waiting"] == 3)

    await until(told)
    asking = [asyncio.create_task(converse(one.port)) for _ in range(5)]
    await until(waits)
    await server.wait_for(lambda: len(server.completions) == 2)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
