"""Fixtures of the real tests: three llama.cpp servers, one per tier, and a gateway in front of them.

They live as long as the session, because a start costs seconds; no test may leave one changed.
Every test in this folder is marked `real`, so that `make test` leaves it out.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.llama import LlamaServer

TIERS = ("fast", "balanced", "deep")
SLOTS = 2

ENDPOINT = """
[[models.{tier}]]
name = "{server.model}"
base_url = "{server.base_url}"
max_tokens = 256
"""
REST = """
[server]
host = "127.0.0.1"
port = 0
request_timeout_seconds = 120

[routing]
strategy = "rule"
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, LlamaServer]]:
    """One llama.cpp server for each tier, by tier; the one of `fast` is called `smol-fast`."""
    logs = tmp_path_factory.mktemp("llama")
    with ExitStack() as stack:
        yield {
            tier: stack.enter_context(LlamaServer(f"smol-{tier}", SLOTS, logs / f"{tier}.log"))
            for tier in TIERS
        }


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gateway(
    llamas: dict[str, LlamaServer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway in front of the three servers, with the rule router; its end is looked at."""
    endpoints = [ENDPOINT.format(tier=tier, server=server) for tier, server in llamas.items()]
    one = Gateway(tmp_path_factory.mktemp("gateway"))
    try:
        await one.start(REST + "".join(endpoints))
        yield one
        await one.stop()
    finally:
        one.kill()
