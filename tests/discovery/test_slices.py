"""Which servers the EndpointSlices of a service have for us."""

from typing import Any

import pytest

from octoroute.config.found import Address
from octoroute.config.sources import KubernetesSource
from octoroute.discovery.slices import NoPort, servers_in


def source(base_url: str = "http://llama.gpu/v1", port_name: str = "") -> KubernetesSource:
    return KubernetesSource(name="small", base_url=base_url, max_tokens=8, port_name=port_name)


def one_slice(*endpoints: dict[str, Any], kind: str = "IPv4", ports: Any = None) -> dict[str, Any]:
    return {
        "addressType": kind,
        "endpoints": list(endpoints),
        "ports": [{"name": "http", "port": 8080}] if ports is None else ports,
    }


def pod(address: str, **conditions: Any) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def hosts(*slices: dict[str, Any]) -> set[str]:
    return {address.host for address in servers_in(slices, source())}


def test_only_pods_that_are_ready_and_not_terminating_get_requests() -> None:
    assert hosts(
        one_slice(
            pod("10.0.0.1", ready=True, serving=True, terminating=False),
            pod("10.0.0.2", ready=False),
            pod("10.0.0.3", ready=True, terminating=True),
            pod("10.0.0.4", ready=False, serving=True, terminating=True),
        )
    ) == {"10.0.0.1"}


def test_a_condition_that_is_absent_or_null_is_no_objection() -> None:
    assert hosts(one_slice(pod("10.0.0.1"), pod("10.0.0.2", ready=None), {"addresses": ["10.0.0.3"]})) == {
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
    }


def test_pods_of_several_slices_are_there_once_each() -> None:
    assert hosts(one_slice(pod("10.0.0.1")), one_slice(pod("10.0.0.1"), pod("10.0.0.2"))) == {
        "10.0.0.1",
        "10.0.0.2",
    }


def test_pods_with_addresses_of_both_families_are_there_once() -> None:
    both = one_slice(pod("fd00::1"), kind="IPv6"), one_slice(pod("10.0.0.1"))
    assert hosts(*both) == {"10.0.0.1"}
    assert hosts(both[0]) == {"fd00::1"}
    assert hosts(both[0], one_slice()) == {"fd00::1"}
    assert hosts(both[0], one_slice(pod("10.0.0.1", ready=False))) == set()


@pytest.mark.parametrize("empty", [None, []])
def test_slices_without_endpoints_or_ports_are_no_trouble(empty: Any) -> None:
    assert hosts({"addressType": "IPv4", "endpoints": empty, "ports": empty}) == set()
    assert hosts() == set()


def test_the_only_port_is_taken_or_that_of_the_url_or_the_one_with_the_name() -> None:
    two = one_slice(pod("10.0.0.1"), ports=[{"name": "http", "port": 8080}, {"name": "metrics", "port": 9}])
    name = "llama.gpu"
    assert servers_in([one_slice(pod("10.0.0.1"))], source()) == {Address("10.0.0.1", 8080, name)}
    assert servers_in([two], source("http://llama.gpu:81/v1")) == {Address("10.0.0.1", 81, name)}
    assert servers_in([two], source(port_name="metrics")) == {Address("10.0.0.1", 9, name)}


def test_a_port_that_can_not_be_told_is_said() -> None:
    two = one_slice(pod("10.0.0.1"), ports=[{"name": "http", "port": 8080}, {"name": "metrics", "port": 9}])
    with pytest.raises(NoPort, match=r"has 2 ports \(http, metrics\): put the right one into base_url"):
        servers_in([two], source())
    with pytest.raises(NoPort, match="has no port named 'grpc'; it has: http, metrics"):
        servers_in([two], source(port_name="grpc"))
    with pytest.raises(NoPort, match="has 0 ports"):
        servers_in([one_slice(pod("10.0.0.1"), ports=[])], source())
