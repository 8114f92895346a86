"""Hedges are a share of the requests."""

import pytest

from octoroute.balance.hedge_budget import AT_ONCE, HedgeBudget


@pytest.mark.parametrize(("share", "requests"), [(0.02, 5000), (0.01, 5000), (0.5, 200)])
def test_hedges_stay_within_the_share(share: float, requests: int) -> None:
    budget = HedgeBudget()
    hedges = 0
    for _ in range(requests):
        budget.grow(share)
        hedges += budget.take()
    assert hedges == share * requests


def test_without_a_share_there_is_none() -> None:
    budget = HedgeBudget()
    budget.grow(0.0)
    assert not budget.take()


def test_what_is_saved_in_quiet_times_is_bounded() -> None:
    budget = HedgeBudget()
    for _ in range(100_000):
        budget.grow(0.5)
    assert sum(budget.take() for _ in range(100)) == AT_ONCE
