"""What a running gateway tells of the requests it served: metrics of all workers, and one log line each."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families as parse

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, endpoint, fleet_config
from tests.end_to_end.wire_client import WireClient, ask

SECRET = "the-parrot-is-in-the-wardrobe"
Counts = dict[str, float]


async def scrape(port: int) -> Counts:
    """Every series by its name in the exposition, labels in order of the alphabet."""
    async with WireClient(port) as client:
        client.get("/metrics")
        reply = await client.reply()
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found = {}
    for family in parse(reply.body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def scrape_until(port: int, holds: Callable[[Counts], bool]) -> Counts:
    """A request is counted after its last byte, so its client may come too early."""
    while not holds(counts := await scrape(port)):  # noqa: ASYNC110 - another process: no event to wait for
        await asyncio.sleep(0.02)
    return counts


@dataclass
class Fleet:
    server: SimulatedServer
    flawed: SimulatedServer
    gateway: Gateway

    @property
    def port(self) -> int:
        return self.gateway.port

    async def chat(self, model: str = "fast", request_id: str = "", *, stream: bool = False) -> int:
        fields = {"model": model, "stream": stream, "messages": [{"role": "user", "content": SECRET}]}
        async with WireClient(self.port) as client:
            headers = {"x-request-id": request_id} if request_id else {}
            client.post("/v1/chat/completions", fields, headers=headers)
            return (await client.reply()).status

    def _lines(self, request_id: str) -> list[str]:
        return [line for line in self.gateway.log.splitlines() if request_id in line]

    async def line(self, request_id: str) -> dict[str, object]:
        """The log's line about a request. Lines are written ten times a second."""
        while not (found := self._lines(request_id)):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        [line] = found
        return dict(orjson.loads(line))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    """Two workers; the only server of `deep` breaks every stream."""
    server = await serve_module("llama_cpp", "good")
    flawed = await serve_module("vllm", "flawed", fault="close-mid-stream")
    config = fleet_config(
        [endpoint(server)],
        deep=[flawed],
        server={"workers": 2},
        observability={"log_format": "json"},
        health={"failures": 1000},
    )
    return Fleet(server, flawed, await gateway_module(config))


async def test_whichever_worker_is_asked_it_counts_the_requests_of_both(fleet: Fleet) -> None:
    series = "octoroute_model_invocations_total{tier=fast}"
    before = (await scrape(fleet.port))[series]
    assert await asyncio.gather(*(fleet.chat() for _ in range(20))) == [200] * 20
    await scrape_until(fleet.port, lambda counts: counts[series] == before + 20)
    assert {(await scrape(fleet.port))[series] for _ in range(10)} == {before + 20}


async def test_a_stream_counts_its_first_token_its_gaps_and_its_tokens(fleet: Fleet) -> None:
    before = await scrape(fleet.port)
    assert await fleet.chat(stream=True) == 200
    done = "octoroute_request_duration_seconds_count{outcome=ok,tier=fast}"
    after = await scrape_until(fleet.port, lambda counts: counts[done] > before[done])
    for name in ("time_to_first_token", "inter_token_latency"):
        series = f"octoroute_{name}_seconds_count{{tier=fast}}"
        assert after[series] > before[series]


async def test_an_answer_that_breaks_off_is_a_mid_stream_failure_of_its_endpoint(fleet: Fleet) -> None:
    assert await fleet.chat("deep", "broken-1", stream=True) == 200
    line = await fleet.line("broken-1")
    assert (line["result"], line["endpoint"], line["tier"]) == ("broken", "flawed", "deep")
    counts = await scrape(fleet.port)
    assert counts["octoroute_mid_stream_failures_total{endpoint=flawed}"] >= 1
    assert counts["octoroute_model_invocations_total{tier=deep}"] == 0


async def test_a_request_leaves_one_line_without_a_word_of_what_was_said(fleet: Fleet) -> None:
    assert await fleet.chat(request_id="line-1") == 200
    line = await fleet.line("line-1")
    assert line | {"time": 0, "ttft_ms": 0, "duration_ms": 0} == {
        "time": 0,
        "level": "info",
        "logger": "octoroute.request",
        "message": "request",
        "request_id": "line-1",
        "tenant": "",
        "model": "fast",
        "tier": "fast",
        "why": "named",
        "endpoint": "good",
        "attempts": 1,
        "status": 200,
        "result": "ok",
        "ttft_ms": 0,
        "duration_ms": 0,
        "prompt_tokens": line["prompt_tokens"],
        "completion_tokens": line["completion_tokens"],
        "bytes": line["bytes"],
        "resumed": 0,
    }
    for field in ("ttft_ms", "duration_ms", "prompt_tokens", "completion_tokens", "bytes"):
        number = line[field]
        assert isinstance(number, int | float)
        assert number > 0
    assert SECRET not in fleet.gateway.log


async def test_nothing_a_client_names_becomes_a_label(fleet: Fleet) -> None:
    assert (await ask(fleet.port, fields={"model": "evil-label", "messages": []})).status == 400
    async with WireClient(fleet.port) as client:
        client.get("/evil-label")
        assert (await client.reply()).status == 404
    assert not [series for series in await scrape(fleet.port) if "evil" in series]


async def test_endpoints_are_up_and_nothing_is_in_flight_when_nothing_happens(fleet: Fleet) -> None:
    counts = await scrape(fleet.port)
    assert counts["octoroute_endpoint_up{endpoint=good,tier=fast}"] == 1
    await scrape_until(fleet.port, lambda counts: counts["octoroute_in_flight{tier=fast}"] == 0)


async def test_the_counts_of_a_killed_worker_stay_and_its_successor_goes_on(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("llama_cpp", "good")
    one = await gateway(fleet_config([server], server={"workers": 2}))
    fleet = Fleet(server, server, one)
    series = "octoroute_requests_total{strategy=rule,tier=fast}"
    for expected in (10, 20):
        assert await asyncio.gather(*(fleet.chat() for _ in range(10))) == [200] * 10
        await scrape_until(one.port, lambda counts, expected=expected: counts[series] == expected)  # type: ignore[misc]
        for worker in workers(one):
            os.kill(worker, signal.SIGKILL)
        assert (await scrape(one.port))[series] == expected


def workers(gateway: Gateway) -> list[int]:
    pid = gateway.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]
