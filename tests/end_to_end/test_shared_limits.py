"""Limits of keys that several gateways hold together, by a real Redis: exact while it is there, whatever
becomes of it, of a gateway or of a request.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest_asyncio

from octoroute.demo import SimulatedServer
from octoroute.sharing.inspection import inspect
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway
from tests.end_to_end.keys import ADMIN, CHAT, bearer, converse_as, get_as, keyed_config
from tests.end_to_end.processes import Held, rewrite, workers
from tests.end_to_end.redis import RedisServer, needs_redis
from tests.end_to_end.wire_client import Reply, WireClient, chat

pytestmark = needs_redis

KEY = "sk-team-a"
REACHED = "octoroute_shared_limits_"


@pytest_asyncio.fixture(loop_scope="session")
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    await server.start()
    yield server
    server.kill()


def shared_config(
    model_server: SimulatedServer, redis: RedisServer | str, *keys: dict[str, Any], **more: Any
) -> str:
    url = redis if isinstance(redis, str) else redis.url
    return keyed_config([model_server], *keys, shared={"redis_url": url} if url else {}, **more)


async def shared_limits(one: Gateway) -> dict[str, Any]:
    told: dict[str, Any] = (await get_as(one.port, ADMIN, "/admin/status")).json["shared_limits"]
    return told


async def found(
    *gateways: Gateway, redis: str = "up", count: int | None = None, workers_away: int | None = None
) -> None:
    """Returns when Redis is so for all of them, and they know of each other."""
    for one in gateways:
        while True:
            told = await shared_limits(one)
            known = count in (None, told["gateways"]) and workers_away in (None, told["workers_away"])
            if told["redis"] == redis and known:
                break
            await asyncio.sleep(0.02)


async def statuses(gateways: list[Gateway], count: int, key: str = KEY, **more: Any) -> Counter[int]:
    """What becomes of so many requests, by turns to each gateway, many at a time."""
    seen: Counter[int] = Counter()
    for begin in range(0, count, 60):
        ports = [gateways[at % len(gateways)].port for at in range(begin, min(count, begin + 60))]
        replies = await asyncio.gather(*(converse_as(port, key, **more) for port in ports))
        seen.update(reply.status for reply in replies)
    return seen


async def stream_as(stack: AsyncExitStack, port: int, key: str = KEY) -> tuple[WireClient, Reply]:
    client = await stack.enter_async_context(WireClient(port))
    client.post(CHAT, chat(stream=True), headers=bearer(key))
    return client, await client.head()


async def metric(one: Gateway, name: str) -> float:
    text = (await get_as(one.port, ADMIN, "/metrics")).body.decode()
    lines = [line for line in text.splitlines() if line.startswith(f"{REACHED}{name}")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_two_gateways_under_twenty_times_the_limits_let_exactly_those_through(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    keys = (
        {"name": "team-a", "requests_per_minute": 25},
        {"name": "team-b", "tokens_per_minute": 300},
        {"name": "team-c"},
    )
    config = shared_config(server, redis, *keys, server={"workers": 2})
    gateways = [await gateway(config), await gateway(config)]
    await found(*gateways, count=2)
    assert await statuses(gateways, 500) == {200: 25, 429: 475}
    assert len(server.completions) == 25
    # 100 characters are 25 tokens; answers add to that.
    seen = await statuses(gateways, 120, "sk-team-b", text="x" * 100, max_tokens=1)
    assert 1 <= seen[200] <= 12
    refused = await converse_as(gateways[1].port, KEY)
    assert refused.error["message"].startswith("team-a has made 25 of 25 requests per minute; try again in ")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    # Who has no limit is not asked about.
    before = [await metric(one, 'decisions_total{by="redis"}') for one in gateways]
    assert await statuses(gateways, 10, "sk-team-c") == {200: 10}
    assert [await metric(one, 'decisions_total{by="redis"}') for one in gateways] == before
    assert sum(before) >= 25
    # Nothing in Redis tells a key or a name, and nothing stays for ever.
    for key in await redis.keys():
        assert "team" not in key
        assert await redis.do("TTL", key) > 0


async def test_what_one_gateway_has_used_the_other_knows_and_tells(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", answer_tokens=200)
    keys = ({"name": "team-a", "requests_per_minute": 10, "tokens_per_minute": 1000},)
    config = shared_config(server, redis, *keys)
    one, other = await gateway(config), await gateway(config)
    await found(one, other)
    for stream in (False, True):
        assert (await converse_as(one.port, KEY, max_tokens=200, stream=stream)).status == 200
    # Tokens are settled just after the last byte.
    await counted(redis, "tokens", 400)
    reply = await converse_as(other.port, KEY, "x" * 3600)
    assert (reply.status, reply.error["type"]) == (429, "tokens")
    assert 560 <= int(reply.headers["x-ratelimit-remaining-tokens"]) <= 600
    assert reply.headers["x-ratelimit-remaining-requests"] == "8"
    told = (await get_as(other.port, ADMIN, "/admin/status")).json["tenants"]
    [tenant] = [each for each in told if each["name"] == "team-a"]
    # What it used in this gateway.
    assert (tenant["requests"], tenant["requests_per_minute"]) == (0, 10)
    assert (tenant["in_flight"], tenant["max_in_flight"]) == (0, 0)


async def test_places_are_those_of_all_gateways_and_come_free_by_each_way_to_end(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    held = Held(server)
    config = shared_config(server, redis, {"name": "team-a", "max_in_flight": 4}, server={"workers": 2})
    gateways = [await gateway(config), await gateway(config)]
    await found(*gateways)
    async with AsyncExitStack() as stack:
        begun = await asyncio.gather(*(stream_as(stack, gateways[at % 2].port) for at in range(40)))
        streams = [client for client, head in begun if head.status == 200]
        assert len(streams) == 4
        # A client that leaves one makes room in the other.
        streams[0].writer.close()
        for one in gateways:
            client, head = await free_stream(stack, one.port)
            assert head.status == 200
            assert (await stream_as(stack, one.port))[1].status == 429
            client.writer.close()
        held.go.set()
    # The last ones have left a moment later.
    async with AsyncExitStack() as stack:
        assert [(await free_stream(stack, gateways[at % 2].port))[1].status for at in range(4)] == [200] * 4


async def free_stream(stack: AsyncExitStack, port: int) -> tuple[WireClient, Reply]:
    while (begun := await stream_as(stack, port))[1].status == 429:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return begun


async def test_a_gateway_that_is_killed_gives_its_places_back_when_it_is_silent_for_too_long(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    Held(server)
    config = shared_config(server, redis, {"name": "team-a", "max_in_flight": 2})
    one, other = await gateway(config), await gateway(config)
    await found(one, other)
    async with AsyncExitStack() as stack:
        assert [(await stream_as(stack, one.port))[1].status for _ in range(2)] == [200, 200]
        assert (await stream_as(stack, other.port))[1].status == 429
        for pid in (one.process.pid, *workers(one)):
            os.kill(pid, signal.SIGKILL)
        one.process.wait()
        one._process = None
        assert (await stream_as(stack, other.port))[1].status == 429
        [places] = [key for key in await redis.keys() if key.endswith(":places")]
        [(worker, told)] = (await redis.do("HGETALL", places)).items()
        count, second = told.split(":")
        # Eleven seconds go by.
        await redis.do("HSET", places, worker, f"{count}:{int(second) - 11}")
        assert [(await stream_as(stack, other.port))[1].status for _ in range(3)] == [200, 200, 429]


async def test_without_redis_each_gateway_goes_on_with_its_share_and_says_so(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    config = shared_config(
        server, redis, {"name": "team-a", "requests_per_minute": 21}, server={"workers": 2}
    )
    gateways = [await gateway(config), await gateway(config)]
    await found(*gateways, count=2)
    redis.kill()
    # Both workers: one that notices only after the other is up again says so a second time.
    await found(*gateways, redis="away", workers_away=2)
    # A half of each, rounded down.
    for one in gateways:
        assert await statuses([one], 60) == {200: 10, 429: 50}
    reply = await converse_as(gateways[0].port, KEY)
    assert reply.headers["x-ratelimit-limit-requests"] == "10"
    assert await metric(gateways[0], "failures_total") >= 1
    assert await metric(gateways[0], 'decisions_total{by="share"}') >= 10
    assert 1 <= await metric(gateways[0], "away") <= 2
    # It comes back, empty, and is told.
    await redis.start()
    await found(*gateways)
    await counted(redis, "requests", 20)
    assert await statuses(gateways, 60) == {200: 1, 429: 59}
    for one in gateways:
        assert one.log.count("can't be used") == 1
        assert "until it can, this gateway goes on with 1/2 of the limits" in one.log
        assert one.log.count("limits hold across gateways again") == 1


async def counted(redis: RedisServer, kind: str, least: int) -> None:
    """Returns when Redis has been told of so much."""
    while await redis.used(kind) < least:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def test_a_redis_that_was_emptied_is_told_what_the_last_minute_had(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    keys = ({"name": "team-a", "requests_per_minute": 40, "tokens_per_minute": 10_000},)
    config = shared_config(server, redis, *keys, server={"workers": 2})
    gateways = [await gateway(config), await gateway(config)]
    await found(*gateways, count=2)
    assert await statuses(gateways, 30) == {200: 30}
    # What is settled after it was emptied counts twice.
    tokens = 30 * server.engine.answer_tokens
    await counted(redis, "tokens", tokens)
    await redis.do("FLUSHALL")
    await counted(redis, "requests", 30)
    assert await redis.used("tokens") >= tokens
    assert await statuses(gateways, 40) == {200: 10, 429: 30}


async def test_a_redis_that_is_lost_just_after_it_was_emptied_makes_no_gateway_believe_to_be_alone(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    config = shared_config(
        server, redis, {"name": "team-a", "requests_per_minute": 20}, server={"workers": 2}
    )
    gateways = [await gateway(config), await gateway(config)]
    await found(*gateways, count=2)
    await redis.do("FLUSHALL")
    while not await redis.do("ZCARD", "octoroute:{gateways}"):  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    redis.kill()
    await found(*gateways, redis="away", workers_away=2)
    for one in gateways:
        assert await statuses([one], 40) == {200: 10, 429: 30}


async def test_a_redis_that_hangs_holds_up_nobody_for_long(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    config = shared_config(server, redis, {"name": "team-a", "requests_per_minute": 30, "max_in_flight": 30})
    one = await gateway(config)
    await found(one)
    redis.freeze()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await statuses([one], 30) == {200: 30}
    # Far less than all of them waiting for it one after the other; and not one waited in vain for an answer.
    assert loop.time() - began < 10
    assert (await shared_limits(one))["redis"] == "away"
    assert await metric(one, 'failures_total{reason="timeout"}') >= 1
    redis.thaw()
    await found(one)
    # It knows of those that it was not asked about.
    assert (await converse_as(one.port, KEY)).status == 429
    other = await gateway(config)
    await found(other)
    assert (await converse_as(other.port, KEY)).status == 429
    # What it is busy with for a while comes to the same, be it that only a beat finds it.
    slept = asyncio.ensure_future(redis.do("DEBUG", "SLEEP", 4))
    await found(one, redis="away")
    await slept
    await found(one)


async def test_scripts_that_are_gone_are_brought_again_at_once(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm")
    one = await gateway(shared_config(server, redis, {"name": "team-a", "requests_per_minute": 4}))
    await found(one)
    await redis.do("SCRIPT", "FLUSH")
    assert await statuses([one], 6) == {200: 4, 429: 2}
    assert await metric(one, 'decisions_total{by="redis"}') >= 4
    assert await metric(one, "failures_total") == 0


async def test_a_wrong_password_is_told_and_the_gateway_serves(
    serve: StartServer, gateway: StartGateway, tmp_path: Path
) -> None:
    redis = RedisServer(tmp_path / "redis", "--requirepass", "right")
    await redis.start()
    try:
        server = await serve("vllm")
        url = f"redis://:%s@127.0.0.1:{redis.port}/0"
        keys = {"name": "team-a", "requests_per_minute": 4}
        one = await gateway(shared_config(server, url % "wrong-one", keys))
        await found(one, redis="away")
        assert await statuses([one], 6) == {200: 4, 429: 2}
        assert await metric(one, 'failures_total{reason="refused"}') >= 1
        assert "can't be used (invalid username-password pair" in one.log
        # The right one, by a reload. What was let through meanwhile counts.
        rewrite(one, shared_config(server, url % "right", keys))
        async with WireClient(one.port) as client:
            client.post("/admin/reload", headers=bearer(ADMIN))
            assert (await client.reply()).json["changed"] == ["shared.redis_url"]
        await found(one)
        other = await gateway(shared_config(server, url % "right", keys))
        await found(other)
        assert (await converse_as(other.port, KEY)).status == 429
        assert "wrong-one" not in one.log
    finally:
        redis.kill()


async def test_a_reload_begins_and_ends_the_sharing_of_limits(
    serve: StartServer, gateway: StartGateway, redis: RedisServer
) -> None:
    server = await serve("vllm", slots=64)
    held = Held(server)
    key = {"name": "team-a", "max_in_flight": 2}
    one = await gateway(shared_config(server, "", key))
    assert (await get_as(one.port, ADMIN, "/admin/status")).json["shared_limits"] is None

    async def reload(config: str) -> Reply:
        rewrite(one, config)
        async with WireClient(one.port) as client:
            client.post("/admin/reload", headers=bearer(ADMIN))
            return await client.reply()

    assert (await reload(shared_config(server, redis, key))).status == 200
    await found(one)
    bad = await reload(shared_config(server, "redis://127.0.0.1:1/0?nonsense=1", key))
    assert (bad.status, bad.error["code"]) == (422, "invalid_config")
    assert "shared.redis_url has options" in bad.error["message"]
    async with AsyncExitStack() as stack:
        assert [(await stream_as(stack, one.port))[1].status for _ in range(3)] == [200, 200, 429]
        # Those that began with it end without it.
        assert (await reload(shared_config(server, "", key))).status == 200
        held.go.set()
    async with AsyncExitStack() as stack:
        assert (await free_stream(stack, one.port))[1].status == 200


async def test_check_says_whether_redis_can_be_used(redis: RedisServer) -> None:
    told = await asyncio.to_thread(inspect, redis.url)
    assert told == f"Limits hold across gateways by Redis at {redis.url}, which can be used from here."
