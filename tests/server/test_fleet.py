"""What a request to the admin API may say, and what is told of an endpoint."""

from typing import Any

import pytest

from octoroute.balance.endpoint import EndpointSpec, FleetState, claim_endpoints
from octoroute.errors import InvalidRequest
from octoroute.server.fleet import entry, numbered, read_weight, route_of


@pytest.mark.parametrize(("value", "read"), [(2, 2.0), (0.001, 0.001), (1e6, 1e6), (None, None)])
def test_a_weight_is_a_number_or_null_for_the_configured_one(value: Any, read: float | None) -> None:
    assert read_weight({"weight": value}) == read


@pytest.mark.parametrize("value", [0, -1, True, "2", [1], 1e7, float("nan"), float("inf"), 10**400])
def test_no_other_weight_is_taken(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="weight must be a number above 0 and at most 1000000") as caught:
        read_weight({"weight": value})
    assert caught.value.param == "weight"


def test_a_body_without_a_weight_or_with_more_than_that_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="weight is missing"):
        read_weight({})
    with pytest.raises(InvalidRequest, match="the field 'wieght' is not known here"):
        read_weight({"weight": 1, "wieght": 2})


def test_a_path_belongs_to_the_route_of_its_last_word() -> None:
    assert route_of("/admin/endpoints/fast/meta/llama/drain") == "/admin/endpoints/{tier}/{name}/drain"


def specs(*names: str) -> list[EndpointSpec]:
    return [EndpointSpec(tier="fast", name=name, base_url="http://secret-host:1/v1") for name in names]


def test_replicas_are_numbered_by_their_name() -> None:
    endpoints = claim_endpoints(specs("a", "b", "a"), FleetState(slots=8))
    assert [(endpoint.spec.name, number) for endpoint, number in numbered(endpoints)] == [
        ("a", 1),
        ("b", 1),
        ("a", 2),
    ]


def test_an_endpoint_that_nothing_is_known_of_yet_has_nulls_and_never_its_address() -> None:
    [endpoint] = claim_endpoints(specs("a"), FleetState(slots=8))
    told = entry(endpoint, 1, 100.0)
    assert (told["load"], told["ttft_ms"], told["last_check_seconds_ago"]) == (None, None, None)
    assert (told["weight"], told["healthy"], told["draining"]) == (1.0, True, False)
    assert "secret-host" not in str(told)


def test_load_is_told_with_its_age() -> None:
    [endpoint] = claim_endpoints(specs("a"), FleetState(slots=8))
    endpoint.state.note_load(endpoint.slot, 3, 2, 0.25, 90.0)
    endpoint.state.note_check(endpoint.slot, 97.5)
    endpoint.set_weight(3.0)
    endpoint.drain()
    told = entry(endpoint, 1, 100.0)
    assert told["load"] == {"running": 3, "waiting": 2, "kv_use": 0.25, "seconds_ago": 10.0}
    assert (told["weight"], told["configured_weight"], told["draining"]) == (3.0, 1.0, True)
    assert told["last_check_seconds_ago"] == 2.5
