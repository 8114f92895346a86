"""The bells that wake workers: rung for those that wait, when a place is given back, and at no other time."""

import os
import select

import pytest

from octoroute._bells import Bells
from octoroute._lease import Lease
from octoroute._state import FleetState
from tests.test_state_workers import digest, ended_well, fork

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def rung(state: FleetState) -> list[int]:
    """The workers that were rung for since this was last asked."""
    found = []
    for worker in range(state.workers):
        descriptor = state.bells.descriptor(worker)
        if select.select([descriptor], [], [], 0)[0]:
            os.eventfd_read(descriptor)
            found.append(worker)
    return found


@pytest.fixture
def state() -> FleetState:
    return FleetState(workers=3)


@pytest.fixture
def slot(state: FleetState) -> int:
    slot = state.claim(digest(1))
    state.set_capacity(slot, configured=1)
    return slot


def test_a_place_that_is_given_back_rings_for_the_workers_that_wait(state: FleetState, slot: int) -> None:
    assert state.acquire(slot)
    state.bells.wait(1, 0, True)
    state.bells.wait(2, 2, True)
    assert rung(state) == []
    state.release(slot)
    assert rung(state) == [1, 2]


def test_nobody_is_rung_for_where_nobody_waits_or_nothing_was_full(state: FleetState, slot: int) -> None:
    free = state.claim(digest(2))
    state.bells.wait(1, 0, True)
    assert state.acquire(free)
    state.release(free)
    state.bells.wait(1, 0, False)
    assert state.acquire(slot)
    state.release(slot)
    assert rung(state) == []


def test_a_worker_waits_as_long_as_any_of_its_queues_does(state: FleetState, slot: int) -> None:
    state.bells.wait(1, 0, True)
    state.bells.wait(1, 1, True)
    state.bells.wait(1, 0, False)
    assert state.acquire(slot)
    state.release(slot)
    assert rung(state) == [1]


def test_who_gives_a_place_back_knows_of_it_unless_it_is_for_another_endpoint(state: FleetState) -> None:
    first, second = (state.claim(digest(at), digest(9)) for at in (1, 2))
    for each in (first, second):
        state.set_capacity(each, learnt=1)
    state.bells.wait(0, 0, True)
    lone = state.claim(digest(3))
    state.set_capacity(lone, configured=1)
    assert state.acquire(lone)
    state.release(lone)
    assert rung(state) == []
    assert state.acquire(first)
    state.release(first)
    assert rung(state) == [0]


def test_a_dropped_lease_a_lost_worker_and_a_larger_capacity_ring_too(state: FleetState, slot: int) -> None:
    state.bells.wait(1, 0, True)
    lease = Lease.take(state, slot, None)
    del lease
    assert rung(state) == [1]

    def take() -> None:
        state.worker = 2
        assert state.acquire(slot)

    assert ended_well(fork(take))
    assert state.reclaim(2) == 1
    assert rung(state) == [1]
    assert state.acquire(slot)
    state.set_capacity(slot, configured=2)
    assert rung(state) == [1]


def test_a_lost_worker_waits_no_longer(state: FleetState, slot: int) -> None:
    state.bells.wait(2, 0, True)
    state.reclaim(2)
    assert state.acquire(slot)
    state.release(slot)
    assert rung(state) == []
    # The one that takes its place begins anew.
    state.bells.wait(2, 0, True)
    assert state.acquire(slot)
    state.release(slot)
    assert rung(state) == [2]


def test_a_process_rings_in_another_one(state: FleetState, slot: int) -> None:
    state.worker = 0
    state.bells.wait(0, 0, True)

    def give_back() -> None:
        state.worker = 1
        assert state.acquire(slot)
        assert state.release(slot)

    assert ended_well(fork(give_back))
    assert rung(state) == [0]


def test_a_worker_knows_whether_anybody_waits_in_another_one(state: FleetState) -> None:
    bells = state.bells
    assert not bells.others_wait(0, 1)
    bells.wait(0, 1, True)
    bells.wait(2, 0, True)
    assert [bells.others_wait(worker, 1) for worker in range(3)] == [False, True, True]
    assert [bells.others_wait(worker, 0) for worker in range(3)] == [True, True, False]
    bells.wait(0, 1, False)
    bells.reclaim(2)
    assert not any(bells.others_wait(worker, queue) for worker in range(3) for queue in range(2))


def test_with_one_worker_there_is_no_bell() -> None:
    lone = Bells(1)
    assert lone.descriptor(0) == -1
    lone.wait(0, 0, True)
    lone.reclaim(0)


@pytest.mark.parametrize("worker", [-1, 3])
def test_a_worker_that_is_not_there_is_an_error(state: FleetState, worker: int) -> None:
    for call in (
        lambda: state.bells.descriptor(worker),
        lambda: state.bells.wait(worker, 0, True),
        lambda: state.bells.others_wait(worker, 0),
        lambda: state.bells.reclaim(worker),
    ):
        with pytest.raises(ValueError, match=f"worker {worker} of 3"):
            call()
    with pytest.raises(ValueError, match="queue 8 of 8"):
        state.bells.wait(0, 8, True)
    with pytest.raises(ValueError, match="queue 8 of 8"):
        state.bells.others_wait(0, 8)


def test_bells_give_their_descriptors_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    bells = Bells(8)
    assert len(os.listdir("/proc/self/fd")) == before + 8
    del bells
    assert len(os.listdir("/proc/self/fd")) == before
