"""A stream whose first event is late is asked of a second server too; the first event of both goes on."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from octoroute.balance.first_tokens import ENOUGH
from octoroute.demo import RESET, Request, SimulatedServer, Step
from octoroute.demo.wire import DONE, LAST_CHUNK, chunk, event
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, endpoint, fleet_config, full_port
from tests.end_to_end.processes import HEAD, PATH
from tests.end_to_end.test_observability import Counts, scrape_until
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat

HOUR = {"interval_seconds": 3600.0, "unhealthy_interval_seconds": 3600.0, "load_interval_seconds": 0}
NOW = {"hedge": 0.05, "hedge_budget": 1.0}


def said(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}}]})


@dataclass
class Racer:
    """A server whose streams send nothing, or a head alone, until the test lets them."""

    server: SimulatedServer
    name: str
    head_first: bool = False
    go: asyncio.Event = field(default_factory=asyncio.Event)
    begins: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        self.server.script(self.play)

    async def play(self, request: Request) -> AsyncIterator[Step]:  # noqa: ARG002
        if self.head_first:
            yield HEAD
        yield self.go
        for step in self.begins:
            yield step
        if not self.head_first:
            yield HEAD
        data = (
            b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\ndata: [DONE]\n\n'
            % self.name.encode()
        )
        yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)

    @property
    def open(self) -> int:
        return self.server.connections.open

    async def asked(self, count: int = 1) -> None:
        await self.server.wait_for(lambda: len(self.server.completions) >= count)

    async def left(self) -> None:
        """The gateway has closed the connection of the request."""
        await self.server.wait_for(lambda: self.server.active == 0)


@dataclass
class Race:
    slow: Racer
    other: Racer
    gateway: Gateway

    def ask(self, **more: Any) -> "asyncio.Task[Reply]":
        return asyncio.create_task(ask(self.gateway.port, PATH, chat(stream=True, **more)))

    async def alone(self) -> None:
        """The gateway has one of both left."""
        await scrape_until(self.gateway.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 1)

    async def counted(self, outcome: str) -> Counts:
        key = f"octoroute_hedges_total{{outcome={outcome},tier=fast}}"
        return await scrape_until(self.gateway.port, lambda counts: counts.get(key) == 1)


async def race(serve: StartServer, gateway: StartGateway, **keys: Any) -> Race:
    """The slow one is always asked first."""
    slow = Racer(await serve("vllm", "slow"), "slow")
    other = Racer(await serve("vllm", "other"), "other")
    sections: dict[str, Any] = {"recovery": NOW, "health": HOUR, "retry": {"attempts": 1}} | keys
    one = await gateway(fleet_config([endpoint(slow.server, priority=2), other.server], **sections))
    return Race(slow, other, one)


@pytest.mark.parametrize("head_first", [False, True], ids=["silent", "head alone"])
async def test_the_second_wins_and_the_first_is_closed_at_once(
    serve: StartServer, gateway: StartGateway, head_first: bool
) -> None:
    one = await race(serve, gateway)
    one.slow.head_first = head_first
    one.other.go.set()
    reply = await one.ask()
    assert (reply.status, reply.text, reply.ended) == (200, "other", True)
    assert reply.headers["x-octoroute-endpoint"] == "other"
    await one.slow.left()
    counts = await one.counted("won")
    assert counts["octoroute_upstream_requests_total{endpoint=slow,outcome=outpaced,tier=fast}"] == 1
    assert counts["octoroute_upstream_requests_total{endpoint=other,outcome=ok,tier=fast}"] == 1
    assert counts["octoroute_in_flight{tier=fast}"] == 0
    assert "octoroute_retries_total{reason=outpaced,tier=fast}" not in counts


async def test_the_first_wins_though_it_was_late(serve: StartServer, gateway: StartGateway) -> None:
    one = await race(serve, gateway)
    one.other.head_first = True
    running = one.ask()
    await one.other.asked()
    one.slow.go.set()
    assert (await running).text == "slow"
    await one.other.left()
    counts = await one.counted("lost")
    assert counts["octoroute_upstream_requests_total{endpoint=other,outcome=outpaced,tier=fast}"] == 1
    assert counts["octoroute_in_flight{tier=fast}"] == 0


async def test_the_second_takes_over_when_the_first_fails(serve: StartServer, gateway: StartGateway) -> None:
    one = await race(serve, gateway)
    one.slow.begins = (RESET,)
    running = one.ask()
    await one.other.asked()
    one.slow.go.set()
    await one.alone()
    one.other.go.set()
    assert (await running).text == "other"
    counts = await one.counted("took_over")
    assert counts["octoroute_in_flight{tier=fast}"] == 0
    assert len(one.other.server.completions) == 1


async def test_a_second_that_is_connected_after_the_first_has_begun_is_not_asked(
    serve: StartServer, gateway: StartGateway
) -> None:
    begin, end = asyncio.Event(), asyncio.Event()
    first = await serve("vllm", "first")
    first.script(lambda _: [begin, HEAD, chunk(said("one")), end, chunk(said("two") + DONE), LAST_CHUNK])
    met: asyncio.Queue[bytes] = asyncio.Queue()

    async def second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.put_nowait(await reader.read(1))
        writer.close()

    with full_port() as (full, only, base_url):
        members = [endpoint(first, priority=2), endpoint(first, name="second", base_url=base_url)]
        one = await gateway(
            fleet_config(members, recovery=NOW, health=HOUR, timeouts={"connect_seconds": 10.0})
        )
        async with WireClient(one.port) as client:
            client.post(PATH, chat(stream=True))
            await scrape_until(one.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 2)
            begin.set()
            await client.head()
            only.close()
            async with await asyncio.start_server(second, sock=full):
                closed_unasked = 0
                while closed_unasked < 2:  # the one that filled the backlog is the other
                    heard = await met.get()
                    assert heard != b"P", "it got the request"
                    closed_unasked += not heard
            end.set()
            body = b""
            while data := await client.data():
                body += data
        assert body == said("one") + said("two") + DONE
        counts = await scrape_until(one.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 0)
    assert counts["octoroute_hedges_total{outcome=lost,tier=fast}"] == 1


async def test_a_second_that_fails_leaves_the_first_alone(serve: StartServer, gateway: StartGateway) -> None:
    one = await race(serve, gateway)
    one.other.begins = (RESET,)
    running = one.ask()
    await one.other.asked()
    one.other.go.set()
    await one.alone()
    one.slow.go.set()
    assert (await running).text == "slow"
    assert (await one.counted("failed"))["octoroute_in_flight{tier=fast}"] == 0


async def test_a_client_that_leaves_ends_both(serve: StartServer, gateway: StartGateway) -> None:
    one = await race(serve, gateway)
    async with WireClient(one.gateway.port) as client:
        client.post(PATH, chat(stream=True))
        await one.other.asked()
    await one.slow.left()
    await one.other.left()
    assert (await one.counted("lost"))["octoroute_in_flight{tier=fast}"] == 0


async def test_a_full_server_is_not_asked(serve: StartServer, gateway: StartGateway) -> None:
    slow = Racer(await serve("vllm", "slow"), "slow")
    full = Racer(await serve("vllm", "full"), "full")
    config = fleet_config(
        [endpoint(slow.server, priority=2), endpoint(full.server, max_in_flight=1)],
        recovery=NOW,
        health=HOUR,
    )
    one = Race(slow, full, await gateway(config))
    taken = one.ask(model="full")
    await full.asked()
    running = one.ask()
    counts_key = "octoroute_hedges_total{outcome=no_capacity,tier=fast}"
    await slow.asked()
    await asyncio.sleep(1.0)  # that nothing happens has no event
    slow.go.set()
    assert (await running).text == "slow"
    await scrape_until(one.gateway.port, lambda counts: counts.get(counts_key, 0) >= 1)
    assert len(full.server.completions) == 1
    full.go.set()
    assert (await taken).text == "full"


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (PATH, {"stream": False}),
        (PATH, {"stream": True, "store": True, "tools": []}),
        ("/v1/responses", {"stream": True, "store": False, "previous_response_id": "resp_1"}),
        ("/v1/responses", {"stream": True}),
    ],
)
async def test_what_must_not_be_done_twice_is_not(
    serve: StartServer, gateway: StartGateway, path: str, fields: dict[str, Any]
) -> None:
    one = await race(serve, gateway)
    text = {"input": "hello", "model": "fast"} if path != PATH else chat()
    running = asyncio.create_task(ask(one.gateway.port, path, text | fields))
    await one.slow.server.wait_for(lambda: one.slow.server.active > 0)
    # When one that came later is asked of the second server, this one's time had come too.
    later = one.ask()
    await one.other.asked()
    one.slow.go.set()
    one.other.go.set()
    await asyncio.gather(running, later)
    assert len(one.other.server.completions) == 1


async def test_hedges_stay_within_their_share(serve: StartServer, gateway: StartGateway) -> None:
    one = await race(serve, gateway, recovery={"hedge": 0.05, "hedge_budget": 0.25})
    one.other.go.set()
    running = [one.ask() for _ in range(8)]
    done: set[asyncio.Task[Reply]] = set()
    while len(done) < 2:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        done = {task for task in running if task.done()}
        await asyncio.sleep(0.01)
    one.slow.go.set()
    texts = [reply.text for reply in await asyncio.gather(*running)]
    assert sorted(texts) == ["other"] * 2 + ["slow"] * 6


async def test_the_delay_is_learnt(serve: StartServer, gateway: StartGateway) -> None:
    """Quick answers, just enough of them, tell what is late: of more, one might be late itself."""
    one = await race(serve, gateway, recovery={"hedge": "p95", "hedge_budget": 1.0})
    one.slow.go.set()
    one.other.go.set()
    for _ in range(ENOUGH):
        assert (await one.ask()).text == "slow"
    answered = "octoroute_upstream_requests_total{endpoint=slow,outcome=ok,tier=fast}"
    await scrape_until(one.gateway.port, lambda counts: counts[answered] == ENOUGH)
    one.slow.go.clear()
    assert (await one.ask()).text == "other"
    await one.counted("won")
