"""A fleet that is dying is not finished off by retries."""

import asyncio

import pytest

from octoroute.balance.retry_budget import FLOOR_PER_SECOND, WINDOW_SECONDS
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.test_observability import scrape
from tests.end_to_end.wire_client import converse

REQUESTS = 200
# Of servers that fail all the time, none is taken out: the budget alone bounds the retries.
PATIENT = {"failures": 1000, "interval_seconds": 3600.0}


async def storm(serve: StartServer, gateway: StartGateway, budget: float) -> tuple[int, int]:
    """Every server of the tier answers 503: attempts that they saw, retries refused according to metrics."""
    servers = [await serve("vllm", f"model-{at}") for at in range(3)]
    for server in servers:
        server.set_fault("storm-503")
    one = await gateway(
        fleet_config(
            [endpoint(server, name="same") for server in servers],
            retry={"attempts": 3, "budget": budget},
            health=PATIENT,
        )
    )
    replies = await asyncio.gather(*(converse(one.port) for _ in range(REQUESTS)))
    assert {reply.status for reply in replies} == {502}
    for reply in replies:
        assert "503" in reply.error["message"]
    counts = await scrape(one.port)
    attempts = sum(len(server.completions) for server in servers)
    retries = counts["octoroute_retries_total{reason=status_503,tier=fast}"]
    assert attempts == REQUESTS + retries
    assert counts["octoroute_upstream_requests_total{endpoint=same,outcome=status_503,tier=fast}"] == attempts
    refused = counts.get("octoroute_retries_refused_total{reason=status_503,tier=fast}", 0.0)
    return attempts, int(refused)


@pytest.mark.parametrize("share", [0.0, 0.75])
async def test_retries_of_a_failing_tier_stay_within_their_share(
    serve: StartServer, gateway: StartGateway, share: float
) -> None:
    attempts, refused = await storm(serve, gateway, share)
    allowed = max(share * REQUESTS, FLOOR_PER_SECOND * WINDOW_SECONDS)
    assert 0 < attempts - REQUESTS <= allowed
    # All that did not get both of their retries.
    assert refused >= REQUESTS - allowed / 2


async def test_a_large_share_allows_all(serve: StartServer, gateway: StartGateway) -> None:
    attempts, refused = await storm(serve, gateway, 2.0)
    assert (attempts, refused) == (3 * REQUESTS, 0)
