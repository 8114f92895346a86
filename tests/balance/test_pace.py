"""A server that is away is looked for soon, then less and less often."""

from collections.abc import Iterator
from math import inf

from octoroute.balance.pace import Intervals, Pace

INTERVALS = Intervals(healthy_s=30.0, unhealthy_s=1.0)
STEP_S = 0.25


def probes(
    pace: Pace, begin: float, end: float, healthy_since: float | None, needed: bool
) -> Iterator[float]:
    """When it is probed, looked at each STEP_S."""
    now = begin
    while now < end:
        if pace.due(now, healthy_since, INTERVALS, needed=needed):
            pace.note(now, INTERVALS)
            yield now
        now += STEP_S


def test_a_healthy_endpoint_is_probed_each_interval_and_at_once_at_first() -> None:
    assert list(probes(Pace(), 0.0, 70.0, -inf, needed=False)) == [0.0, 30.0, 60.0]


def test_one_that_fell_is_looked_for_soon_and_then_less_and_less_often() -> None:
    pace = Pace(asked=99.0)
    assert list(probes(pace, 100.0, 190.0, None, needed=False)) == [101, 103, 107, 115, 131, 161]


def test_one_that_nobody_can_stand_in_for_is_looked_for_all_the_time() -> None:
    assert list(probes(Pace(asked=99.0), 100.0, 106.0, None, needed=True)) == [101, 102, 103, 104, 105]


def test_one_that_passes_its_probes_and_fails_its_requests_is_trusted_less_and_less() -> None:
    pace, now, away = Pace(asked=0.0), 10.0, []
    for _ in range(7):
        healed = next(probes(pace, now, now + 100, None, needed=False))
        away.append(healed - now)
        # Its next requests fail three seconds later.
        assert list(probes(pace, healed + STEP_S, healed + 3, healed, needed=False)) == []
        now = healed + 3
    assert away == [1, 2, 4, 8, 16, 30, 30]


def test_one_that_was_healthy_for_an_interval_is_trusted_as_before() -> None:
    pace = Pace(asked=0.0)
    healed = next(probes(pace, 10.0, 20.0, None, needed=False))
    list(probes(pace, healed + STEP_S, healed + 31, healed, needed=False))
    assert next(probes(pace, 50.0, 60.0, None, needed=False)) == 51.0
