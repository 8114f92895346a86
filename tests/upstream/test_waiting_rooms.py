"""Requests that wait in one worker, and places that another one gives back: no tick of the clock is needed.

Both workers are this process, which has both bells and the memory that workers share.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest_asyncio

from octoroute.admission.board import WaitingBoard
from octoroute.admission.queue import Bounds
from octoroute.admission.shares import TENANTS
from octoroute.balance.endpoint import Endpoint, EndpointSpec, FleetState, Lease, claim_endpoints
from octoroute.balance.group import Group
from octoroute.exchange import TIERS, RequestView, Target
from octoroute.observe.registry import Registry
from octoroute.upstream.waiting import Ticket
from octoroute.upstream.waiting_rooms import WaitingRooms

DEADLINE_S = 60.0
VIEW = RequestView("req-1", "/v1/chat/completions", b"{}", {}, "fast", False)
ROWS = {"greedy": TENANTS, "modest": TENANTS + 1}


def spec(tier: str, name: str, **more: int) -> EndpointSpec:
    return EndpointSpec(tier=tier, name=name, base_url="http://gpu-1:8080/v1", **more)  # type: ignore[arg-type]


class Workers:
    """Two workers of one fleet."""

    def __init__(self, *specs: EndpointSpec) -> None:
        self.state = FleetState(workers=2)
        board, registry = WaitingBoard(2, len(ROWS)), Registry(2, list, list)
        self.rooms = [WaitingRooms(registry, board, self.state.bells, worker) for worker in range(2)]
        self.groups = {
            each.spec.tier: Group(each.spec.tier, [each], self.state)
            for each in claim_endpoints(specs, self.state)
        }
        groups = {Target(tier): group for tier, group in self.groups.items()}
        for rooms in self.rooms:
            rooms.configure(Bounds(), "normal", groups, ROWS, dict.fromkeys(TIERS, 0.0))
            rooms.listen()

    def close(self) -> None:
        for rooms in self.rooms:
            rooms.close()

    def take(self, worker: int, tier: str = "fast") -> Lease[Endpoint]:
        self.state.worker = worker
        lease = self.groups[tier].pick()
        assert lease is not None
        return lease

    def wait(self, worker: int, tier: str = "fast", tenant: str = "") -> Ticket:
        self.state.worker = worker
        view = replace(VIEW, tenant=tenant, read_ns=time.monotonic_ns())
        ticket = self.rooms[worker][tier].join(view, Target(tier), self.groups[tier])
        assert ticket is not None
        return ticket

    async def place(self, worker: int, ticket: Ticket) -> Lease[Endpoint] | None:
        async with asyncio.timeout(DEADLINE_S):
            return await self.rooms[worker][ticket.target.tier].wait(ticket)

    def give_back(self, worker: int, lease: Lease[Endpoint]) -> None:
        """As an attempt does that is over."""
        self.state.worker = worker
        tier = lease.endpoint.spec.tier
        lease.release()
        if self.rooms[worker][tier].waiting:
            self.rooms[worker][tier].freed()


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[Workers]:
    both = Workers(spec("fast", "a", max_in_flight=1))
    yield both
    both.close()


async def test_a_place_that_another_worker_gives_back_goes_to_who_waits(workers: Workers) -> None:
    lease = workers.take(0)
    ticket = workers.wait(1)
    workers.give_back(0, lease)
    assert await workers.place(1, ticket) is not None


async def test_a_place_that_was_given_back_while_somebody_began_to_wait_is_found(workers: Workers) -> None:
    # Between the look for a place and the flag that says that somebody waits.
    room, ring_for = workers.rooms[1]["fast"], workers.rooms[1]["fast"]._ring_for
    lease = workers.take(0)

    def late(waits: bool) -> None:
        if waits:
            workers.give_back(0, lease)
        ring_for(waits)

    room._ring_for = late
    assert await workers.place(1, workers.wait(1)) is not None


async def test_who_has_waited_longest_in_any_worker_goes_first(workers: Workers) -> None:
    lease = workers.take(0)
    older, younger = workers.wait(1), workers.wait(0)
    workers.give_back(0, lease)
    first = await workers.place(1, older)
    assert first is not None
    assert not younger.future.done()
    workers.give_back(1, first)
    assert await workers.place(0, younger) is not None


async def test_tenants_take_turns_wherever_their_requests_wait(workers: Workers) -> None:
    lease = workers.take(0)
    greedy = [(at % 2, workers.wait(at % 2, tenant="greedy")) for at in range(8)]
    modest = [(1, workers.wait(1, tenant="modest")) for _ in range(3)]
    waiting = greedy + modest
    order = []
    worker = 0
    while waiting:
        workers.give_back(worker, lease)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.wait([ticket.future for _, ticket in waiting], return_when=asyncio.FIRST_COMPLETED)
        ((worker, ticket),) = [each for each in waiting if each[1].future.done()]
        waiting.remove((worker, ticket))
        order.append(ticket.tenant)
        got = await workers.place(worker, ticket)
        assert got is not None
        lease = got
    # By their coming where they have had as much.
    assert order == ["greedy", "modest"] * 3 + ["greedy"] * 5


async def test_who_comes_to_a_worker_where_nobody_waits_takes_no_place_that_is_anothers_turn(
    workers: Workers,
) -> None:
    lease = workers.take(0)
    first = workers.wait(1)
    # Its worker has been rung for, but has not looked yet.
    workers.give_back(0, lease)
    newcomer = workers.wait(0)
    assert not newcomer.future.done()
    got = await workers.place(1, first)
    assert got is not None
    assert not newcomer.future.done()
    workers.give_back(1, got)
    assert await workers.place(0, newcomer) is not None


async def test_what_a_request_has_really_used_is_what_its_tenant_has_had(workers: Workers) -> None:
    lease = workers.take(0)
    room = workers.rooms[0]["fast"]
    dear = [workers.wait(0, tenant="greedy") for _ in range(3)]
    cheap = [workers.wait(0, tenant="modest") for _ in range(2)]
    order = (dear[0], cheap[0], dear[1], dear[2], cheap[1])
    for ticket in order:
        workers.give_back(0, lease)
        got = await workers.place(0, ticket)
        assert got is not None
        lease = got
        # Both may use as much; the second is one that does.
        used = 10 if ticket.tenant == "greedy" else ticket.charged
        room.settle(ticket.view, ticket.target, ticket.charged, used)


async def test_a_place_that_the_one_who_waits_longest_does_not_take_goes_to_the_next(
    workers: Workers,
) -> None:
    lease = workers.take(0)
    older, younger = workers.wait(1), workers.wait(0)
    # Its worker does not look.
    workers.rooms[1].close()
    workers.give_back(0, lease)
    assert await workers.place(0, younger) is not None
    assert not older.future.done()
    workers.rooms[1].listen()


async def test_a_place_at_one_endpoint_of_a_server_is_one_for_another_tier() -> None:
    both = Workers(spec("fast", "a"), spec("deep", "b"))
    try:
        for group in both.groups.values():
            group.endpoints[0].learn_capacity(1)
        lease = both.take(0, "fast")
        here, there = both.wait(0, "deep"), both.wait(1, "deep")
        both.give_back(0, lease)
        first = await both.place(0, here)
        assert first is not None
        both.give_back(0, first)
        assert await both.place(1, there) is not None
    finally:
        both.close()
