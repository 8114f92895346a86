"""Fixtures: simulated servers in the tests' loop, gateways as processes. Every test here has a deadline.

All tests of this folder share one event loop, so that a fleet may serve a whole module.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from octoroute.demo import SimulatedServer
from tests.end_to_end.fleet import ROOT, Gateway
from tests.end_to_end.nursery import Nursery
from tests.sanitized import PATIENCE

DEADLINE_S = 90.0 * PATIENCE
LONG_DEADLINE_S = 900.0
StartServer = Callable[..., Awaitable[SimulatedServer]]
StartGateway = Callable[[str], Awaitable[Gateway]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Wraps each coroutine test of this folder in a timeout, so that a hang is a failure with a place."""
    for item in items:
        if not isinstance(item, pytest.Function) or Path(__file__).parent not in item.path.parents:
            continue
        if inspect.iscoroutinefunction(item.obj):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            seconds = LONG_DEADLINE_S if item.get_closest_marker("long") else DEADLINE_S
            item.obj = _with_deadline(item.obj, seconds)


def _with_deadline(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @wraps(test)
    async def timed(*args: Any, **kwargs: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **kwargs)

    return timed


@asynccontextmanager
async def _servers() -> AsyncIterator[StartServer]:
    servers: list[SimulatedServer] = []

    async def start(kind: str = "llama_cpp", model: str = "qwen3-8b", **options: Any) -> SimulatedServer:
        server = SimulatedServer(kind, model, **options)
        servers.append(server)
        await server.start()
        return server

    try:
        yield start
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


@asynccontextmanager
async def _gateways(folder: Path, node: Any, nursery: Nursery) -> AsyncIterator[StartGateway]:
    gateways: list[Gateway] = []

    async def start(config: str) -> Gateway:
        one = Gateway(folder / f"gateway-{len(gateways)}", nursery=nursery)
        await one.start(config)
        gateways.append(one)
        return one

    try:
        yield start
        for one in gateways:
            await one.stop()
    finally:
        for at, one in enumerate(gateways):
            if isinstance(node, pytest.Item):
                node.add_report_section("teardown", f"log of gateway {at}", one.log)
            one.kill()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Where the gateways of `gateway` and `gateway_module` come from."""
    one = Nursery(ROOT)
    yield one
    one.close()


@pytest_asyncio.fixture(loop_scope="session")
async def serve() -> AsyncIterator[StartServer]:
    """Starts a simulated server: `await serve("vllm", "qwen3-8b", fault=...)`."""
    async with _servers() as start:
        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(
    tmp_path: Path, request: pytest.FixtureRequest, nursery: Nursery
) -> AsyncIterator[StartGateway]:
    """Starts a gateway with a config text; its log is attached to a failure, its end is checked."""
    async with _gateways(tmp_path, request.node, nursery) as start:
        yield start


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def serve_module() -> AsyncIterator[StartServer]:
    """As `serve`, for servers that a whole module uses."""
    async with _servers() as start:
        yield start


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway_module(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, nursery: Nursery
) -> AsyncIterator[StartGateway]:
    """As `gateway`, for a gateway that a whole module uses."""
    async with _gateways(tmp_path_factory.mktemp("module"), request.node, nursery) as start:
        yield start
