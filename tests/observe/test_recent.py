"""The ring of recent requests."""

from octoroute.observe.recent import Recent
from octoroute.observe.request_log import FIELDS, Entry


def entry(number: int) -> Entry:
    return (float(number), f"r{number}", "", "auto", "fast", "llm", "q", 1, 200, "ok", -1.0, 2.0, -1, 3, 4, 0)


def ids(recent: Recent, limit: int | None = None) -> list[object]:
    return [each["request_id"] for each in recent.latest(limit)]


def test_the_newest_come_first_and_the_oldest_go() -> None:
    recent = Recent(3)
    for number in range(5):
        recent.add(entry(number))
    assert ids(recent) == ["r4", "r3", "r2"]
    assert ids(recent, 1) == ["r4"]
    assert tuple(recent.latest()[0]) == tuple(FIELDS)


def test_none_are_kept_where_none_are_wanted() -> None:
    recent = Recent(0)
    recent.add(entry(1))
    assert recent.latest() == []


def test_another_size_keeps_the_newest_that_fit() -> None:
    recent = Recent(3)
    for number in range(3):
        recent.add(entry(number))
    recent.resize(2)
    assert ids(recent) == ["r2", "r1"]
    recent.add(entry(9))
    assert ids(recent) == ["r9", "r2"]
