"""Servers behind a name in DNS: found, followed, kept for a while when the answers fail."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from octoroute.demo import SimulatedServer
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config
from tests.end_to_end.name_server import NameServer
from tests.end_to_end.processes import Held, Stream, reload, until, workers
from tests.end_to_end.test_observability import scrape
from tests.end_to_end.wire_client import converse, fetch

NAME = "_http._tcp.llama.test"
WHOLE = Held.FIRST + Held.LAST


@pytest_asyncio.fixture(loop_scope="session")
async def names() -> AsyncIterator[NameServer]:
    server = NameServer()
    await server.start()
    yield server
    await server.stop()


def publish(names: NameServer, *servers: SimulatedServer, ttl: int = 0) -> None:
    """These servers are behind NAME from now on."""
    names.zone["one.llama.test", "A"] = (ttl, ["127.0.0.1"])
    names.zone[NAME, "SRV"] = (ttl, [f"0 10 {server.port} one.llama.test." for server in servers])


def source(names: NameServer, **keys: Any) -> dict[str, Any]:
    own = {"name": "found", "base_url": f"http://{NAME}/v1", "records": "srv", "max_tokens": 64}
    return own | {"resolver": names.address, "refresh_min_seconds": 0.1} | keys


def config(names: NameServer, **keys: Any) -> str:
    return fleet_config(None, discovery={"dns": {"fast": source(names, **keys)}})


async def replicas(port: int) -> int:
    told = (await fetch(port, "/admin/status")).json["endpoints"]
    return sum(entry["name"] == "found" for entry in told)


async def come_to(port: int, count: int) -> None:
    """Returns when that many servers are known."""
    while True:
        if await replicas(port) == count:
            return
        await asyncio.sleep(0.02)


async def test_servers_are_there_from_the_first_request_on_and_come_and_go_with_the_records(
    names: NameServer, serve: StartServer, gateway: StartGateway
) -> None:
    first, second = [await serve("vllm", "found", idle_seconds=3600.0) for _ in range(2)]
    publish(names, first)
    two = fleet_config(None, server={"workers": 2}, discovery={"dns": {"fast": source(names)}})
    one = await gateway(two)
    assert (await converse(one.port)).status == 200
    held = Held(first)
    async with AsyncExitStack() as stack:
        stream = await Stream.open(stack, one.port)
        publish(names, first, second)
        await until(lambda: "2 of 2 workers use the new config: servers added: fast/found" in one.log)
        publish(names, second)
        await until(lambda: "2 of 2 workers use the new config: servers removed: fast/found" in one.log)
        for _ in range(8):
            assert (await converse(one.port)).status == 200
        assert (len(first.completions), len(second.completions)) == (2, 8)
        # Who was being answered by a server that has left is answered to the end.
        held.go.set()
        assert await stream.rest() == WHOLE
    await first.wait_for(lambda: first.connections.open == 0)


async def test_what_was_found_last_is_kept_for_a_time_when_answers_fail_and_that_is_said(
    names: NameServer, serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "found")
    publish(names, server)
    one = await gateway(config(names, keep_seconds=2.0))
    names.fault = "servfail"
    await until(lambda: "SERVFAIL; its last 1 servers are used for 2 s more" in one.log)
    assert (await converse(one.port)).status == 200
    await until(lambda: "its last servers are given up" in one.log)
    await come_to(one.port, 0)
    assert (await converse(one.port)).status == 503
    names.fault = None
    await come_to(one.port, 1)
    assert (await converse(one.port)).status == 200
    assert "it can be looked at again; servers: 1" in one.log


async def test_an_empty_tier_is_a_503_and_its_model_is_known(
    names: NameServer, serve: StartServer, gateway: StartGateway
) -> None:
    one = await gateway(config(names))
    assert f"discovery.dns.fast: {NAME} does not exist; it has none" in one.log
    for model in ("fast", "found"):
        reply = await converse(one.port, model=model)
        assert (reply.status, reply.error["code"]) == (503, "no_endpoint_available")
        assert int(reply.headers["retry-after"]) > 0
    listed = {entry["id"] for entry in (await fetch(one.port, "/v1/models")).json["data"]}
    assert "found" in listed
    [source] = (await fetch(one.port, "/admin/status")).json["discovery"]
    assert (source["servers"], source["failing"], source["success_seconds_ago"]) == (0, "not_found", None)
    publish(names, await serve("vllm", "found"))
    await come_to(one.port, 1)
    assert (await converse(one.port, model="found")).status == 200
    [source] = (await fetch(one.port, "/admin/status")).json["discovery"]
    assert (source["source"], source["tier"]) == ("dns", "fast")
    assert (source["servers"], source["failing"]) == (1, None)
    assert source["success_seconds_ago"] >= 0
    counts = await scrape(one.port)
    assert counts["octoroute_discovery_failures_total{reason=not_found,source=dns,tier=fast}"] > 0
    assert counts["octoroute_discovery_servers{source=dns,tier=fast}"] == 1
    assert counts["octoroute_discovery_last_success_timestamp_seconds{source=dns,tier=fast}"] > 1.7e9


async def test_the_process_that_looks_is_started_again_when_it_dies(
    names: NameServer, serve: StartServer, gateway: StartGateway
) -> None:
    first, second = await serve("vllm", "found"), await serve("vllm", "found")
    publish(names, first)
    one = await gateway(config(names))
    # It was started first, and so has the lowest number.
    looker = min(workers(one))
    os.kill(looker, signal.SIGKILL)
    await until(lambda: "the process that looks for servers ended with status -9" in one.log)
    assert (await converse(one.port)).status == 200
    publish(names, first, second)
    await come_to(one.port, 2)


async def test_sources_follow_a_reload_of_the_file(
    names: NameServer, serve: StartServer, gateway: StartGateway
) -> None:
    own, found = await serve("vllm", "own"), await serve("vllm", "found")
    publish(names, found)
    one = await gateway(fleet_config([own]))
    before = len(workers(one))
    extended = fleet_config([own], discovery={"dns": {"fast": source(names)}})
    assert (await reload(one, extended)).json["changed"] == ["discovery.dns.fast"]
    await come_to(one.port, 1)
    # Another reload does not lose what was found.
    heavier = fleet_config([own], discovery={"dns": {"fast": source(names, weight=7.0)}})
    assert (await reload(one, heavier)).status == 200
    told = (await fetch(one.port, "/admin/status")).json["endpoints"]
    assert [entry["weight"] for entry in told if entry["name"] == "found"] == [7.0]
    answer = (await reload(one, fleet_config([own]))).json
    assert answer["endpoints"]["removed"] == ["fast/found"]
    assert await replicas(one.port) == 0
    await until(lambda: len(workers(one)) == before)


async def test_weights_and_priorities_of_records_are_used(names: NameServer, gateway: StartGateway) -> None:
    names.zone["one.llama.test", "A"] = (60, ["127.0.0.1"])
    names.zone[NAME, "SRV"] = (
        60,
        [
            f"{rank} {weight} {port} one.llama.test."
            for rank, weight, port in (
                (5, 30, 9001),
                (5, 60, 9002),
                (9, 0, 9003),
            )
        ],
    )
    one = await gateway(config(names, weight=2.0, priority=4))
    told = (await fetch(one.port, "/admin/status")).json["endpoints"]
    assert [(each["weight"], each["priority"]) for each in told if each["name"] == "found"] == [
        (1.0, 4),
        (2.0, 4),
        (pytest.approx(0.5 / 60 * 2), 3),
    ]


async def test_addresses_are_found_over_aliases_and_in_answers_that_are_too_long_for_udp(
    names: NameServer, serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "found")
    names.zone["llama.test", "CNAME"] = (60, ["many.test."])
    names.zone["many.test", "A"] = (60, ["127.0.0.1", *(f"127.1.0.{at}" for at in range(1, 60))])
    keys = source(names, base_url=f"http://llama.test:{server.port}/v1", records="auto")
    one = await gateway(fleet_config(None, discovery={"dns": {"fast": keys}}))
    assert await replicas(one.port) == 60
    assert ("llama.test", "A", "tcp") in names.questions
    names.zone["v6.test", "AAAA"] = (60, ["::1"])
    keys = source(names, base_url=f"http://v6.test:{server.port}/v1", records="auto")
    await reload(one, fleet_config(None, discovery={"dns": {"fast": keys}}))
    await come_to(one.port, 1)


async def test_what_can_not_be_looked_up_just_now_is_where_it_was(
    names: NameServer, gateway: StartGateway
) -> None:
    names.zone["one.llama.test", "A"] = names.zone["two.llama.test", "A"] = (0, ["127.0.0.1"])
    names.zone["two.llama.test", "AAAA"] = (0, ["::1"])
    names.zone[NAME, "SRV"] = (0, ["0 1 9001 one.llama.test.", "0 1 9002 two.llama.test."])
    one = await gateway(config(names))
    assert await replicas(one.port) == 2
    names.failing.add(("two.llama.test", "A"))
    names.questions.clear()
    # The third look comes after what the second has found out has been told.
    await until(lambda: names.questions.count((NAME, "SRV", "udp")) >= 3)
    assert await replicas(one.port) == 2
    # Nobody looks for other addresses because the usual ones can't be told.
    assert not any(kind == "AAAA" for _, kind, _ in names.questions)
    # What does not exist any more is another matter.
    names.failing.clear()
    del names.zone["two.llama.test", "A"], names.zone["two.llama.test", "AAAA"]
    await come_to(one.port, 1)
