"""Endpoints that are one server: counted and full together, against a plain model; what a death leaves."""

import os
import signal
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from octoroute._lease import Lease
from octoroute._state import FleetState
from tests.test_state_workers import digest, ended_well, fork

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

SERVER = digest(100)


def pair(state: FleetState, learnt: int = 0) -> tuple[int, int]:
    """Two endpoints of one server."""
    slots = state.claim(digest(1), SERVER), state.claim(digest(2), SERVER)
    for slot in slots:
        state.set_capacity(slot, learnt=learnt)
    return slots


def test_a_server_gets_no_more_than_it_takes_under_whatever_names() -> None:
    state = FleetState()
    first, second = pair(state, learnt=3)
    other = state.claim(digest(3), digest(101))
    assert [state.acquire(slot) for slot in (first, second, first, second, first)] == [True] * 3 + [False] * 2
    assert (state.full(first), state.full(second), state.full(other)) == (True, True, False)
    assert (state.in_flight(first), state.in_flight(second)) == (2, 1)
    assert state.release(first)
    assert (state.full(first), state.full(second)) == (0, 0)
    assert state.acquire(second)
    assert Lease.take(state, first, None) is None


def test_an_endpoints_own_number_holds_for_it_alone_and_a_higher_one_for_its_server() -> None:
    state = FleetState()
    first, second = pair(state, learnt=3)
    state.set_capacity(first, configured=1)
    assert [state.acquire(first) for _ in range(2)] == [True, False]
    assert [state.acquire(second) for _ in range(3)] == [True, True, False]
    state.set_capacity(second, configured=5)
    assert [state.acquire(second) for _ in range(3)] == [True, True, False]
    state.release(first)
    assert [state.acquire(first) for _ in range(2)] == [True, False]


def test_a_server_that_tells_no_number_takes_what_each_endpoint_may_have() -> None:
    state = FleetState()
    first, second = pair(state)
    state.set_capacity(first, configured=1)
    assert [state.acquire(first) for _ in range(2)] == [True, False]
    assert all(state.acquire(second) for _ in range(50))


def test_load_counts_what_all_endpoints_of_a_server_have_there() -> None:
    state = FleetState()
    first, second = pair(state)
    assert all(state.acquire(slot) for slot in (first, first, second))
    # The three are ours, the fourth is not.
    for slot in (first, second):
        state.note_load(slot, 4, 0, 0.0, 10.0, own=3)
        assert state.report(slot)["running"] == 4


def test_what_an_endpoint_that_was_taken_out_has_under_way_counts_until_it_ends() -> None:
    state = FleetState()
    first, second = pair(state, learnt=2)
    assert state.acquire(first)
    state.release_slot(first)
    assert [state.acquire(second) for _ in range(2)] == [True, False]
    state.release(first)
    assert state.acquire(second)
    # Its place goes to an endpoint of another server, and has nothing to do with this one any more.
    small = FleetState(slots=2)
    first, second = pair(small, learnt=1)
    small.release_slot(first)
    new = small.claim(digest(3), digest(101))
    assert new == first
    assert small.acquire(new)
    assert [small.acquire(second) for _ in range(2)] == [True, False]
    assert small.acquire(new)


def test_a_server_is_found_again_as_long_as_it_has_a_name_and_is_new_after_its_last() -> None:
    state = FleetState(slots=4)
    first, second = pair(state, learnt=2)
    gate = state.server_gate(first)
    assert state.server_gate(second) == gate
    assert all(state.acquire(second) for _ in range(2))
    state.release_slot(first)
    third = state.claim(digest(3), SERVER)
    assert state.server_gate(third) == gate
    assert not state.acquire(third)
    assert all(state.release(second) for _ in range(2))
    state.release_slot(second)
    state.release_slot(third)
    # What it once told counts no longer.
    again = state.claim(digest(4), SERVER)
    assert all(state.acquire(again) for _ in range(9))


def test_there_are_as_many_servers_as_slots_and_those_of_the_gone_are_free() -> None:
    state = FleetState(slots=3)
    for turn in range(5):
        slots = [state.claim(digest(10 * turn + at), digest(100 + 10 * turn + at)) for at in range(3)]
        assert len({state.server_gate(slot) for slot in slots}) == 3
        for slot in slots:
            state.set_capacity(slot, learnt=1)
            assert [state.acquire(slot) for _ in range(2)] == [True, False]
            assert state.release(slot)
            state.release_slot(slot)


def test_a_digest_of_a_server_has_its_length() -> None:
    with pytest.raises(ValueError, match="not 16 or 3"):
        FleetState().claim(digest(1), b"gpu")


class Servers(RuleBasedStateMachine):
    """Four endpoints on two servers, in a table so small that homes collide, against who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.state = FleetState(slots=5, workers=2)
        self.fresh = count(10)
        self.servers = [0, 0, 0, 1]
        self.slots = [
            self.state.claim(digest(at), digest(100 + 5 * of)) for at, of in enumerate(self.servers)
        ]
        self.configured = [0] * 4
        self.learnt = [0] * 4
        self.holders: list[tuple[int, int]] = []

    def held(self, at: int) -> int:
        return sum(holder[0] == at for holder in self.holders)

    def full(self, at: int) -> bool:
        if 0 < self.configured[at] <= self.held(at):
            return True
        siblings = [other for other in range(4) if self.servers[other] == self.servers[at]]
        learnt = max(self.learnt[other] for other in siblings)
        most = max(learnt, *(self.configured[other] for other in siblings))
        return learnt > 0 and sum(map(self.held, siblings)) >= most

    @rule(at=st.integers(0, 3), worker=st.integers(0, 1))
    def acquire(self, at: int, worker: int) -> None:
        self.state.worker = worker
        vacant = not self.full(at)
        assert self.state.acquire(self.slots[at]) is vacant
        if vacant:
            self.holders.append((at, worker))

    @rule(at=st.integers(0, 3), worker=st.integers(0, 1))
    def release(self, at: int, worker: int) -> None:
        self.state.worker = worker
        assert self.state.release(self.slots[at]) is ((at, worker) in self.holders)
        if (at, worker) in self.holders:
            self.holders.remove((at, worker))

    @rule(at=st.integers(0, 3), capacity=st.integers(0, 3))
    def configure(self, at: int, capacity: int) -> None:
        self.configured[at] = capacity
        self.state.set_capacity(self.slots[at], configured=capacity)

    @rule(at=st.integers(0, 3), capacity=st.integers(0, 3))
    def learn(self, at: int, capacity: int) -> None:
        self.learnt[at] = capacity
        self.state.set_capacity(self.slots[at], learnt=capacity)

    @rule(worker=st.integers(0, 1))
    def lose_a_worker(self, worker: int) -> None:
        assert self.state.reclaim(worker) == sum(holder[1] == worker for holder in self.holders)
        self.holders = [holder for holder in self.holders if holder[1] != worker]
        # Its claims are gone with it; the other process has made its own.
        self.state.worker = 1 - worker
        self.state.reclaim(1 - worker)
        self.holders.clear()
        self.renew(range(4))

    @rule(at=st.integers(0, 3), server=st.integers(0, 1))
    def move(self, at: int, server: int) -> None:
        """A reload takes an endpoint out, and brings another, perhaps of the other server."""
        if self.held(at):
            return
        self.state.worker = 0
        self.state.release_slot(self.slots[at])
        self.servers[at] = server
        self.renew([at])

    def renew(self, places: "range | list[int]") -> None:
        self.state.worker = 0
        for at in places:
            self.configured[at] = self.learnt[at] = 0
            self.slots[at] = self.state.claim(digest(next(self.fresh)), digest(100 + 5 * self.servers[at]))

    @invariant()
    def counts_and_gates_agree(self) -> None:
        for at, slot in enumerate(self.slots):
            assert self.state.in_flight(slot) == self.held(at)
            assert self.state.full(slot) == self.full(at)


TestServers = Servers.TestCase
TestServers.settings = settings(derandomize=True, max_examples=80, stateful_step_count=40)


def test_processes_together_never_send_a_server_more_than_it_takes() -> None:
    state = FleetState(workers=3)
    slots = pair(state, learnt=2)

    def hammer(worker: int) -> None:
        state.worker = worker
        for turn in range(10_000):
            slot = slots[(turn + worker) % 2]
            if state.acquire(slot):
                assert (
                    1 <= state.in_flight(slots[0]) + state.in_flight(slots[1]) <= 3
                )  # read one after the other
                assert state.release(slot)

    assert ended_well(*[fork(lambda number=worker: hammer(number)) for worker in range(3)])  # type: ignore[misc]
    assert [state.in_flight(slot) for slot in slots] == [0, 0]
    assert [state.full(slot) for slot in slots] == [0, 0]
    assert [state.acquire(slots[at % 2]) for at in range(3)] == [True, True, False]


def test_a_worker_killed_in_the_middle_of_a_change_leaves_the_siblings_right() -> None:
    state = FleetState(slots=6, workers=2)
    slots = pair(state, learnt=3)
    progress = state.claim(digest(4))

    def hammer(done: float) -> None:
        state.worker = 1
        while True:
            for turn in range(20):
                if state.acquire(slots[turn % 2]):
                    state.release(slots[turn % 2])
            state.release_slot(state.claim(digest(3), SERVER))
            done += 1
            state.note_check(progress, done)

    for kill in range(40):
        begin = kill * 1e6
        child = fork(lambda done=begin: hammer(done))  # type: ignore[misc]
        while state.report(progress)["last_check"] < begin + kill:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGKILL)
        assert not ended_well(child)
        assert state.reclaim(1) <= 1
        assert [(state.in_flight(slot), state.full(slot)) for slot in slots] == [(0, 0)] * 2
        assert [state.acquire(slots[at % 2]) for at in range(4)] == [True, True, True, False]
        assert [state.release(slots[at % 2]) for at in range(3)] == [True] * 3
