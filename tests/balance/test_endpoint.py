"""Endpoints: who is who, and what survives a reload."""

import gc
from dataclasses import replace

import pytest

from octoroute.balance.endpoint import (
    Endpoint,
    EndpointSpec,
    FleetState,
    Lease,
    claim_endpoints,
    identity,
)

SPEC = EndpointSpec("fast", "qwen3-8b", "http://gpu-1:8080/v1")


def test_an_identity_is_16_bytes_of_tier_name_address_and_ordinal() -> None:
    others = [
        identity(SPEC, 1),
        identity(replace(SPEC, tier="deep"), 0),
        identity(replace(SPEC, name="qwen3"), 0),
        identity(replace(SPEC, base_url="http://gpu-2:8080/v1"), 0),
    ]
    assert len({identity(SPEC, 0), *others}) == 5
    assert {len(other) for other in others} == {16}
    assert identity(replace(SPEC, weight=3.0, priority=9, api_key="new"), 0) == identity(SPEC, 0)


def test_replicas_that_share_a_name_or_all_of_it_are_different_endpoints() -> None:
    state = FleetState()
    specs = [SPEC, replace(SPEC, base_url="http://gpu-2:8080/v1"), SPEC]
    endpoints = claim_endpoints(specs, state)
    assert [endpoint.spec for endpoint in endpoints] == specs
    assert len({endpoint.slot for endpoint in endpoints}) == 3
    state.count_failure(endpoints[0].slot, 1)
    assert [endpoint.healthy for endpoint in endpoints] == [False, True, True]


def test_live_state_survives_a_reload_and_the_new_config_counts() -> None:
    state = FleetState()
    before = Endpoint(replace(SPEC, max_in_flight=4), state)
    lease = Lease.take(state, before.slot, before)
    state.count_failure(before.slot, 1)
    before.drain()
    after = Endpoint(replace(SPEC, max_in_flight=1, weight=5.0), state)
    del before, lease
    gc.collect()
    assert not after.healthy
    assert after.draining
    assert after.consecutive_failures == 1
    assert (after.capacity, after.weight, after.in_flight) == (1, 5.0, 0)


def test_an_endpoint_that_nobody_holds_gives_its_slot_back() -> None:
    state = FleetState(slots=1)
    endpoint = Endpoint(SPEC, state)
    lease = Lease.take(state, endpoint.slot, endpoint)
    del endpoint
    with pytest.raises(MemoryError):  # a request is still there
        Endpoint(replace(SPEC, name="other"), state)
    assert lease is not None
    lease.release()
    del lease
    assert Endpoint(replace(SPEC, name="other"), state).slot == 0


def test_an_endpoint_shows_its_live_state() -> None:
    state = FleetState()
    endpoint = Endpoint(SPEC, state)
    assert (endpoint.healthy, endpoint.draining, endpoint.full) == (True, False, False)
    assert repr(endpoint) == "<Endpoint fast/qwen3-8b, healthy, 0 in flight>"
    endpoint.learn_capacity(1)
    lease = Lease.take(state, endpoint.slot, endpoint)
    assert (endpoint.in_flight, endpoint.capacity, endpoint.full) == (1, 1, True)
    assert repr(endpoint) == "<Endpoint fast/qwen3-8b, healthy, 1 of 1 in flight>"
    endpoint.drain()
    assert repr(endpoint) == "<Endpoint fast/qwen3-8b, draining, 1 of 1 in flight>"
    endpoint.drain(False)
    state.count_failure(endpoint.slot, 1)
    assert repr(endpoint) == "<Endpoint fast/qwen3-8b, unhealthy, 1 of 1 in flight>"
    assert endpoint.seen["failures"] == 1
    assert lease is not None
    assert lease.endpoint is endpoint


def test_a_weight_set_live_replaces_the_configured_one_until_it_is_put_back() -> None:
    endpoint = Endpoint(replace(SPEC, weight=2.0), FleetState())
    endpoint.state.set_weight(endpoint.slot, 7.0)
    assert endpoint.weight == 7.0
    endpoint.state.set_weight(endpoint.slot, 0.0)
    assert endpoint.weight == 2.0


def test_a_key_is_never_shown() -> None:
    spec = replace(SPEC, api_key="s3cret")
    assert "s3cret" not in repr(spec)
    assert "s3cret" not in repr(Endpoint(spec, FleetState()))
