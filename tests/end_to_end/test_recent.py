"""GET /admin/recent tells of the last requests of all workers, and of nothing that was said in them."""

import asyncio
import os
import signal
from typing import Any

from octoroute.demo import SimulatedServer
from octoroute.observe.request_log import FIELDS
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, fleet_config
from tests.end_to_end.keys import ADMIN, converse_as, get_as, keyed_config
from tests.end_to_end.processes import ended, reload, workers
from tests.end_to_end.wire_client import WireClient, chat, converse, fetch

SECRET = "the-parrot-is-in-the-wardrobe"
# The kernel deals connections out at random: one of two workers has none of so many in 1 of 10 million runs.
MANY = 24


async def recent(gateway: Gateway, query: str = "") -> dict[str, Any]:
    reply = await fetch(gateway.port, f"/admin/recent{query}")
    assert reply.status == 200, reply.body
    return dict(reply.json)


async def until_told(gateway: Gateway, count: int, query: str = "?limit=1000") -> list[dict[str, Any]]:
    """A request is written down after its last byte, so its client may come too early."""
    while len(told := (await recent(gateway, query))["requests"]) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert len(told) == count
    return list(told)


async def burst(gateway: Gateway, count: int, **more: Any) -> None:
    """On connections of their own, so that both workers have some."""
    await asyncio.gather(*(converse(gateway.port, SECRET, **more) for _ in range(count)))


async def two_workers(server: SimulatedServer, gateway: StartGateway, kept: int = 1000) -> Gateway:
    config = fleet_config([server], server={"workers": 2}, observability={"recent_requests": kept})
    return await gateway(config)


async def test_whichever_worker_is_asked_it_tells_of_all_the_newest_first(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await two_workers(await serve("vllm", "qwen"), gateway)
    await burst(one, MANY)
    told = await until_told(one, MANY)
    assert len({entry["request_id"].split("-")[1] for entry in told}) == 2
    assert [entry["time"] for entry in told] == sorted((entry["time"] for entry in told), reverse=True)
    assert tuple(told[0]) == tuple(FIELDS)
    assert {(entry["tier"], entry["endpoint"], entry["status"]) for entry in told} == {("fast", "qwen", 200)}
    for _ in range(6):
        answer = await recent(one, "?limit=5")
        assert answer["workers"] == {"asked": 2, "answered": 2}
        assert answer["requests"] == told[:5]
    assert SECRET not in str(told)
    assert "127.0.0.1" not in str(told)


async def test_it_finds_requests_by_tier_outcome_and_status(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await two_workers(await serve("vllm", "qwen"), gateway)
    await burst(one, 3)
    assert (await converse(one.port, model="deep")).status == 502
    assert (await converse(one.port, model="no such model")).status == 400
    assert (await converse(one.port, temperature=9)).status == 400
    await until_told(one, 3, "?outcome=ok")
    [lost] = await until_told(one, 1, "?tier=deep")
    assert (lost["status"], lost["result"], lost["ttft_ms"]) == (502, "error", None)
    assert await until_told(one, 1, "?outcome=error&status=502") == [lost]
    assert {entry["status"] for entry in (await recent(one, "?tier=none"))["requests"]} <= {400}
    assert (await recent(one, "?tier=balanced"))["requests"] == []
    reply = await fetch(one.port, "/admin/recent?limit=many")
    assert (reply.status, reply.error["param"]) == (400, "limit")


async def test_it_remembers_as_many_as_the_config_says_after_a_reload_too(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "qwen")
    one = await gateway(fleet_config([server], observability={"recent_requests": 3}))
    async with WireClient(one.port) as client:
        for at in range(5):
            client.post("/v1/chat/completions", chat(), headers={"x-request-id": f"r{at}"})
            assert (await client.reply()).status == 200
        told = [entry["request_id"] for entry in (await recent(one))["requests"]]
    assert told == ["r4", "r3", "r2"]
    await reload(one, fleet_config([server], observability={"recent_requests": 2}))
    assert [entry["request_id"] for entry in (await recent(one))["requests"]] == ["r4", "r3"]
    await reload(one, fleet_config([server], observability={"recent_requests": 0}))
    await burst(one, 2)
    assert (await recent(one))["requests"] == []


async def test_a_worker_that_was_killed_takes_its_own_along_and_nobody_waits_for_it(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await two_workers(await serve("vllm", "qwen"), gateway)
    await burst(one, MANY)
    told = await until_told(one, MANY)
    [first, _] = workers(one)
    os.kill(first, signal.SIGKILL)
    await ended(first)
    while len(left := (await recent(one, "?limit=1000"))["requests"]) == MANY:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    assert 0 < len(left) < MANY
    assert [entry for entry in told if entry in left] == left


async def test_it_is_for_admins_and_knows_tenants_by_name_only(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(keyed_config([await serve("vllm", "qwen")], {"name": "team-a"}))
    assert (await converse_as(one.port, "sk-team-a", SECRET)).status == 200
    assert (await converse_as(one.port, ADMIN)).status == 200
    assert (await fetch(one.port, "/admin/recent")).status == 401
    assert (await get_as(one.port, "sk-team-a", "/admin/recent")).status == 403
    told = await get_as(one.port, ADMIN, "/admin/recent?tenant=team-a")
    assert [entry["tenant"] for entry in told.json["requests"]] == ["team-a"]
    assert b"sk-" not in told.body
    assert SECRET.encode() not in told.body


async def test_a_page_of_another_site_steers_nothing(serve: StartServer, gateway: StartGateway) -> None:
    one = await gateway(fleet_config([await serve("vllm", "qwen")]))
    path = "/admin/endpoints/fast/qwen/undrain"
    for headers, status in (
        ({}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://gateway"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example", "sec-fetch-site": "same-origin"}, 200),
    ):
        async with WireClient(one.port) as client:
            client.post(path, body=b"", headers=headers)
            reply = await client.reply()
        assert reply.status == status, headers
        if status == 403:
            assert reply.error["code"] == "other_site"
        # Clients that ask a model server are not asked where they come from.
        async with WireClient(one.port) as client:
            client.post("/v1/chat/completions", chat(), headers=headers)
            assert (await client.reply()).status == 200
