"""What the config becomes with the servers that were found."""

from typing import Any

from octoroute.config import Config, Model
from octoroute.config.found import Address, with_found
from tests.config.sample import config

SOURCE = {"name": "small", "base_url": "http://llama.internal:8080/v1", "max_tokens": 64}


def sourced(*changes: tuple[str, Any], kind: str = "dns") -> Config:
    return config((f"discovery.{kind}.fast", SOURCE), ("models.fast", []), *changes)


def urls(made: Config) -> list[str]:
    return [model.base_url for model in made.models.fast]


def test_nothing_found_leaves_the_tier_as_the_file_has_it() -> None:
    made = sourced()
    assert with_found(made, {}) == made
    assert made.models.fast == ()


def test_each_address_is_a_server_with_the_keys_of_its_source() -> None:
    made = sourced(("discovery.dns.fast.api_key", "sk-1"), ("discovery.dns.fast.model", "org/small"))
    grown = with_found(made, {("dns", "fast"): (Address("10.0.0.2", 8080), Address("fd00::1", 81))})
    assert urls(grown) == ["http://10.0.0.2:8080/v1", "http://[fd00::1]:81/v1"]
    for model in grown.models.fast:
        assert type(model) is Model
        assert (model.name, model.model, model.max_tokens) == ("small", "org/small", 64)
        assert model.api_key.get_secret_value() == "sk-1"
    assert grown.models.deep == made.models.deep


def test_the_order_of_an_answer_means_nothing() -> None:
    made, two = sourced(), (Address("10.0.0.2", 1), Address("10.0.0.1", 1))
    assert with_found(made, {("dns", "fast"): two}) == with_found(made, {("dns", "fast"): two[::-1]})


def test_a_server_that_the_file_names_or_another_source_found_is_not_there_twice() -> None:
    named = {**SOURCE, "base_url": "http://10.0.0.1:1/v1", "weight": 5.0}
    made = sourced(("models.fast", [named]), ("discovery.kubernetes.fast", SOURCE))
    found = (Address("10.0.0.1", 1), Address("10.0.0.2", 1))
    grown = with_found(made, {("dns", "fast"): found, ("kubernetes", "fast"): found})
    assert urls(grown) == ["http://10.0.0.1:1/v1", "http://10.0.0.2:1/v1"]
    assert grown.models.fast[0].weight == 5.0


def test_a_server_at_the_usual_port_is_the_one_that_the_file_names_without_it() -> None:
    named = {**SOURCE, "base_url": "http://10.0.0.1/v1"}
    made = sourced(("models.fast", [named]))
    assert urls(with_found(made, {("dns", "fast"): (Address("10.0.0.1", 80),)})) == ["http://10.0.0.1/v1"]


def test_what_an_address_says_of_weight_and_rank_is_added_to_the_source() -> None:
    made = sourced(("discovery.dns.fast.weight", 4.0), ("discovery.dns.fast.priority", 1))
    found = tuple(Address("10.0.0.1", port, share=0.5, rank=port - 1) for port in (1, 2, 3))
    grown = with_found(made, {("dns", "fast"): found})
    assert [(model.weight, model.priority) for model in grown.models.fast] == [(2.0, 1), (2.0, 0), (2.0, 0)]


def test_certificates_are_made_out_to_the_name_that_was_looked_up_or_to_the_one_of_the_source() -> None:
    found = {("dns", "fast"): (Address("10.0.0.1", 1, server_name="llama.internal"),)}
    assert with_found(sourced(), found).models.fast[0].tls_server_name == "llama.internal"  # type: ignore[arg-type]
    own = sourced(("discovery.dns.fast.tls_server_name", "gpu.example"))
    assert with_found(own, found).models.fast[0].tls_server_name == "gpu.example"  # type: ignore[arg-type]
