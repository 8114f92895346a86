"""Streams that were asked of two servers and break, or both of whose servers die: no client can tell."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, RESET, Request, SimulatedServer
from octoroute.demo.answers import prompt_of_messages
from octoroute.demo.wire import chunk, event
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.processes import HEAD, PATH
from tests.end_to_end.test_observability import Counts, scrape_until
from tests.end_to_end.wire_client import Reply, ask, chat

NOW = {"hedge": 0.05, "hedge_budget": 1.0}
PATIENT = {"failures": 1000, "interval_seconds": 3600.0}
BEGUN_CHARS = 12


class Leg:
    """A server whose next answer is played: silent until `go`, a beginning, and a break after `breaks`. From
    then on it answers as it is.
    """

    def __init__(self, server: SimulatedServer, text: str) -> None:
        self.server = server
        self.go, self.breaks = asyncio.Event(), asyncio.Event()
        self._begun = chunk(event({"choices": [{"index": 0, "delta": {"content": text[:BEGUN_CHARS]}}]}))
        self._dies_first = False
        server.script(self._play)

    def dies_first(self) -> None:
        """It has not begun when it breaks."""
        self._dies_first = True

    async def asked(self) -> None:
        await self.server.wait_for(lambda: bool(self.server.completions))
        # The script plays on.
        await asyncio.sleep(0)

    async def _play(self, request: Request) -> Any:  # noqa: ARG002
        self.server.script(None)
        yield self.go
        if self._dies_first:
            yield RESET
            return
        yield HEAD + self._begun
        yield self.breaks
        yield CLOSE


class Race:
    """The first leg is always asked first; the others beside it or after it, in their order."""

    def __init__(self, legs: list[Leg], text: str, port: int) -> None:
        self.legs, self.text, self.port = legs, text, port

    def ask(self) -> "asyncio.Task[Reply]":
        return asyncio.create_task(ask(self.port, PATH, chat("hello", stream=True, max_tokens=64)))

    async def is_whole(self, running: "asyncio.Task[Reply]") -> None:
        reply = await running
        assert (reply.status, reply.text, reply.events[-1], reply.ended) == (200, self.text, "[DONE]", True)

    async def alone(self) -> None:
        """The gateway has one of both left."""
        await scrape_until(self.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 1)

    async def counts(self, hedge: str, recoveries: int) -> None:
        """What is left when all is over."""
        hedged = f"octoroute_hedges_total{{outcome={hedge},tier=fast}}"
        resumed = "octoroute_stream_recoveries_total{outcome=resumed,tier=fast}"

        def settled(counts: Counts) -> bool:
            return counts.get(hedged) == 1 and counts["octoroute_in_flight{tier=fast}"] == 0

        counts = await scrape_until(self.port, settled)
        assert counts.get(resumed, 0) == recoveries
        for leg in self.legs:
            await leg.server.wait_for(lambda leg=leg: leg.server.active == 0)  # type: ignore[misc]


StartRace = Callable[..., Awaitable[Race]]


@pytest_asyncio.fixture(loop_scope="session")
async def race(serve: StartServer, gateway: StartGateway) -> StartRace:
    async def start(count: int, **sections: Any) -> Race:
        servers = [await serve("vllm", "one", seed=7, wide=True) for _ in range(count)]
        text = servers[0].text(prompt_of_messages([{"role": "user", "content": "hello"}]))
        members = [endpoint(server, priority=9 - at) for at, server in enumerate(servers)]
        config = fleet_config(members, **({"recovery": NOW, "health": PATIENT} | sections))
        return Race([Leg(server, text) for server in servers[:2]], text, (await gateway(config)).port)

    return start


async def test_the_winner_breaks_and_a_third_goes_on_not_the_one_that_was_too_slow(race: StartRace) -> None:
    one = await race(3)
    slow, winner = one.legs
    winner.go.set()
    winner.breaks.set()
    await one.is_whole(one.ask())
    await one.counts("won", 1)
    assert len(slow.server.completions) == 1


async def test_the_winner_breaks_and_the_slow_one_goes_on_where_there_is_no_third(race: StartRace) -> None:
    one = await race(2)
    slow, winner = one.legs
    winner.go.set()
    winner.breaks.set()
    await one.is_whole(one.ask())
    await one.counts("won", 1)
    assert [
        request.json["messages"][-1]["role"]
        for request in slow.server.completions
        if "messages" in request.json
    ] == [
        "user",
        "assistant",
    ]


async def test_the_first_wins_late_and_breaks_and_the_loser_goes_on(race: StartRace) -> None:
    one = await race(2)
    first, second = one.legs
    running = one.ask()
    await second.asked()
    first.go.set()
    first.breaks.set()
    await one.is_whole(running)
    await one.counts("lost", 1)


async def test_the_first_dies_and_then_the_one_that_took_over_breaks(race: StartRace) -> None:
    one = await race(3)
    first, second = one.legs
    first.dies_first()
    running = one.ask()
    await second.asked()
    first.go.set()
    await one.alone()
    second.go.set()
    second.breaks.set()
    await one.is_whole(running)
    await one.counts("took_over", 1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first", "second"])
async def test_both_die_before_they_have_begun_and_a_third_answers(
    race: StartRace, order: tuple[int, int]
) -> None:
    one = await race(3)
    running = one.ask()
    await one.legs[1].asked()
    for leg in one.legs:
        leg.dies_first()
    one.legs[order[0]].go.set()
    await one.alone()
    one.legs[order[1]].go.set()
    await one.is_whole(running)
    await one.counts("took_over" if order[0] == 0 else "failed", 0)


async def test_both_die_and_nobody_is_left(race: StartRace) -> None:
    one = await race(2, retry={"attempts": 1})
    running = one.ask()
    await one.legs[1].asked()
    for leg in one.legs:
        leg.dies_first()
        leg.go.set()
    reply = await running
    assert (reply.status, reply.error["type"]) == (502, "api_error")
    await one.counts("took_over", 0)


async def test_a_winner_that_stalls_is_relieved(race: StartRace) -> None:
    one = await race(3, recovery=NOW | {"stall_seconds": 0.3})
    winner = one.legs[1]
    winner.go.set()
    await one.is_whole(one.ask())
    await one.counts("won", 1)
