"""The shared table in one process: claims, leases, health, and counts against a plain model."""

import gc
import math
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from octoroute._lease import Lease
from octoroute._state import FleetState


def digest(number: int) -> bytes:
    return number.to_bytes(16, "little")


# Claims


def test_a_claim_finds_its_slot_again_with_its_state() -> None:
    state = FleetState(slots=8)
    slot = state.claim(digest(1))
    state.count_failure(slot, 1)
    assert state.claim(digest(2)) != slot
    assert state.claim(digest(1)) == slot
    assert not state.healthy(slot)


def test_a_fresh_slot_is_healthy_and_has_seen_nothing() -> None:
    state = FleetState(slots=2)
    slot = state.claim(digest(5))
    assert state.healthy(slot)
    assert not state.draining(slot)
    assert (state.in_flight(slot), state.capacity(slot), state.gates[slot]) == (0, 0, 0)
    assert state.weight(slot) == 0.0
    assert state.report(slot) == {
        "healthy_since": -math.inf,
        "last_check": -math.inf,
        "last_activity": -math.inf,
        "ttft_s": -1.0,
        "load_at": -math.inf,
        "kv_use": 0.0,
        "failures": 0,
        "successes": 0,
        "running": 0,
        "waiting": 0,
    }
    assert not state.asleep(slot)


def test_a_full_table_refuses_until_a_slot_is_released() -> None:
    state = FleetState(slots=3)
    slots = [state.claim(digest(number)) for number in range(3)]
    assert sorted(slots) == [0, 1, 2]
    with pytest.raises(MemoryError, match="all 3 slots"):
        state.claim(digest(3))
    state.release_slot(slots[1])
    assert state.claim(digest(3)) == slots[1]


def test_a_released_slot_is_not_reused_while_requests_are_in_flight_there() -> None:
    state = FleetState(slots=1)
    slot = state.claim(digest(1))
    lease = Lease.take(state, slot, None)
    assert lease is not None
    state.release_slot(slot)
    with pytest.raises(MemoryError):
        state.claim(digest(2))
    lease.release()
    assert state.claim(digest(2)) == slot


def test_a_slot_that_lost_its_last_claim_forgets_its_health_and_capacity() -> None:
    state = FleetState(slots=4)
    slot = state.claim(digest(1))
    assert state.claim(digest(1)) == slot
    state.count_failure(slot, 1)
    state.set_draining(slot, True)
    state.set_kind(slot, 3)
    state.set_capacity(slot, configured=1)
    state.release_slot(slot)
    assert not state.healthy(slot)
    assert state.kind(slot) == 3
    state.release_slot(slot)
    assert state.claim(digest(1)) == slot
    assert state.healthy(slot)
    assert not state.draining(slot)
    assert state.kind(slot) == 0
    assert state.capacity(slot) == 0


def test_a_claim_behind_a_released_neighbour_is_still_found() -> None:
    state = FleetState(slots=4)
    first, second, third = (state.claim(digest(number)) for number in (0, 4, 8))  # all begin at slot 0
    assert (first, second, third) == (0, 1, 2)
    state.release_slot(second)
    assert state.claim(digest(8)) == third
    assert state.claim(digest(12)) == second
    assert state.claim(digest(4)) == 3


def test_slots_and_digests_that_are_none_are_refused() -> None:
    state = FleetState(slots=4, workers=2)
    for slot in (-1, 0, 4, 10**6):
        for use in (state.acquire, state.release, state.healthy, state.report, state.release_slot):
            with pytest.raises(IndexError):
                use(slot)
    with pytest.raises(ValueError, match="16 bytes"):
        state.claim(b"short")
    with pytest.raises(ValueError, match="worker 2 of 2"):
        state.worker = 2
    with pytest.raises(ValueError, match="worker -1 of 2"):
        state.reclaim(-1)
    with pytest.raises(ValueError, match="at least one"):
        FleetState(slots=0)
    slot = state.claim(digest(1))
    for weight in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="weight"):
            state.set_weight(slot, weight)


# Leases


def test_a_lease_counts_once_however_often_it_is_released() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    first, second = Lease.take(state, slot, "here"), Lease.take(state, slot, "here")
    assert first is not None
    assert second is not None
    assert first.endpoint == "here"
    assert state.in_flight(slot) == 2
    for _ in range(3):
        first.release()
        assert state.in_flight(slot) == 1
    with second:
        assert state.in_flight(slot) == 1
    second.release()
    assert state.in_flight(slot) == 0


def test_a_lease_that_is_dropped_is_given_back() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    lease = Lease.take(state, slot, None)
    assert state.in_flight(slot) == 1
    del lease
    assert state.in_flight(slot) == 0


def test_a_lease_keeps_the_table_alive() -> None:
    state = FleetState()
    lease = Lease.take(state, state.claim(digest(1)), None)
    gates = state.gates
    del state
    gc.collect()
    assert lease is not None
    lease.release()
    assert gates[1] == 0


def test_no_count_falls_below_zero() -> None:
    state = FleetState(workers=2)
    slot = state.claim(digest(1))
    assert state.acquire(slot)
    state.worker = 1
    assert not state.release(slot)  # the other worker's
    assert state.in_flight(slot) == 1
    state.worker = 0
    assert state.release(slot)
    assert not state.release(slot)
    assert state.in_flight(slot) == 0


def test_a_slot_takes_as_many_as_its_capacity_and_says_when_it_is_full() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    state.set_capacity(slot, configured=2)
    assert [state.acquire(slot) for _ in range(3)] == [True, True, False]
    assert Lease.take(state, slot, None) is None
    assert state.gates[slot] == 1
    state.release(slot)
    assert state.gates[slot] == 0
    assert state.in_flight(slot) == 1


def test_a_configured_capacity_goes_before_a_learnt_one() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    state.set_capacity(slot, learnt=4)
    assert state.capacity(slot) == 4
    state.set_capacity(slot, configured=2)
    assert state.capacity(slot) == 2
    state.set_capacity(slot, configured=0)
    assert state.capacity(slot) == 4


def test_a_capacity_below_the_requests_in_flight_closes_the_gate_until_they_end() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    assert all(state.acquire(slot) for _ in range(3))
    state.set_capacity(slot, configured=2)
    assert state.gates[slot] == 1
    state.release(slot)
    assert not state.acquire(slot)
    state.release(slot)
    assert state.acquire(slot)


# Health and observations


def test_failures_in_a_row_fell_a_slot_and_a_success_heals_it() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    assert [state.count_failure(slot, 3) for _ in range(4)] == [False, False, True, False]
    assert state.report(slot)["failures"] == 4
    assert state.available([slot]) == b"\0"
    assert state.count_success(slot, 1, 50.0)
    assert not state.count_success(slot, 1, 51.0)
    assert state.healthy_since(slot) == 50.0
    assert state.report(slot)["failures"] == 0
    assert state.available([slot]) == b"\1"


def test_a_failure_starts_the_count_of_successes_anew() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    state.count_failure(slot, 1)
    assert not state.count_success(slot, 2, 1.0)
    state.count_failure(slot, 1)
    assert not state.count_success(slot, 2, 2.0)
    assert state.count_success(slot, 2, 3.0)


def test_the_generation_grows_with_what_the_tables_are_built_from_and_nothing_else() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    changes: list[Callable[[], object]] = [
        lambda: state.count_failure(slot, 1),
        lambda: state.count_success(slot, 1, 0.0),
        lambda: state.set_draining(slot, True),
        lambda: state.set_draining(slot, False),
        lambda: state.set_weight(slot, 2.5),
    ]
    for change in changes:
        before = state.generation
        change()
        assert state.generation == before + 1
    before = state.generation
    state.count_failure(slot, 3)
    state.count_success(slot, 1, 0.0)
    state.set_draining(slot, False)
    state.set_capacity(slot, learnt=1)
    state.acquire(slot)
    state.note_load(slot, 1, 2, 0.5, 3.0)
    assert state.generation == before
    assert state.weight(slot) == 2.5


def test_what_was_seen_of_a_server_is_reported() -> None:
    state = FleetState()
    slot = state.claim(digest(1))
    state.note_check(slot, 10.0)
    state.note_activity(slot, 11.0)
    state.note_load(slot, 3, 4, 0.25, 12.0)
    state.note_ttft(slot, 0.8)
    assert state.report(slot)["ttft_s"] == pytest.approx(0.8)
    state.note_ttft(slot, 1.6)
    seen = state.report(slot)
    assert seen["ttft_s"] == pytest.approx(0.9)  # 7/8 of 0.8 and 1/8 of 1.6
    assert (seen["last_check"], seen["last_activity"]) == (10.0, 11.0)
    assert (seen["running"], seen["waiting"], seen["kv_use"], seen["load_at"]) == (3, 4, 0.25, 12.0)


def test_one_worker_probes_until_it_stops_asking_or_dies() -> None:
    state = FleetState(workers=3)
    state.worker = 1
    assert state.may_probe(100.0, 10.0)
    state.worker = 2
    assert not state.may_probe(109.0, 10.0)
    assert state.may_probe(110.0, 10.0)
    assert state.may_probe(119.0, 10.0)
    state.worker = 1
    assert not state.may_probe(120.0, 10.0)
    state.reclaim(2)
    assert state.may_probe(120.0, 10.0)


class Counts(RuleBasedStateMachine):
    """Leases of three workers, in any order, against a plain list of who holds what."""

    def __init__(self) -> None:
        super().__init__()
        self.state = FleetState(slots=2, workers=3)
        self.slots = [self.state.claim(digest(number)) for number in range(2)]
        self.capacity = dict.fromkeys(self.slots, 0)
        self.holders: list[tuple[int, int]] = []

    def held(self, slot: int) -> int:
        return sum(holder[0] == slot for holder in self.holders)

    @rule(number=st.integers(0, 1), worker=st.integers(0, 2))
    def acquire(self, number: int, worker: int) -> None:
        slot = self.slots[number]
        self.state.worker = worker
        vacant = not self.capacity[slot] or self.held(slot) < self.capacity[slot]
        assert self.state.acquire(slot) is vacant
        if vacant:
            self.holders.append((slot, worker))

    @rule(number=st.integers(0, 1), worker=st.integers(0, 2))
    def release(self, number: int, worker: int) -> None:
        holder = (self.slots[number], worker)
        self.state.worker = worker
        assert self.state.release(holder[0]) is (holder in self.holders)
        if holder in self.holders:
            self.holders.remove(holder)

    @rule(number=st.integers(0, 1), capacity=st.integers(0, 4))
    def configure(self, number: int, capacity: int) -> None:
        self.capacity[self.slots[number]] = capacity
        self.state.set_capacity(self.slots[number], configured=capacity)

    @rule(worker=st.integers(0, 2))
    def reclaim(self, worker: int) -> None:
        assert self.state.reclaim(worker) == sum(holder[1] == worker for holder in self.holders)
        self.holders = [holder for holder in self.holders if holder[1] != worker]

    @invariant()
    def totals_and_gates_agree(self) -> None:
        for slot in self.slots:
            assert self.state.in_flight(slot) == self.held(slot)
            assert self.state.gates[slot] == (0 < self.capacity[slot] <= self.held(slot))


TestCounts = Counts.TestCase
TestCounts.settings = settings(derandomize=True, max_examples=80, stateful_step_count=40)
