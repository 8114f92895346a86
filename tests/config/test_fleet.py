"""The table of `octoroute check`."""

from octoroute.config.fleet import fleet_table
from tests.config.sample import config


def _rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def test_each_endpoint_has_a_line_with_its_share_of_its_priority() -> None:
    servers = [
        {"name": "spare", "base_url": "http://gpu-9/v1", "max_tokens": 1, "priority": 0, "weight": 7},
        {"name": "one", "base_url": "http://gpu-1/v1", "max_tokens": 1, "weight": 2.5, "model": "org/one"},
        {"name": "two", "base_url": "http://gpu-2/v1", "max_tokens": 1, "weight": 5},
    ]
    rows = _rows(fleet_table(config(("models.fast", servers), ("timeouts.fast", 7.5))))
    assert rows[1:4] == [
        ["fast", "one", "org/one", "http://gpu-1/v1", "1", "2.5", "33.3", "%", "7.5", "s"],
        ["fast", "two", "two", "http://gpu-2/v1", "1", "5", "66.7", "%", "7.5", "s"],
        ["fast", "spare", "spare", "http://gpu-9/v1", "0", "7", "100.0", "%", "7.5", "s"],
    ]
    assert [row[0] for row in rows] == ["TIER", "fast", "fast", "fast", "balanced", "deep"]


def test_columns_stand_below_each_other() -> None:
    lines = fleet_table(config(("models.deep.0.name", "a-much-longer-name"))).splitlines()
    assert len({line.index("http") for line in lines[1:]}) == 1
    assert len(set(map(len, lines))) == 1 or lines[0].endswith("TIMEOUT")


def test_the_share_of_a_tiny_weight_is_told_too() -> None:
    assert "100.0 %" in fleet_table(config(("models.fast.0.weight", 5e-324)))


def test_no_key_is_shown() -> None:
    assert "sk-hidden" not in fleet_table(config(("models.fast.0.api_key", "sk-hidden")))
