"""Retries are a share of the requests, and a few are always allowed."""

import pytest

from octoroute.balance.retry_budget import FLOOR_PER_SECOND, WINDOW_SECONDS, RetryBudget

FLOOR = FLOOR_PER_SECOND * WINDOW_SECONDS


def taken(budget: RetryBudget, share: float, now: float, tries: int) -> int:
    """How many of so many retries at one moment are allowed."""
    return sum(budget.take(share, now) for _ in range(tries))


@pytest.mark.parametrize("share", [0.0, 0.2, 2.0])
def test_retries_are_a_share_of_the_requests_of_the_window(share: float) -> None:
    budget = RetryBudget()
    budget.requests += 1000
    assert taken(budget, share, 50.0, 5000) == max(share * 1000, FLOOR)


def test_a_quiet_tier_has_ten_a_second_on_average() -> None:
    budget = RetryBudget()
    assert taken(budget, 0.2, 50.0, 1000) == FLOOR
    assert taken(budget, 0.2, 55.0, 1000) == 0
    assert taken(budget, 0.2, 500.0, 1000) == FLOOR


def test_what_has_left_the_window_counts_no_longer() -> None:
    budget = RetryBudget()
    budget.mark(0.0)
    budget.requests += 1000
    assert taken(budget, 0.5, 1.0, 1000) == 500
    for second in range(2, 13):
        budget.mark(float(second))
    assert taken(budget, 0.5, 13.0, 1000) == FLOOR


def test_a_storm_of_an_hour_stays_within_the_larger_of_share_and_floor() -> None:
    quiet, busy = RetryBudget(), RetryBudget()
    seconds = 3600
    for second in range(seconds):
        quiet.requests += 5
        taken(quiet, 0.2, float(second), 15)
        busy.requests += 500
        taken(busy, 0.2, float(second), 1500)
    assert quiet.retries <= FLOOR_PER_SECOND * seconds + FLOOR
    assert busy.retries <= 0.2 * busy.requests + FLOOR
    assert busy.retries > 0.17 * busy.requests


def test_its_memory_is_bounded() -> None:
    budget = RetryBudget()
    for step in range(100_000):
        budget.mark(step / 100)
    assert len(budget._marks) <= WINDOW_SECONDS + 2
