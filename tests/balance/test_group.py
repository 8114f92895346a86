"""Picks: who may answer, when tables are made anew, and what a pick of None means."""

import math
import os
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from octoroute.balance.breaker import record_failure, record_success
from octoroute.balance.endpoint import Endpoint, EndpointSpec, FleetState, claim_endpoints
from octoroute.balance.group import FatalSelectionError, Group

SPEC = EndpointSpec("fast", "m", "http://h/v1")


def a_group(*specs: EndpointSpec, slow_start_s: float = 0.0) -> Group:
    state = FleetState(slots=64, workers=2)
    return Group("fast", claim_endpoints(specs, state), state, seed=1, slow_start_s=slow_start_s)


def named(*names: str, **changes: Any) -> list[EndpointSpec]:
    return [replace(SPEC, name=name, **changes) for name in names]


def picked(group: Group, count: int, tried: tuple[Endpoint, ...] = ()) -> Counter[str]:
    names: Counter[str] = Counter()
    for _ in range(count):
        lease = group.pick(tried)
        assert lease is not None
        names[lease.endpoint.spec.name] += 1
        lease.release()
    return names


def test_picks_follow_the_weights() -> None:
    group = a_group(*named("a", weight=3.0), *named("b", weight=1.0))
    assert group.probabilities() == [0.75, 0.25]
    counts = picked(group, 4000)
    assert 2850 <= counts["a"] <= 3150


def test_a_pick_holds_a_place_until_it_is_released() -> None:
    group = a_group(SPEC)
    lease = group.pick()
    assert lease is not None
    assert lease.endpoint is group.endpoints[0]
    assert lease.endpoint.in_flight == 1
    with lease:
        pass
    lease.release()
    assert lease.endpoint.in_flight == 0


def test_the_highest_priority_with_a_free_endpoint_answers() -> None:
    group = a_group(*named("low"), *named("high", "higher", priority=9, max_in_flight=1))
    leases = [group.pick() for _ in range(4)]
    names = [lease.endpoint.spec.name for lease in leases if lease]
    assert sorted(names[:2]) == ["high", "higher"]
    assert names[2:] == ["low", "low"]


def test_what_was_tried_is_not_picked_again() -> None:
    group = a_group(*named("a", "b", "c"))
    a, b, c = group.endpoints
    assert set(picked(group, 100, (a,))) == {"b", "c"}
    assert set(picked(group, 100, (a, c))) == {"b"}
    assert group.pick((a, b, c)) is None


def test_endpoints_of_an_earlier_snapshot_count_as_tried_and_strangers_do_not() -> None:
    group = a_group(*named("a", "b"))
    state = group.endpoints[0].state
    earlier = claim_endpoints(named("a", "z"), state)
    assert set(picked(group, 100, earlier)) == {"b"}


def test_unhealthy_and_draining_endpoints_are_not_picked_until_they_are_back() -> None:
    group = a_group(*named("a", "b", "c"))
    a, b, _ = group.endpoints
    assert set(picked(group, 200)) == {"a", "b", "c"}
    record_failure(a, 1)
    b.drain()
    assert set(picked(group, 200)) == {"c"}
    record_success(a, 1.0)
    assert set(picked(group, 200)) == {"a", "c"}
    b.drain(False)
    assert set(picked(group, 200)) == {"a", "b", "c"}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_what_another_worker_learns_changes_the_next_pick_here() -> None:
    group = a_group(*named("a", "b"))
    assert set(picked(group, 100)) == {"a", "b"}
    child = os.fork()
    if child == 0:
        record_failure(group.endpoints[0], 1)
        os._exit(0)
    os.waitpid(child, 0)
    assert set(picked(group, 100)) == {"b"}


def test_a_full_endpoint_is_passed_over_without_new_tables() -> None:
    group = a_group(*named("a", max_in_flight=1), *named("b"))
    generation = group.endpoints[0].state.generation
    leases = [group.pick((group.endpoints[1],)) for _ in range(2)]
    assert [lease is None for lease in leases] == [False, True]
    assert set(picked(group, 100)) == {"b"}
    leases.clear()
    assert set(picked(group, 100)) == {"a", "b"}
    assert group.endpoints[0].state.generation == generation


def test_a_tier_and_the_replicas_of_a_name_share_their_endpoints() -> None:
    tier = a_group(*named("a", "a", "b", max_in_flight=1))
    replicas = Group("a", tier.endpoints[:2], tier.endpoints[0].state)
    leases = [replicas.pick(), replicas.pick()]
    assert None not in leases
    assert replicas.pick() is None
    assert set(picked(tier, 50)) == {"b"}


def test_why_a_pick_gave_none_is_told() -> None:
    group = a_group(*named("a", "b", max_in_flight=1))
    a, b = group.endpoints
    assert group.vacancy() == "free"
    held = [group.pick()]
    assert group.vacancy() == "free"
    held.append(group.pick())
    assert group.pick() is None
    assert group.vacancy() == "full"
    assert group.vacancy([a]) == "full"
    assert group.vacancy([a, b]) == "all_tried"
    record_failure(a, 1)
    b.drain()
    assert group.pick() is None
    assert group.vacancy([a]) == "none_healthy"


def test_a_group_of_nobody_picks_nobody() -> None:
    group = a_group(slow_start_s=5.0)
    assert group.pick() is None
    assert group.vacancy() == "none_healthy"
    assert group.probabilities() == []
    assert not group.refresh(1.0)


def test_a_weight_set_live_counts_from_the_next_pick() -> None:
    group = a_group(*named("a", "b"))
    group.endpoints[0].state.set_weight(group.endpoints[0].slot, 3.0)
    assert group.probabilities() == [0.75, 0.25]


def test_after_a_recovery_the_weight_ramps_from_a_tenth_to_all_of_it() -> None:
    group = a_group(*named("a", "b"), slow_start_s=100.0)
    a = group.endpoints[0]
    assert not group.refresh(500.0)
    record_failure(a, 1)
    assert not group.refresh(900.0)
    record_success(a, 1000.0)
    # No clock was read, yet a pick knows that it can't be earlier than the recovery.
    assert group.probabilities() == pytest.approx([0.1 / 1.1, 1 / 1.1])
    for now, share in ((1000.0, 0.1), (1050.0, 0.55), (1099.0, 0.991)):
        assert group.refresh(now)
        assert group.probabilities() == pytest.approx([share / (1 + share), 1 / (1 + share)])
    assert not group.refresh(1100.0)
    assert group.probabilities() == [0.5, 0.5]
    assert not group.refresh(1101.0)


def test_the_smallest_weight_that_there_is_ramps_to_no_less_than_itself() -> None:
    group = a_group(*(replace(spec, weight=5e-324) for spec in named("a", "b")), slow_start_s=100.0)
    record_failure(group.endpoints[0], 1)
    record_success(group.endpoints[0], 1000.0)
    assert group.refresh(1001.0)
    assert group.probabilities() == [0.5, 0.5]


def test_endpoints_start_at_their_full_weight() -> None:
    group = a_group(*named("a", "b"), slow_start_s=1e9)
    assert not group.refresh(0.0)
    assert group.probabilities() == [0.5, 0.5]


def test_without_slow_start_a_recovered_endpoint_has_its_weight_at_once() -> None:
    group = a_group(*named("a", "b"))
    record_failure(group.endpoints[0], 1)
    record_success(group.endpoints[0], 1.0)
    assert not group.refresh(1.0)
    assert group.probabilities() == [0.5, 0.5]


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_corrupt_weight_is_fatal_at_every_pick_and_not_before(weight: float) -> None:
    group = a_group(*named("good"), *named("bad", weight=weight))
    for _ in range(2):
        with pytest.raises(
            FatalSelectionError, match=r"^MEMORY CORRUPTION DETECTED: tier 'fast', priority 1"
        ):
            group.pick()
    with pytest.raises(FatalSelectionError):
        group.vacancy()
    assert [endpoint.in_flight for endpoint in group.endpoints] == [0, 0]


def steady(group: Group, tried: tuple[Endpoint, ...] = ()) -> Counter[str]:
    names: Counter[str] = Counter()
    for _ in range(200):
        lease = group.pick_steady(tried)
        assert lease is not None
        names[lease.endpoint.spec.name] += 1
        lease.release()
    assert [endpoint.in_flight for endpoint in group.endpoints] == [0] * len(group.endpoints)
    return names


def test_a_retry_goes_to_an_endpoint_whose_last_request_did_not_fail() -> None:
    group = a_group(*named("a", "b", "c"))
    a, b, c = group.endpoints
    record_failure(a, 3)
    record_failure(b, 3)
    assert steady(group).keys() == {"c"}
    assert steady(group, (c,)).keys() == {"a", "b"}
    record_success(b, 1.0)
    assert steady(group, (c,)).keys() == {"b"}


def test_a_retry_does_not_leave_the_highest_priority_for_that() -> None:
    group = a_group(*named("low"), *named("high", priority=9))
    record_failure(group.endpoints[1], 3)
    assert steady(group).keys() == {"high"}
