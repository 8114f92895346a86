"""The shared table in several processes, which hammer it and are killed."""

import os
import signal
from collections.abc import Callable

import pytest

from octoroute._lease import Lease
from octoroute._state import FleetState

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def digest(number: int) -> bytes:
    return number.to_bytes(16, "little")


def fork(work: Callable[[], None]) -> int:
    """A child that does `work` and ends; its exit status tells whether it raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def ended_well(*children: int) -> bool:
    return {os.waitpid(child, 0)[1] for child in children} == {0}


class Beacon:
    """A pipe on which a child says that it got somewhere, so that its parent need not guess."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def light(self) -> None:
        os.write(self.writer, b"!")

    def wait(self) -> None:
        assert os.read(self.reader, 1) == b"!"

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


def test_processes_together_never_exceed_a_capacity() -> None:
    state = FleetState(workers=4)
    slot = state.claim(digest(1))
    state.set_capacity(slot, configured=100)
    start = Beacon()

    def take_sixty(worker: int) -> None:
        state.worker = worker
        start.wait()
        got = sum(state.acquire(slot) for _ in range(60))
        assert got == 60 or not state.acquire(slot)

    children = [fork(lambda number=worker: take_sixty(number)) for worker in range(4)]  # type: ignore[misc]
    for _ in children:
        start.light()
    assert ended_well(*children)
    start.close()
    assert state.in_flight(slot) == 100
    assert state.gates[slot] == 1
    assert sum(state.reclaim(worker) for worker in range(4)) == 100
    assert state.in_flight(slot) == 0
    assert state.gates[slot] == 0


def test_counts_are_exact_after_processes_hammered_them() -> None:
    state = FleetState(workers=3)
    slot = state.claim(digest(1))
    state.set_capacity(slot, configured=2)

    def hammer(worker: int) -> None:
        state.worker = worker
        for _ in range(20_000):
            if state.acquire(slot):
                assert 1 <= state.in_flight(slot) <= 2
                assert state.release(slot)

    children = [fork(lambda number=worker: hammer(number)) for worker in range(3)]  # type: ignore[misc]
    assert ended_well(*children)
    assert state.in_flight(slot) == 0
    assert state.gates[slot] == 0


def test_a_killed_workers_share_is_reclaimed_and_no_others() -> None:
    state = FleetState(workers=2)
    slot = state.claim(digest(1))
    state.set_capacity(slot, configured=8)
    assert state.acquire(slot)
    ready, never = Beacon(), Beacon()

    def hold_seven() -> None:
        state.worker = 1
        assert all(state.acquire(slot) for _ in range(7))
        ready.light()
        never.wait()

    child = fork(hold_seven)
    ready.wait()
    assert (state.in_flight(slot), state.gates[slot]) == (8, 1)
    os.kill(child, signal.SIGKILL)
    assert not ended_well(child)
    assert state.reclaim(1) == 7
    assert (state.in_flight(slot), state.gates[slot]) == (1, 0)
    assert state.reclaim(1) == 0
    ready.close()
    never.close()


def test_a_worker_killed_in_the_middle_of_a_change_leaves_nothing_behind() -> None:
    # Where the kill falls is the kernel's choice; one in four or five falls between a lock and its unlock.
    state = FleetState(slots=4, workers=2)
    slot, progress = state.claim(digest(1)), state.claim(digest(3))
    state.set_capacity(slot, configured=3)

    def hammer(done: float) -> None:
        state.worker = 1
        while True:
            for _ in range(20):
                if state.acquire(slot):
                    state.release(slot)
            state.release_slot(state.claim(digest(2)))
            done += 1
            state.note_check(progress, done)

    for kill in range(60):
        begin = kill * 1e6
        child = fork(lambda done=begin: hammer(done))  # type: ignore[misc]
        while state.report(progress)["last_check"] < begin + kill:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGKILL)
        assert not ended_well(child)
        assert state.reclaim(1) <= 1
        assert (state.in_flight(slot), state.gates[slot]) == (0, 0)
        assert [state.acquire(slot) for _ in range(4)] == [True, True, True, False]
        assert all(state.release(slot) for _ in range(3))
    assert {state.claim(digest(number)) for number in (2, 4)} == {0, 1, 2, 3} - {slot, progress}


def test_a_change_of_health_is_seen_by_every_process() -> None:
    state = FleetState(workers=2)
    slot = state.claim(digest(1))
    before = state.generation
    assert ended_well(fork(lambda: None if state.count_failure(slot, 1) else os._exit(1)))
    assert state.generation == before + 1
    assert not state.healthy(slot)


def test_a_lease_that_crossed_a_fork_stays_its_first_processes() -> None:
    state = FleetState(workers=2)
    slot = state.claim(digest(1))
    leases = [Lease.take(state, slot, None)]

    def forget() -> None:
        state.worker = 1
        assert state.acquire(slot)
        leases.clear()
        assert state.in_flight(slot) == 2

    assert ended_well(fork(forget))
    assert state.in_flight(slot) == 2
    assert state.reclaim(1) == 1
