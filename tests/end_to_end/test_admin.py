"""Operators see the fleet and steer it, for all workers, whichever is asked."""

import asyncio
from typing import Any

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, endpoint, fleet_config
from tests.end_to_end.processes import PATH, Held, reload
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat, converse, fetch

TWO = {"workers": 2}


async def status(gateway: Gateway) -> dict[str, Any]:
    reply = await fetch(gateway.port, "/admin/status")
    assert reply.status == 200, reply.body
    return dict(reply.json)


async def fleet(gateway: Gateway, name: str) -> list[dict[str, Any]]:
    return [entry for entry in (await status(gateway))["endpoints"] if entry["name"] == name]


async def steer(gateway: Gateway, what: str, fields: Any = None) -> Reply:
    return await ask(gateway.port, f"/admin/endpoints/{what}", fields)


async def burst(gateway: Gateway, count: int = 24) -> None:
    """Requests on connections of their own: enough for both workers to have some."""
    replies = await asyncio.gather(*(converse(gateway.port, max_tokens=1) for _ in range(count)))
    assert {reply.status for reply in replies} == {200}


def served(*servers: SimulatedServer) -> list[int]:
    return [len(server.completions) for server in servers]


async def test_the_status_tells_of_the_gateway_and_of_every_endpoint(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "qwen3-8b")
    held = Held(server)
    config = fleet_config([endpoint(server, max_in_flight=7, weight=2.0, priority=3)], server=TWO)
    one = await gateway(config)
    running = asyncio.create_task(converse(one.port))
    await server.wait_for(lambda: bool(server.completions))
    told = await status(one)
    assert told["gateway"]["workers"] == 2
    assert told["gateway"]["uptime_seconds"] >= 0
    [entry] = [entry for entry in told["endpoints"] if entry["tier"] == "fast"]
    expected = {"name": "qwen3-8b", "replica": 1, "healthy": True, "draining": False, "priority": 3}
    expected |= {"weight": 2.0, "configured_weight": 2.0, "in_flight": 1, "capacity": 7}
    assert {key: entry[key] for key in expected} == expected
    assert "127.0.0.1" not in str(told)
    held.go.set()
    assert (await running).status == 200
    # It is booked after its last byte, and the other worker may be asked.
    while (told := await status(one))["gateway"]["requests"] < 1:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert told["gateway"]["requests"] == 1
    while sum(entry["in_flight"] for entry in (await status(one))["endpoints"]):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_the_status_tells_of_each_tier_what_became_of_its_requests(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "qwen3-8b")
    rules = {"fast": {"policy": "least_loaded", "fallback": ["deep"]}}
    one = await gateway(fleet_config([server], server=TWO, tiers=rules))
    await burst(one, 6)
    while (tier := (await status(one))["tiers"]["fast"])["requests"]["ok"] < 6:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)
    assert (tier["policy"], tier["fallback"], tier["in_flight"]) == ("least_loaded", ["deep"], 0)
    assert sum(count for _, count in tier["first_token"]) == 6
    assert tier["tokens"]["completion"] > 0
    told = await status(one)
    queue = told["queues"]["fast"]
    assert (queue["waiting"], queue["waited"]) == (0, {"count": 0, "seconds": 0.0})
    assert set(queue["dropped"].values()) == {0}
    # What a whole answer took says nothing about a first token.
    [entry] = await fleet(one, "qwen3-8b")
    assert (entry["ttft_ms"], entry["asleep"]) == (None, False)
    await converse(one.port, stream=True)
    while (await fleet(one, "qwen3-8b"))[0]["ttft_ms"] is None:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_a_drained_endpoint_gets_no_new_request_from_any_worker_and_finishes_what_it_has(
    serve: StartServer, gateway: StartGateway
) -> None:
    goes, stays = await serve("vllm", "org/goes"), await serve("vllm", "stays")
    held = Held(goes)
    one = await gateway(fleet_config([endpoint(goes, priority=2), stays], server=TWO))
    async with WireClient(one.port) as client:
        client.post(PATH, chat(stream=True))
        assert (await client.head()).headers["x-octoroute-endpoint"] == "org/goes"
        # A slash in the name may be written as it is, or as %2F.
        reply = await steer(one, "fast/org/goes/drain")
        assert reply.status == 200
        [entry] = reply.json["endpoints"]
        assert (entry["draining"], entry["in_flight"]) == (True, 1)
        assert "config file" in reply.json["note"]
        await burst(one)
        assert served(goes, stays) == [1, 24]
        held.go.set()
        assert Held.LAST.endswith(b"[DONE]\n\n")
        while await client.data():
            pass
    # To ask for it by its name does not help.
    assert (await converse(one.port, model="org/goes")).status == 503
    assert (await steer(one, "fast/org%2Fgoes/undrain")).json["endpoints"][0]["draining"] is False
    await burst(one)
    assert served(goes, stays) == [25, 24]


async def test_one_of_several_replicas_is_drained_by_its_number(
    serve: StartServer, gateway: StartGateway
) -> None:
    first, second = await serve("vllm", "same"), await serve("vllm", "same")
    one = await gateway(fleet_config([first, second], server=TWO))
    [entry] = (await steer(one, "fast/same/drain?replica=2")).json["endpoints"]
    assert (entry["replica"], entry["draining"]) == (2, True)
    await burst(one)
    assert served(first, second) == [24, 0]
    assert [entry["draining"] for entry in await fleet(one, "same")] == [False, True]
    assert len((await steer(one, "fast/same/drain")).json["endpoints"]) == 2
    assert (await converse(one.port)).status == 503
    assert len((await steer(one, "fast/same/undrain")).json["endpoints"]) == 2
    await burst(one)
    assert min(served(second)) > 0


async def test_a_live_weight_holds_in_all_workers_until_the_file_has_another(
    serve: StartServer, gateway: StartGateway
) -> None:
    light, heavy = await serve("vllm", "light"), await serve("vllm", "heavy")
    # So light that it gets one of 24 requests in fewer than 1 of 10 million runs.
    one = await gateway(fleet_config([endpoint(light, weight=0.001), heavy], server=TWO))
    reply = await steer(one, "fast/heavy/weight", {"weight": 1e6})
    [entry] = reply.json["endpoints"]
    assert (entry["weight"], entry["configured_weight"]) == (1e6, 1.0)
    await burst(one)
    assert served(light, heavy) == [0, 24]
    # Another change of the file leaves it.
    assert (await reload(one, fleet_config([endpoint(light, weight=3.0), heavy], server=TWO))).status == 200
    assert [entry["weight"] for entry in await fleet(one, "heavy")] == [1e6]
    await reload(one, fleet_config([light, endpoint(heavy, weight=2.0)], server=TWO))
    assert [entry["weight"] for entry in await fleet(one, "heavy")] == [2.0]
    await reload(one, fleet_config([light, heavy], server=TWO))
    assert [entry["weight"] for entry in await fleet(one, "heavy")] == [1.0]
    await steer(one, "fast/heavy/weight", {"weight": 5})
    [entry] = (await steer(one, "fast/heavy/weight", {"weight": None})).json["endpoints"]
    assert entry["weight"] == 1.0


async def test_a_drain_outlives_reloads_that_keep_the_endpoint(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "here")
    one = await gateway(fleet_config([server]))
    await steer(one, "fast/here/drain")
    await reload(one, fleet_config([endpoint(server, weight=2.0)]))
    assert [entry["draining"] for entry in await fleet(one, "here")] == [True]


REFUSED: tuple[tuple[str, Any, int, str], ...] = (
    (
        "fast/nobody/drain",
        None,
        404,
        "there is no endpoint 'nobody' in tier fast; the endpoints are: fast/here",
    ),
    ("deep/here/drain", None, 404, "there is no endpoint 'here' in tier deep"),
    ("slow/here/drain", None, 404, "no such tier"),
    ("fast/here/drain?replica=2", None, 404, "fast/here has no replica 2; it has 1"),
    ("fast/here/drain?replica=0", None, 400, "replica must be a whole number from 1"),
    ("fast/here/drain?repilca=1", None, 400, "only replica is known here"),
    ("fast/here/weight", {"weight": 0}, 400, "weight must be a number above 0"),
    ("fast/here/weight", {}, 400, "weight is missing"),
    ("fast/here/weight", [], 400, "must be a JSON object"),
    ("fast/here/stop", None, 404, "there is no route"),
    ("fast", None, 404, "there is no route"),
)


async def test_what_can_not_be_done_is_said_and_changes_nothing(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(fleet_config([await serve("vllm", "here")]))
    for what, fields, code, says in REFUSED:
        reply = await steer(one, what, fields)
        assert reply.status == code
        assert says in reply.error["message"]
    [entry] = await fleet(one, "here")
    assert (entry["draining"], entry["weight"]) == (False, 1.0)
    reply = await fetch(one.port, "/admin/endpoints/fast/here/drain")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
