"""Limits of keys, held exactly by all workers together, whatever becomes of a request or of a worker."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack

import pytest

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway
from tests.end_to_end.keys import ADMIN, CHAT, bearer, converse_as, get_as, keyed_config
from tests.end_to_end.processes import Held, rewrite, until, worker_of, workers
from tests.end_to_end.wire_client import Reply, WireClient, chat

KEY = "sk-team-a"


async def scrape_as_admin(port: int) -> str:
    return (await get_as(port, ADMIN, "/metrics")).body.decode()


async def stream_as(stack: AsyncExitStack, port: int, key: str = KEY) -> tuple[WireClient, Reply]:
    """A stream of a server that is held, as soon as its head is there."""
    client = await stack.enter_async_context(WireClient(port))
    client.post(CHAT, chat(stream=True), headers=bearer(key))
    return client, await client.head()


async def admitted(port: int, model: str = "fast") -> Reply:
    """The answer to the first request that gets a place: one is free a moment after another has left it."""
    while (reply := await converse_as(port, KEY, model=model)).status == 429:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return reply


async def test_two_workers_let_exactly_the_limit_through(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm", slots=64)
    keys = ({"name": "team-a", "requests_per_minute": 25}, {"name": "team-b", "requests_per_minute": 10})
    one = await gateway(keyed_config([server], *keys, server={"workers": 2}))
    replies = await asyncio.gather(*(converse_as(one.port, KEY) for _ in range(60)))
    assert sorted(reply.status for reply in replies) == [200] * 25 + [429] * 35
    assert len({worker_of(reply) for reply in replies}) == 2
    assert len(server.completions) == 25
    others = await asyncio.gather(*(converse_as(one.port, "sk-team-b") for _ in range(20)))
    assert sum(reply.status == 200 for reply in others) == 10
    last = next(reply for reply in replies if reply.status == 429)
    assert (last.error["type"], last.error["code"]) == ("requests", "rate_limit_exceeded")
    assert last.headers["x-ratelimit-limit-requests"] == "25"
    assert last.headers["x-ratelimit-remaining-requests"] == "0"
    assert 50 <= int(last.headers["retry-after"]) <= 61
    left = {int(r.headers["x-ratelimit-remaining-requests"]) for r in replies if r.status == 200}
    assert left <= set(range(25))
    assert min(left) == 0
    for line in (
        'octoroute_tenant_requests_total{tenant="team-a"} 60.0',
        'octoroute_tenant_limited_total{limit="requests",tenant="team-a"} 35.0',
    ):
        # A request is counted after its last byte.
        while line not in await scrape_as_admin(one.port):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_worker_that_takes_the_place_of_a_dead_one_starts_no_new_minute(
    serve: StartServer, gateway: StartGateway
) -> None:
    keys = ({"name": "team-a", "requests_per_minute": 3},)
    one = await gateway(keyed_config([await serve("vllm")], *keys))
    assert [(await converse_as(one.port, KEY)).status for _ in range(2)] == [200, 200]
    [pid] = workers(one)
    os.kill(pid, signal.SIGKILL)
    assert [(await converse_as(one.port, KEY)).status for _ in range(2)] == [200, 429]


async def test_a_reload_keeps_the_counts_and_changes_the_limits(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm")

    def config(**limits: int) -> str:
        return keyed_config([server], {"name": "team-a", **limits}, server={"workers": 2})

    one = await gateway(config(requests_per_minute=3))

    async def reload(text: str) -> None:
        rewrite(one, text)
        async with WireClient(one.port) as client:
            client.post("/admin/reload", headers=bearer(ADMIN))
            assert (await client.reply()).status == 200

    assert [(await converse_as(one.port, KEY)).status for _ in range(4)] == [200, 200, 200, 429]
    await reload(config(requests_per_minute=5))
    assert [(await converse_as(one.port, KEY)).status for _ in range(3)] == [200, 200, 429]
    await reload(config())
    free = await converse_as(one.port, KEY)
    assert free.status == 200
    assert not [name for name in free.headers if name.startswith("x-ratelimit")]
    await reload(config(requests_per_minute=4, max_in_flight=9))
    assert (await converse_as(one.port, KEY)).status == 429


async def test_places_are_counted_over_workers_and_freed_by_each_way_to_end(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", slots=64)
    held = Held(server)
    keys = ({"name": "team-a", "max_in_flight": 4},)
    flawed = await serve("vllm", "flawed", fault="storm-500")
    one = await gateway(keyed_config([server], *keys, balanced=[flawed], server={"workers": 2}))
    async with AsyncExitStack() as stack:
        begun = await asyncio.gather(*(stream_as(stack, one.port) for _ in range(12)))
        streams = [client for client, head in begun if head.status == 200]
        refused = [head for _, head in begun if head.status == 429]
        assert (len(streams), len(refused)) == (4, 8)
        assert refused[0].headers["retry-after"] == "1"
        # A client that leaves frees its place.
        streams[0].writer.close()
        client, head = await free_stream(stack, one.port)
        assert head.status == 200
        assert (await converse_as(one.port, KEY)).status == 429
        # So does an answer that ends.
        held.go.set()
        while await client.data():
            pass
        assert (await admitted(one.port)).status == 200
    # So do one that fails, and one that is no request.
    for _ in range(6):
        assert (await admitted(one.port, "balanced")).status >= 500
    for _ in range(6):
        async with WireClient(one.port) as bad:
            bad.post(CHAT, body=b"{", headers=bearer(KEY))
            assert (await bad.reply()).status in (400, 429)
    assert (await admitted(one.port)).status == 200


async def free_stream(stack: AsyncExitStack, port: int) -> tuple[WireClient, Reply]:
    while (begun := await stream_as(stack, port))[1].status == 429:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return begun


async def test_a_killed_worker_leaves_no_place_taken(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm", slots=64)
    Held(server)
    keys = ({"name": "team-a", "max_in_flight": 6},)
    one = await gateway(keyed_config([server], *keys, server={"workers": 2}))
    async with AsyncExitStack() as stack:
        begun = [await stream_as(stack, one.port) for _ in range(6)]
        assert [head.status for _, head in begun] == [200] * 6
        pids = workers(one)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not set(pids) & set(workers(one)))
        again = [await free_stream(stack, one.port) for _ in range(6)]
        assert [head.status for _, head in again] == [200] * 6
        assert (await stream_as(stack, one.port))[1].status == 429


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_that_the_server_reports_take_the_place_of_the_estimate(
    serve: StartServer, gateway: StartGateway, stream: bool
) -> None:
    server = await serve("vllm", answer_tokens=200)
    keys = ({"name": "team-a", "tokens_per_minute": 1000}, {"name": "free"})
    one = await gateway(keyed_config([server], *keys))
    # What a stream uses is seen here only, because its client did not ask for it.
    usage = (await converse_as(one.port, "sk-free", "hello", max_tokens=200)).json["usage"]
    assert usage["completion_tokens"] == 200
    first = await converse_as(one.port, KEY, "hello", max_tokens=200, stream=stream)
    assert first.status == 200
    # Only the prompt was known before: `hello` is about one token.
    assert first.headers["x-ratelimit-remaining-tokens"] == "999"
    assert await remaining(one) == 1000 - usage["total_tokens"]
    counts = await scrape_as_admin(one.port)
    assert 'octoroute_tenant_tokens_total{direction="completion",tenant="team-a"} 200.0' in counts


async def remaining(one: Gateway) -> int:
    """Tokens that are left, before the one that asks: a request is settled just after its last byte."""
    while True:
        reply = await converse_as(one.port, KEY, "x" * 40_000)
        assert reply.status == 429
        left = int(reply.headers["x-ratelimit-remaining-tokens"])
        if left < 990:
            return left
        await asyncio.sleep(0.01)


async def test_a_stream_that_reports_no_usage_is_counted_by_its_chunks(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", answer_tokens=150)
    key = {"name": "team-a", "tokens_per_minute": 1000}
    one = await gateway(keyed_config([server], key, observability={"stream_usage": False}))
    reply = await converse_as(one.port, KEY, max_tokens=150, stream=True)
    assert reply.status == 200
    # One for the prompt, one a token, and a few chunks without a token.
    assert 840 <= await remaining(one) <= 849


async def test_more_tokens_than_the_limit_are_paid_for_before_the_next_request(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", answer_tokens=300)
    one = await gateway(keyed_config([server], {"name": "team-a", "tokens_per_minute": 100}))
    assert (await converse_as(one.port, KEY, max_tokens=300)).status == 200
    while (refused := await converse_as(one.port, KEY, max_tokens=1)).status == 200:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert (refused.status, refused.error["type"]) == (429, "tokens")
    # Three minutes' worth.
    assert 120 <= int(refused.headers["retry-after"]) <= 250


async def test_a_client_over_its_limit_is_told_before_its_body_is_read(
    serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(keyed_config([await serve("vllm")], {"name": "team-a", "requests_per_minute": 1}))
    assert (await converse_as(one.port, KEY)).status == 200
    async with WireClient(one.port) as client:
        client.send_raw(
            b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nx-api-key: %b\r\n"
            b"content-length: 30000000\r\n\r\n{" % (CHAT.encode(), KEY.encode())
        )
        assert (await client.unasked_reply()).status == 429


async def test_the_legacy_chat_is_limited_too(serve: StartServer, gateway: StartGateway) -> None:
    one = await gateway(keyed_config([await serve("vllm")], {"name": "team-a", "requests_per_minute": 1}))
    found = []
    for _ in range(2):
        async with WireClient(one.port) as client:
            client.post("/chat", {"message": "hello", "task_type": "casual_chat"}, headers=bearer(KEY))
            found.append(await client.reply())
    assert [reply.status for reply in found] == [200, 429]
    assert found[0].headers["x-ratelimit-remaining-requests"] == "0"
