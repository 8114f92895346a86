"""A real Prometheus scrapes the gateway, loads its alerts, and knows what was asked of it."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import ROOT, Gateway, fleet_config
from tests.end_to_end.ports import free_port
from tests.end_to_end.wire_client import converse

pytestmark = pytest.mark.skipif(
    not shutil.which("prometheus"), reason="Debian's package prometheus is not installed"
)
CHATS = 7
CONFIG = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
  evaluation_interval: 200ms
rule_files: [{alerts}]
scrape_configs:
  - job_name: octoroute
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class Prometheus:
    """The program, with a config of its own; `query` asks its HTTP API."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        self.log = folder / "prometheus.log"
        config = folder / "prometheus.yml"
        config.write_text(
            CONFIG.format(alerts=json.dumps(str(ROOT / "deploy/prometheus-alerts.yml")), port=target)
        )
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=output,
                stderr=output,
            )

    async def get(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of the API; None while there is none yet."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url, params=parameters) as answer:
                return (await answer.json())["data"] if answer.status == 200 else None
        except aiohttp.ClientConnectionError:
            assert self.process.poll() is None, self.log.read_text()
            return None

    async def value(self, query: str) -> float | None:
        """The one value of a query, None while it has none."""
        data = await self.get("query", query=query)
        if not data or not data["result"]:
            return None
        [series] = data["result"]
        return float(series["value"][1])

    async def becomes(self, query: str, expected: float) -> None:
        while await self.value(query) != expected:  # noqa: ASYNC110 - another process: no event to wait for
            await asyncio.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway_with_two_workers(serve_module: StartServer, gateway_module: StartGateway) -> Gateway:
    """In front of simulated servers: the metrics are what is tried here."""
    server = await serve_module("llama_cpp", "qwen3-8b")
    return await gateway_module(fleet_config([server], server={"workers": 2}))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def prometheus(
    gateway_with_two_workers: Gateway, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Prometheus]:
    one = Prometheus(tmp_path_factory.mktemp("prometheus"), gateway_with_two_workers.port)
    try:
        yield one
    finally:
        one.stop()


async def test_prometheus_knows_how_many_requests_were_served(
    prometheus: Prometheus, gateway_with_two_workers: Gateway
) -> None:
    replies = await asyncio.gather(*(converse(gateway_with_two_workers.port) for _ in range(CHATS)))
    assert [reply.status for reply in replies] == [200] * CHATS
    await prometheus.becomes('octoroute_requests_total{tier="fast",strategy="rule"}', CHATS)
    await prometheus.becomes(
        'octoroute_request_duration_seconds_bucket{tier="fast",outcome="ok",le="+Inf"}', CHATS
    )
    await prometheus.becomes('octoroute_endpoint_up{tier="fast",endpoint="qwen3-8b"}', 1)
    await prometheus.becomes('count(octoroute_build_info{job="octoroute"})', 1)


async def test_prometheus_finds_nothing_wrong_with_what_it_scrapes(prometheus: Prometheus) -> None:
    await prometheus.becomes('up{job="octoroute"}', 1)
    [target] = (await prometheus.get("targets"))["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


async def test_prometheus_loads_the_alerts_and_each_can_be_evaluated(prometheus: Prometheus) -> None:
    await prometheus.becomes('up{job="octoroute"}', 1)
    while True:
        [group] = (await prometheus.get("rules"))["groups"]
        if all(rule["health"] != "unknown" for rule in group["rules"]):
            break
        await asyncio.sleep(0.05)
    assert {rule["name"]: rule["lastError"] for rule in group["rules"] if rule["health"] != "ok"} == {}
    assert len(group["rules"]) >= 6
