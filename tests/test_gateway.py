"""A gateway that is given another config: what is new, what stays, what is let go."""

import weakref
from typing import Any

import pytest

from octoroute.config import Config, build
from octoroute.errors import ConfigError
from octoroute.exchange import Target
from octoroute.gateway import Gateway, try_out


def config(*names: str, connect_s: float = 2.0, **keys: Any) -> Config:
    def model(name: str) -> dict[str, Any]:
        return {"name": name, "base_url": f"http://{name}:1/v1", "max_tokens": 8, **keys}

    return build(
        {
            "server": {"host": "127.0.0.1", "port": 3000},
            "routing": {"strategy": "rule"},
            "timeouts": {"connect_seconds": connect_s},
            "models": {
                "fast": [model(name) for name in names],
                "balanced": [model("two")],
                "deep": [model("three")],
            },
        }
    )


def pool_of(gateway: Gateway, at: int) -> object:
    return gateway.sites[gateway.snapshot.endpoints[at]].pool


def test_endpoints_that_stay_keep_their_live_state_and_their_pool() -> None:
    gateway = Gateway(config("a", "b"))
    stays = gateway.snapshot.endpoints[1]
    pool = pool_of(gateway, 1)
    gateway.shared.state.count_failure(stays.slot, 1)
    with gateway.snapshot.groups[Target("fast")].pick() or pytest.fail("nothing to pick"):
        gateway.reload(config("b", weight=3.0))
        again = gateway.snapshot.endpoints[0]
        assert again is not stays
        assert (again.slot, again.healthy, again.spec.weight) == (stays.slot, False, 3.0)
        assert pool_of(gateway, 0) is pool


def test_an_old_snapshot_works_as_long_as_somebody_holds_it_and_then_goes() -> None:
    gateway = Gateway(config("a"))
    held = gateway.snapshot
    endpoint = weakref.ref(held.endpoints[0])
    pool = gateway.sites[held.endpoints[0]].pool
    for _ in range(3):
        gateway.reload(config("b"))
    lease = held.groups[Target("fast")].pick()
    assert lease is not None
    assert gateway.sites[lease.endpoint].pool is pool
    assert pool.closed
    assert len(gateway.sites) == 6
    lease.release()
    del held, lease
    assert endpoint() is None
    assert len(gateway.sites) == 3


def test_other_terms_of_connecting_make_other_pools() -> None:
    gateway = Gateway(config("a"))
    before = gateway.sites[gateway.snapshot.endpoints[0]].pool
    gateway.reload(config("a", connect_s=1.0))
    assert pool_of(gateway, 0) is not before
    assert before.closed


def test_what_a_model_decided_is_remembered_while_the_fleet_stays_as_it_is() -> None:
    gateway = Gateway(config("a"))
    asker = gateway.asker
    gateway.reload(config("a", connect_s=1.0))
    assert gateway.asker is asker
    gateway.reload(config("a", "b"))
    assert gateway.asker is not asker


def test_a_reload_that_fails_leaves_everything_as_it_was() -> None:
    gateway = Gateway(config("a"))
    before, pool = gateway.snapshot, pool_of(gateway, 0)
    with pytest.raises(MemoryError):
        gateway.reload(config(*(f"n{at}" for at in range(5000))))
    assert gateway.snapshot is before
    assert pool_of(gateway, 0) is pool
    assert not gateway.sites[before.endpoints[0]].pool.closed
    gateway.reload(config("b"))


def test_a_fleet_that_is_too_large_is_a_problem_of_the_config() -> None:
    with pytest.raises(ConfigError, match="models: all 4096 slots for endpoints are in use"):
        try_out(config(*(f"n{at}" for at in range(5000))))
