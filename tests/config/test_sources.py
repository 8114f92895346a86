"""Sources of servers: what their tables may hold, and what they stand for."""

from typing import Any

import pytest

from octoroute.config import Config
from octoroute.config.fleet import fleet_table
from octoroute.config.values import split_resolver
from tests.config.sample import config, problem, problems_of, sample

SOURCE = {"name": "small-found", "base_url": "http://llama.internal:8080/v1", "max_tokens": 64}


def sourced(kind: str = "dns", **keys: Any) -> Config:
    return config((f"discovery.{kind}.fast", {**SOURCE, **keys}))


def told(kind: str = "dns", **keys: Any) -> str:
    return problem((f"discovery.{kind}.fast", {**SOURCE, **keys}))


def test_a_tier_with_a_source_needs_no_server_of_its_own() -> None:
    made = config(("discovery.dns.deep", SOURCE), ("models.deep", []))
    assert made.models.deep == ()
    assert [(kind, tier) for kind, tier, _ in made.discovery.sources()] == [("dns", "deep")]


def test_a_file_of_sources_only_needs_no_models_at_all() -> None:
    tree = sample(*((f"discovery.dns.{tier}", {**SOURCE, "name": tier + "-1"}) for tier in ("fast", "deep")))
    del tree["models"]
    assert problems_of(tree) == (
        "models.balanced is missing; it must be an array of at least one table, each written "
        "[[models.balanced]], unless [discovery] has a source for the tier",
    )


def test_the_host_of_a_service_tells_its_namespace_or_not() -> None:
    for host, namespace in (("llama", ""), ("llama.gpu", "gpu"), ("llama.gpu.svc.cluster.local", "gpu")):
        source = sourced("kubernetes", base_url=f"http://{host}/v1").discovery.kubernetes.fast
        assert source is not None
        assert (source.service, source.namespace, source.port) == ("llama", namespace, None)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"base_url": "http://10.0.0.1:8080/v1"},
            'base_url is "http://10.0.0.1:8080/v1"; it must be an http or https URL whose host is a name, '
            "and that ends with /v1 (its host is an address; "
            "a server that is known belongs in [[models.TIER]])",
        ),
        ({"base_url": "http://a"}, "(add /v1 at the end)"),
        ({"weight": 0}, "weight is 0; it must be a number from 0.001 to 1000000"),
        ({"keep_seconds": -1}, "keep_seconds is -1; it must be a number from 0 to 604800"),
        ({"records": "mx"}, 'records is "mx"; it must be "auto", "a", "aaaa" or "srv"'),
        ({"resolver": "ns.internal"}, "it must be an IP address, with a port if it is not 53, or empty"),
        ({"records": "srv"}, 'base_url has a port, but with records = "srv" the ports come from the records'),
        (
            {"refresh_min_seconds": 9, "refresh_max_seconds": 8},
            "refresh_min_seconds is 9, more than refresh_max_seconds, which is 8",
        ),
        ({"name": "large"}, 'name is "large", the name of models.deep[0] too'),
        ({"name": "FAST"}, "are octoroute's own model names"),
        ({"tls_server_name": "a b"}, "it must be a host name, or empty"),
    ],
)
def test_what_a_source_may_not_hold_is_told(keys: dict[str, Any], says: str) -> None:
    assert says in told(**keys)


def test_a_kubeconfig_must_be_a_file_that_can_be_read() -> None:
    assert "can't be read" in told("kubernetes", kubeconfig="nowhere.yaml")


def test_an_alias_may_stand_for_what_a_source_finds() -> None:
    changes = ("discovery.dns.fast", SOURCE), ("routing.aliases", {"gpt-4o": "small-found"})
    assert dict(config(*changes).routing.aliases) == {"gpt-4o": "small-found"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.10", ("10.0.0.10", 53)),
        ("10.0.0.10:5353", ("10.0.0.10", 5353)),
        ("fd00::10", ("fd00::10", 53)),
        ("[fd00::10]:5353", ("fd00::10", 5353)),
    ],
)
def test_a_resolver_is_an_address_with_or_without_a_port(text: str, address: tuple[str, int]) -> None:
    assert split_resolver(text) == address


@pytest.mark.parametrize("text", ["10.0.0.10:0", "10.0.0.10:", "10.0.0.256", "[fd00::10]", "a:53", "1:2:3:4"])
def test_anything_else_is_no_resolver(text: str) -> None:
    with pytest.raises(ValueError, match=r"port|address"):
        split_resolver(text)


def test_the_table_of_the_fleet_shows_sources() -> None:
    lines = fleet_table(sourced()).splitlines()
    assert lines[2].split() == [
        *("fast", "small-found", "small-found", "http://llama.internal:8080/v1", "1", "1", "by", "dns"),
        *("30", "s"),
    ]
