"""Ready pods of a service, as an API server of Kubernetes tells of them, whatever it does meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, fleet_config
from tests.end_to_end.kube_api import KubeApi, pod
from tests.end_to_end.processes import reload, until
from tests.end_to_end.test_observability import scrape
from tests.end_to_end.wire_client import converse, fetch


@pytest_asyncio.fixture(loop_scope="session")
async def api() -> AsyncIterator[KubeApi]:
    one = KubeApi()
    await one.start()
    yield one
    await one.stop()


def config(api: KubeApi, folder: Path, **keys: Any) -> str:
    own = {"name": "found", "base_url": "http://llama/v1", "max_tokens": 64}
    own |= {"kubeconfig": api.kubeconfig(folder)} | keys
    return fleet_config(None, discovery={"kubernetes": {"fast": own}})


async def replicas(gateway: Gateway) -> int:
    told = (await fetch(gateway.port, "/admin/status")).json["endpoints"]
    return sum(entry["name"] == "found" for entry in told)


async def come_to(gateway: Gateway, count: int) -> None:
    """Returns when that many servers are known."""
    while True:
        if await replicas(gateway) == count:
            return
        await asyncio.sleep(0.02)


async def test_pods_get_requests_while_they_are_ready(
    api: KubeApi, serve: StartServer, gateway: StartGateway, tmp_path: Path
) -> None:
    first, second = await serve("vllm", "found"), await serve("vllm", "found")
    api.put("llama", [pod(first.port), pod(second.port, ready=False)])
    one = await gateway(config(api, tmp_path))
    assert (await converse(one.port)).status == 200
    assert (api.selectors, api.tokens) == ({"kubernetes.io/service-name=llama"}, {"Bearer sesame"})
    assert await replicas(one) == 1
    api.put("llama", [pod(second.port)])
    await come_to(one, 2)
    api.put("llama", [pod(first.port, ready=True, terminating=True)])
    await come_to(one, 1)
    for _ in range(4):
        assert (await converse(one.port)).status == 200
    assert (len(first.completions), len(second.completions)) == (1, 4)
    # What the API server says is so at once: there is no pod left.
    api.delete("llama", second.port)
    await come_to(one, 0)
    assert (await converse(one.port)).status == 503
    assert api.lists == 1
    assert "WARN" not in one.log.replace("WARN octoroute.upstream", "")


async def test_a_watch_goes_on_from_where_the_last_one_was_however_that_ended(
    api: KubeApi, gateway: StartGateway, tmp_path: Path
) -> None:
    api.put("llama", [pod(9001)])
    one = await gateway(config(api, tmp_path))
    await until(lambda: api.watching == 1)
    api.put("llama", [pod(9002)])
    await come_to(one, 2)
    after_event = api.version
    api.end()
    await until(lambda: len(api.watches) == 2 and api.watching == 1)
    after_bookmark = api.bookmark()
    # So that the bookmark has been read before the end.
    api.put("llama", [pod(9003)])
    await come_to(one, 3)
    api.drop()
    api.put("llama", [pod(9004)])
    await until(lambda: len(api.watches) == 3)
    await come_to(one, 4)
    assert api.watches[1:] == [after_event, after_bookmark + 1]
    assert api.lists == 1
    counts = await scrape(one.port)
    for ended in ("in_time", "dropped"):
        assert counts[f"octoroute_discovery_watches_total{{ended={ended},tier=fast}}"] == 1


@pytest.mark.parametrize("told", ["event", "status"])
async def test_a_version_that_is_too_old_leads_to_a_new_list(
    api: KubeApi, gateway: StartGateway, tmp_path: Path, told: Any
) -> None:
    api.expired_as = told
    api.put("llama", [pod(9001), pod(9002)])
    one = await gateway(config(api, tmp_path))
    await until(lambda: api.watching == 1)
    api.open.clear()
    api.drop()
    await until(lambda: api.watching == 0)
    # This is missed: no watch can tell of it any more.
    api.delete("llama", 9001)
    api.put("llama", [pod(9003), pod(9004)])
    api.forget()
    api.open.set()
    await come_to(one, 3)
    assert api.lists == 2
    await until(lambda: api.watching == 1)
    assert api.watches[-1] == api.version
    # It costs nobody a server meanwhile.
    assert "given up" not in one.log


async def test_a_refusal_is_said_and_what_was_found_last_is_kept(
    api: KubeApi, serve: StartServer, gateway: StartGateway, tmp_path: Path
) -> None:
    server = await serve("vllm", "found")
    api.put("llama", [pod(server.port)])
    one = await gateway(config(api, tmp_path))
    api.forbidden = True
    api.drop()
    await until(lambda: "may not list and watch endpointslices in namespace gpu" in one.log)
    assert "its last 1 servers are used for 600 s more" in one.log
    assert (await converse(one.port)).status == 200
    api.put("llama", [pod(9001)])
    api.forbidden = False
    await come_to(one, 2)
    assert "it can be looked at again; servers: 2" in one.log


async def test_a_slow_api_server_holds_up_the_start_no_longer_than_it_must(
    api: KubeApi, serve: StartServer, gateway: StartGateway, tmp_path: Path
) -> None:
    server = await serve("vllm", "found")
    api.put("llama", [pod(server.port)])
    api.open.clear()
    starting = asyncio.ensure_future(gateway(config(api, tmp_path)))
    await asyncio.wait([starting], timeout=0.3)
    assert not starting.done()
    api.open.set()
    assert (await converse((await starting).port)).status == 200


async def test_a_port_that_can_not_be_told_is_said(
    api: KubeApi, gateway: StartGateway, tmp_path: Path
) -> None:
    api.put("llama", [pod(9001)])
    one = await gateway(config(api, tmp_path, port_name="grpc"))
    assert "discovery.kubernetes.fast: the service has no port named 'grpc'; it has: http" in one.log
    assert (await reload(one, config(api, tmp_path, port_name="http"))).status == 200
    await come_to(one, 1)


async def test_a_cluster_that_can_not_be_reached_is_said(gateway: StartGateway) -> None:
    source = {"name": "found", "base_url": "http://llama/v1", "max_tokens": 64}
    one = await gateway(fleet_config(None, discovery={"kubernetes": {"fast": source}}))
    assert "how to reach the cluster can't be told: Service host/port is not set" in one.log
    assert (await converse(one.port)).status == 503
