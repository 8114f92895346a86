"""The ring of recent requests, what may be asked of it, and how the answers of several become one."""

import orjson
import pytest

from octoroute.observe.recent import RESULT, STATUS, TENANT, TIER, Recent, Wanted, newest
from octoroute.observe.request_log import FIELDS, Entry


def entry(number: int, tier: str = "fast", tenant: str = "", status: int = 200, result: str = "ok") -> Entry:
    return (
        *(float(number), f"r{number}", tenant, "auto", tier, "llm", "q", 1, status, result),
        *(-1.0, 2.0, -1, 3, 4, 0),
    )


def ids(recent: Recent, wanted: Wanted | None = None) -> list[object]:
    return [orjson.loads(text)["request_id"] for _, text in recent.latest(wanted or Wanted())]


def test_the_newest_come_first_and_the_oldest_go() -> None:
    recent = Recent(3)
    for number in range(5):
        recent.add(entry(number))
    assert ids(recent) == ["r4", "r3", "r2"]
    assert ids(recent, Wanted(limit=1)) == ["r4"]
    assert [at for at, _ in recent.latest(Wanted())] == [4.0, 3.0, 2.0]
    assert tuple(orjson.loads(recent.latest(Wanted())[0][1])) == tuple(FIELDS)


def test_none_are_kept_where_none_are_wanted() -> None:
    recent = Recent(0)
    recent.add(entry(1))
    assert ids(recent) == []


def test_another_size_keeps_the_newest_that_fit() -> None:
    recent = Recent(3)
    for number in range(3):
        recent.add(entry(number))
    recent.resize(2)
    assert ids(recent) == ["r2", "r1"]
    recent.add(entry(9))
    assert ids(recent) == ["r9", "r2"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(tier="deep"), ["r1"]),
        (Wanted(tier=""), ["r3"]),
        (Wanted(tenant="team-a"), ["r2"]),
        (Wanted(status=200), ["r4", "r1", "r0"]),
        (Wanted(outcome="ok"), ["r1", "r0"]),
        (Wanted(outcome="broken"), ["r4"]),
        (Wanted(outcome="limited"), ["r2"]),
        (Wanted(outcome="error", tier="fast"), []),
        (Wanted(limit=2, status=200), ["r4", "r1"]),
    ],
)
def test_only_those_that_are_wanted_come(wanted: Wanted, found: list[str]) -> None:
    recent = Recent(10)
    recent.add(entry(0))
    recent.add(entry(1, tier="deep"))
    recent.add(entry(2, tenant="team-a", status=429, result="error"))
    recent.add(entry(3, tier="", status=500, result="error"))
    recent.add(entry(4, result="broken"))
    assert ids(recent, wanted) == found


def test_the_places_in_an_entry_are_those_of_its_fields() -> None:
    names = list(FIELDS)
    assert [names[at] for at in (TENANT, TIER, STATUS, RESULT)] == ["tenant", "tier", "status", "result"]


def test_of_several_workers_the_newest_come_first() -> None:
    # As they come through the line between processes: lists, no tuples.
    parts = [[[9.0, "a"], [5.0, "b"]], [], [[7.0, "c"], [6.0, "d"], [1.0, "e"]]]
    assert newest(parts, 4) == ["a", "c", "d", "b"]  # type: ignore[arg-type]
