"""A server that fails before the first byte is replaced unseen; after it the client is told the truth."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from octoroute.demo import SimulatedServer
from octoroute.demo.answers import prompt_of_messages
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.processes import probed
from tests.end_to_end.wire_client import Reply, converse

STALLS = ["stall-before-head", "stall-mid-head", "stall-after-head"]
BROKEN_START = [
    "refuse",
    "reset-before-head",
    "reset-after-head",
    "close-before-head",
    "close-mid-head",
    "status-429",
    "status-429-retry-after",
    "status-500",
    "status-502",
    "status-502-html",
    "status-503-loading",
    "storm-429",
    "storm-500",
    "storm-503",
    "malformed-chunk",
    "huge-chunk-size",
    "negative-chunk-size",
    "huge-chunk-extension",
    "malformed-head",
    "huge-head",
    "two-content-lengths",
    "length-and-chunked",
    "error-event-200",
    "empty-200",
]
BROKEN_MIDDLE = [
    "reset-mid-stream",
    "reset-mid-event",
    "reset-mid-character",
    "close-mid-stream",
    "close-mid-event",
    "half-closed",
    "stall-mid-stream",
    "stall-mid-event",
    "malformed-chunk-mid-stream",
]
HARMLESS = [
    "one-byte-writes",
    "split-utf8",
    "slow-body",
    "no-space-events",
    "no-done",
    "bytes-after-end",
    "closes-soon",
    "http-1.0",
    "100-continue",
    "103-early-hints",
    "crlf-events",
]
TEXT = prompt_of_messages([{"role": "user", "content": "hello"}])


@dataclass
class Fleet:
    bad: SimulatedServer
    good: SimulatedServer
    port: int

    async def ask(self, fault: str | None, *, stream: bool) -> tuple[Reply, int, int]:
        """The answer while `bad`, always tried first, has the fault; and how often each was asked."""
        before = len(self.bad.completions), len(self.good.completions)
        self.bad.set_fault(fault)
        try:
            reply = await converse(self.port, stream=stream)
        finally:
            self.bad.set_fault(None)
        return reply, len(self.bad.completions) - before[0], len(self.good.completions) - before[1]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    """Two servers, of which `bad` never becomes unhealthy, whatever it does. Plain requests go as they came;
    those that go as streams are in test_plain_as_stream.py.
    """
    bad = await serve_module("llama_cpp", "bad", seed=1, wide=True)
    good = await serve_module("vllm", "good", seed=2)
    config = fleet_config(
        [endpoint(bad, priority=2), good],
        server={"request_timeout_seconds": 1},
        timeouts={"stream_idle_seconds": 1.0},
        recovery={"cancel_plain": False},
        health={"failures": 1000},
        retry={"budget": 100},
    )
    gateway = await gateway_module(config)
    return Fleet(bad, good, gateway.port)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", [*BROKEN_START, *STALLS])
async def test_a_fault_before_the_first_byte_is_replaced(fleet: Fleet, fault: str, stream: bool) -> None:
    reply, asked_bad, asked_good = await fleet.ask(fault, stream=stream)
    assert (reply.status, reply.text) == (200, fleet.good.text(TEXT))
    assert (asked_bad, asked_good) == (0 if fault == "refuse" else 1, 1)


@pytest.mark.parametrize("fault", [*BROKEN_MIDDLE, "wrong-length-long", "wrong-length-short"])
async def test_half_a_plain_answer_is_replaced(fleet: Fleet, fault: str) -> None:
    reply, _, asked_good = await fleet.ask(fault, stream=False)
    assert (reply.status, reply.text, asked_good) == (200, fleet.good.text(TEXT), 1)


@pytest.mark.parametrize("fault", ["close-mid-stream", "stall-mid-stream"])
async def test_a_stream_broken_between_events_ends_with_an_error_that_names_the_request(
    fleet: Fleet, fault: str
) -> None:
    reply, _, asked_good = await fleet.ask(fault, stream=True)
    assert (reply.status, asked_good) == (200, 0)
    whole = [event for event in reply.body.split(b"\n\n") if event.startswith(b'data: {"choices')]
    assert len(whole) >= 3
    assert b"[DONE]" not in reply.body
    assert b'"finish_reason":"' not in reply.body
    assert reply.headers["x-request-id"] in reply.events[-1]["error"]["message"]


async def test_a_stream_broken_inside_an_event_does_not_look_complete(fleet: Fleet) -> None:
    """Where half of the event is out already, the only honest end is none."""
    reply, _, asked_good = await fleet.ask("reset-mid-event", stream=True)
    assert (reply.status, asked_good) == (200, 0)
    assert b"[DONE]" not in reply.body
    assert not reply.ended or "error" in reply.events[-1]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize("fault", HARMLESS)
async def test_a_strange_but_complete_answer_is_passed_on(fleet: Fleet, fault: str, stream: bool) -> None:
    reply, asked_bad, asked_good = await fleet.ask(fault, stream=stream)
    assert (reply.status, reply.text, reply.ended) == (200, fleet.bad.text(TEXT), True)
    assert (asked_bad, asked_good) == (1, 0)
    after, _, _ = await fleet.ask(None, stream=stream)
    assert after.text == fleet.bad.text(TEXT)


async def test_plain_json_for_a_stream_is_passed_on(fleet: Fleet) -> None:
    reply, _, asked_good = await fleet.ask("json-for-stream", stream=True)
    assert (reply.json["choices"][0]["message"]["content"], asked_good) == (fleet.bad.text(TEXT), 0)


@pytest.mark.parametrize("fault", ["status-400", "status-401", "status-404"])
async def test_the_servers_own_refusal_is_not_tried_elsewhere(fleet: Fleet, fault: str) -> None:
    reply, _, asked_good = await fleet.ask(fault, stream=True)
    assert (reply.status, asked_good) == (int(fault[-3:]), 0)


async def test_a_named_endpoint_is_replaced_by_its_replicas_only(
    serve: StartServer, gateway: StartGateway
) -> None:
    first, second = await serve(model="twin"), await serve(model="twin")
    other = await serve(model="other")
    port = (await gateway(fleet_config([endpoint(first, priority=2), second, other]))).port
    first.set_fault("status-500")
    assert (await converse(port, model="twin")).status == 200
    second.set_fault("status-500")
    assert (await converse(port, model="twin")).status == 502
    assert (len(second.completions), len(other.completions)) == (2, 0)
    assert (await converse(port, model="fast")).status == 200


async def test_three_failures_in_a_row_make_a_server_unhealthy(
    serve: StartServer, gateway: StartGateway
) -> None:
    bad, good = await serve(model="bad"), await serve(model="good")
    # Any probe that finds it well would start the count anew too.
    hour = {"interval_seconds": 3600.0, "unhealthy_interval_seconds": 3600.0}
    one = await gateway(fleet_config([endpoint(bad, priority=2), good], health=hour))
    await probed(one, "bad")
    port = one.port
    for count in (2, 2, 3):
        bad.set_fault("status-500", count=count)
        for _ in range(count):
            assert (await converse(port)).json["model"] == "good"
        # A success in between starts the count anew.
        expected = "bad" if count == 2 else "good"
        assert (await converse(port)).json["model"] == expected
    assert len(bad.completions) == 2 + 1 + 2 + 1 + 3


async def test_a_probe_heals_a_server_that_was_unhealthy(serve: StartServer, gateway: StartGateway) -> None:
    only = await serve()
    port = (await gateway(fleet_config([only], health={"interval_seconds": 0.1}))).port
    only.set_fault("status-503-loading")
    seen = len(only.requests)
    await only.wait_for(lambda: len(only.requests) >= seen + 4)
    reply = await converse(port)
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 0
    only.set_fault(None)
    seen = len(only.requests)
    await only.wait_for(lambda: len(only.requests) >= seen + 2)
    assert (await converse(port)).status == 200


async def test_the_backup_is_asked_only_while_the_primary_fails(
    serve: StartServer, gateway: StartGateway
) -> None:
    primary, backup = await serve(model="same", seed=1), await serve(model="same", seed=2)
    port = (await gateway(fleet_config([endpoint(primary, priority=9), endpoint(backup, priority=0)]))).port
    for _ in range(5):
        assert (await converse(port)).text == primary.text(TEXT)
    primary.set_fault("refuse")
    for _ in range(5):
        assert (await converse(port, stream=True)).text == backup.text(TEXT)
    assert len(backup.completions) == 5


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_when_all_are_dead_the_client_gets_an_error_object_without_addresses(
    serve: StartServer, gateway: StartGateway, stream: bool
) -> None:
    servers = [await serve(fault="refuse"), await serve(fault="storm-500", model="other")]
    port = (await gateway(fleet_config(servers))).port
    for _ in range(5):  # the first ones find out, the later ones know
        reply = await converse(port, stream=stream)
        assert reply.status in (502, 503)
        assert reply.error["type"] in ("api_error", "server_error")
        assert reply.headers["x-request-id"] in reply.error["message"]
        assert not any(f":{server.port}".encode() in reply.body for server in servers)
    assert (reply.status, "retry-after" in reply.headers) == (503, True)


async def test_an_attempt_has_no_more_time_because_it_has_to_connect(gateway: StartGateway) -> None:
    taken: list[asyncio.Future[None]] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Takes connections, and never answers the greeting of TLS."""
        taken.append(left := asyncio.get_running_loop().create_future())
        await reader.read()
        writer.close()
        left.set_result(None)

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        url = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}/v1"
        sections: dict[str, Any] = {
            "timeouts": {"fast": 1, "connect_seconds": 60.0},
            "retry": {"attempts": 1},
        }
        config = fleet_config([], health={"timeout_seconds": 0.1, "interval_seconds": 3600.0}, **sections)
        one = await gateway(config.replace("http://127.0.0.1:9/v1", url, 1))
        reply = await converse(one.port)
        assert (reply.status, reply.error["type"]) == (504, "api_error")
        await asyncio.gather(*taken)
