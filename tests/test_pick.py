"""Picks by load: the lighter of two, and the ring with its bounds, against what the paper promises."""

import math
import struct
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._pick import Loads
from octoroute._prefix import PrefixIndex
from octoroute._state import FleetState

HELD, OWNED, SPILLED = range(3)


def hashes(*words: int) -> bytes:
    return struct.pack(f"{len(words)}Q", *words)


def key(number: int) -> bytes:
    """Something like the hash of a session: its place on the ring, and the one beginning there is."""
    word = (number + 1) * 0x9E3779B97F4A7C15 % 2**64
    return hashes(word, word)


class Fleet:
    """Endpoints with a table, a ring and an index."""

    def __init__(self, count: int, weights: list[float] | None = None, priorities: list[int] | None = None):
        self.state = FleetState(slots=max(count, 1))
        self.slots = [self.state.claim(number.to_bytes(16, "big")) for number in range(count)]
        self.weights = weights or [1.0] * count
        self.priorities = priorities or [1] * count
        self.index = PrefixIndex(64)
        self.loads = self.made()

    def made(self, eligible: list[bool] | None = None) -> Loads:
        loads = Loads(self.state, self.slots, self.priorities, self.index)
        loads.rebuild(bytes(eligible or [True] * len(self.slots)), self.weights)
        loads.make_ring(self.weights)
        return loads

    def busy(self, endpoint: int, count: int) -> None:
        for _ in range(count):
            self.state.acquire(self.slots[endpoint])


# The ring


def test_a_hash_has_the_same_owner_in_every_worker_and_after_a_reload() -> None:
    one, other = Fleet(7), Fleet(7)
    assert [one.loads.choose(key(at)) for at in range(200)] == [
        other.made().choose(key(at)) for at in range(200)
    ]


def test_an_endpoint_that_leaves_moves_only_what_it_had() -> None:
    fleet = Fleet(6)
    before = [fleet.loads.choose(key(at)) for at in range(500)]
    after = [fleet.made([at != 2 for at in range(6)]).choose(key(at)) for at in range(500)]
    assert 2 in before
    assert 2 not in after
    assert all(now == then for then, now in zip(before, after, strict=True) if then != 2)
    assert len({now for then, now in zip(before, after, strict=True) if then == 2}) > 1


def test_endpoints_own_shares_of_the_ring_as_their_weights_are() -> None:
    fleet = Fleet(4, [1.0, 1.0, 2.0, 4.0])
    owned = Counter(fleet.loads.choose(key(at)) for at in range(8000))
    for endpoint, weight in enumerate(fleet.weights):
        assert 0.6 * weight / 8 < owned[endpoint] / 8000 < 1.5 * weight / 8


def test_weights_of_any_size_make_a_ring() -> None:
    for weights in ([1e306] * 3, [5e-324] * 3, [1e-300, 1e300, 1.0]):
        assert Fleet(3, weights).loads.choose(key(1)) in range(3)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 12), st.sampled_from([0.5, 1.0, 3.0]), st.integers(1, 2), *[st.booleans()] * 3
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 10**6),
)
@settings(max_examples=300)
def test_the_owner_is_chosen_unless_it_is_over_its_bound_and_then_the_least_loaded(
    members: list[tuple[int, float, int, bool, bool, bool]], number: int
) -> None:
    busy, weights, priorities, sick, tried, full = (list(column) for column in zip(*members, strict=True))
    fleet = Fleet(len(members), weights, priorities)
    for endpoint, count in enumerate(busy):
        fleet.busy(endpoint, count)
        if full[endpoint] and count:
            fleet.state.set_capacity(fleet.slots[endpoint], configured=count)
    eligible = [not one for one in sick]
    shut = [bool(fleet.state.gates[slot]) for slot in fleet.slots]
    left = [at for at in range(len(members)) if eligible[at] and not tried[at] and not shut[at]]
    excluded = [at for at in range(len(members)) if tried[at]]
    loads = fleet.made(eligible)
    chosen = loads.choose(key(number), excluded)
    if not left:
        assert chosen == -1
        return
    top = max(priorities[at] for at in left)
    group = [at for at in range(len(members)) if eligible[at] and priorities[at] == top]
    left = [at for at in left if priorities[at] == top]
    # Who owns it is what the ring says when nobody is busy.
    idle = Fleet(len(members), weights, priorities).made([at in left for at in range(len(members))])
    owner = idle.choose(key(number))
    share = Fraction(5, 4) * (sum(busy[at] for at in group) + 1) / sum(Fraction(weights[at]) for at in group)
    if busy[owner] < math.ceil(share * Fraction(weights[owner])):
        assert chosen == owner
        assert loads.take_tally() == (0, 1, 0)
    else:
        assert chosen in left
        assert (busy[chosen] + 1) / weights[chosen] == min((busy[at] + 1) / weights[at] for at in left)
        assert loads.take_tally() == (0, 0, 1)


def test_one_hash_for_all_loads_nobody_beyond_five_quarters_of_the_average() -> None:
    fleet = Fleet(8)
    for count in range(1, 201):
        endpoint = fleet.loads.choose(key(1))
        fleet.busy(endpoint, 1)
        fleet.loads.note(key(1), endpoint)
        bound = math.ceil(1.25 * count / 8)
        assert max(fleet.state.in_flight(slot) for slot in fleet.slots) <= bound


# Who was sent it before


def test_who_was_sent_the_longest_beginning_is_chosen_before_the_owner() -> None:
    fleet = Fleet(5)
    owner = fleet.loads.choose(hashes(1, 1))
    first, second = [at for at in range(5) if at != owner][:2]
    fleet.loads.note(hashes(0, 11 << 20, 12 << 20), first)
    fleet.loads.note(hashes(0, 11 << 20), second)
    assert fleet.loads.choose(hashes(1, 11 << 20, 12 << 20, 13 << 20)) == first
    assert fleet.loads.choose(hashes(1, 11 << 20, 14 << 20)) in (first, second)
    assert fleet.loads.choose(hashes(1, 15 << 20)) == owner
    assert fleet.loads.take_tally() == (2, 2, 0)
    assert fleet.loads.take_tally() == (0, 0, 0)


def test_of_several_that_were_sent_it_the_one_with_less_to_do_is_chosen() -> None:
    fleet = Fleet(4)
    for endpoint in (1, 2):
        fleet.loads.note(key(5), endpoint)
    fleet.busy(2, 1)
    assert fleet.loads.choose(key(5)) == 1
    fleet.busy(1, 2)
    fleet.busy(0, 2)
    assert fleet.loads.choose(key(5)) == 2


def test_one_that_was_sent_it_but_is_full_tried_or_gone_is_passed_over() -> None:
    fleet = Fleet(3)
    owner = fleet.loads.choose(key(5))
    other = (owner + 1) % 3
    fleet.loads.note(key(5), other)
    assert fleet.loads.choose(key(5)) == other
    assert fleet.loads.choose(key(5), [other]) == owner
    assert fleet.made([at != other for at in range(3)]).choose(key(5)) == owner
    fleet.state.set_capacity(fleet.slots[other], configured=1)
    fleet.busy(other, 1)
    assert fleet.loads.choose(key(5)) == owner


def test_a_backup_that_was_sent_it_does_not_go_before_a_free_primary() -> None:
    fleet = Fleet(2, priorities=[1, 2])
    fleet.loads.note(key(5), 0)
    assert fleet.loads.choose(key(5)) == 1
    assert fleet.loads.choose(key(5), [1]) == 0


def test_a_slot_of_another_group_in_the_index_is_passed_over() -> None:
    fleet = Fleet(3)
    fleet.index.note(struct.unpack("2Q", key(5))[1], 1000)
    assert fleet.loads.choose(key(5)) in range(3)


# Loads


def test_the_lighter_of_two_is_the_one_with_less_for_its_weight() -> None:
    fleet = Fleet(2, [1.0, 3.0])
    fleet.busy(0, 1)
    fleet.busy(1, 3)
    assert fleet.loads.lighter(0, 1) == 1
    assert fleet.loads.lighter(1, 0) == 1
    fleet.busy(1, 4)
    assert fleet.loads.lighter(1, 0) == 0
    assert fleet.loads.lighter(1, -1) == 1


def test_of_two_priorities_the_first_is_kept() -> None:
    fleet = Fleet(2, priorities=[2, 1])
    fleet.busy(0, 9)
    assert fleet.loads.lighter(0, 1) == 0


def test_what_a_server_has_of_others_counts_until_it_is_stale() -> None:
    fleet = Fleet(2)
    fleet.busy(0, 2)
    fleet.busy(1, 1)
    fleet.state.note_load(fleet.slots[1], 4, 0, 0.0, 100.0)
    assert fleet.loads.lighter(0, 1) == 1  # nothing is trusted yet
    fleet.loads.trust_since(100.0)
    assert fleet.loads.lighter(0, 1) == 0
    fleet.loads.trust_since(100.1)
    assert fleet.loads.lighter(0, 1) == 1


def test_our_own_requests_count_as_they_are_and_not_as_the_server_said() -> None:
    fleet = Fleet(2)
    fleet.loads.trust_since(0.0)
    fleet.busy(0, 1)
    fleet.busy(1, 3)
    fleet.state.note_load(fleet.slots[1], 3, 0, 0.0, 1.0)
    for _ in range(3):
        fleet.state.release(fleet.slots[1])
    assert fleet.loads.lighter(0, 1) == 1


def test_a_request_that_ended_while_the_server_was_asked_is_nobody_elses() -> None:
    fleet = Fleet(2)
    fleet.loads.trust_since(0.0)
    fleet.busy(0, 1)
    fleet.state.note_load(fleet.slots[1], 2, 0, 0.0, 1.0, 2)
    assert fleet.loads.lighter(0, 1) == 1


def test_requests_that_wait_and_a_full_cache_weigh_more() -> None:
    for waiting, kv_use in ((2, 0.0), (0, 1.0)):
        fleet = Fleet(2)
        fleet.loads.trust_since(0.0)
        fleet.busy(0, 3)
        fleet.busy(1, 2)
        fleet.state.note_load(fleet.slots[1], 0, 0, 0.0, 1.0, 2)
        assert fleet.loads.lighter(0, 1) == 1
        fleet.state.note_load(fleet.slots[1], 2 - waiting, waiting, kv_use, 1.0, 2)
        assert fleet.loads.lighter(0, 1) == 0


# What is refused


def test_what_is_out_of_range_is_refused() -> None:
    fleet = Fleet(2)
    with pytest.raises(IndexError):
        fleet.loads.choose(key(1), [2])
    with pytest.raises(IndexError):
        fleet.loads.lighter(2, 0)
    with pytest.raises(IndexError):
        fleet.loads.lighter(0, 2)
    with pytest.raises(IndexError):
        fleet.loads.note(key(1), 2)
    with pytest.raises(ValueError, match="exactly 2 values"):
        fleet.loads.rebuild(b"\1", [1.0, 1.0])
    with pytest.raises(ValueError, match="needs exactly 2 weights"):
        fleet.loads.make_ring([1.0])
    with pytest.raises(ValueError, match="needs a hash"):
        fleet.loads.choose(b"")
    with pytest.raises(ValueError, match="same length"):
        Loads(fleet.state, fleet.slots, [1])
    with pytest.raises(IndexError, match="not in use"):
        Loads(FleetState(slots=4), [1], [1])
    without_index = Loads(fleet.state, fleet.slots, [1, 1])
    with pytest.raises(ValueError, match="an index"):
        without_index.choose(key(1))
    with pytest.raises(IndexError, match="no index"):
        without_index.note(key(1), 0)


def test_an_exclusion_holds_for_its_own_choice_only() -> None:
    fleet = Fleet(2)
    owner = fleet.loads.choose(key(1))
    assert fleet.loads.choose(key(1), [owner]) == 1 - owner
    assert fleet.loads.choose(key(1)) == owner
    assert fleet.loads.choose(key(1), [0, 1]) == -1


def test_a_group_of_nobody_has_nobody_to_choose() -> None:
    loads = Loads(FleetState(slots=1), [], [], PrefixIndex(1))
    loads.rebuild(b"", [])
    loads.make_ring([])
    assert loads.choose(key(1)) == -1
