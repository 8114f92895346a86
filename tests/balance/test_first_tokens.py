"""The time that one first token in twenty exceeds is learnt for each size of prompt."""

import random

import pytest

from octoroute.balance.first_tokens import ENOUGH, MANY, RATIO, FirstTokens


def test_nothing_is_known_at_first() -> None:
    learnt = FirstTokens()
    for _ in range(ENOUGH - 1):
        learnt.observe(100, 0.1)
    assert learnt.p95(100) is None
    learnt.observe(100, 0.1)
    assert learnt.p95(100) == pytest.approx(0.1, rel=RATIO - 1)


@pytest.mark.parametrize("scale", [0.01, 0.3, 20.0])
def test_it_is_the_95th_percentile_within_a_bin(scale: float) -> None:
    random.seed(1)
    learnt, seen = FirstTokens(), []
    for _ in range(900):
        seconds = random.expovariate(1 / scale)
        seen.append(seconds)
        learnt.observe(100, seconds)
    exact = sorted(seen)[int(0.95 * len(seen))]
    assert learnt.p95(100) == pytest.approx(exact, rel=RATIO - 1)


def test_sizes_are_learnt_apart() -> None:
    learnt = FirstTokens()
    for _ in range(ENOUGH):
        learnt.observe(100, 0.1)
        learnt.observe(1_000_000, 10.0)
    small, large = learnt.p95(120), learnt.p95(900_000)
    assert small is not None
    assert large is not None
    assert small < 0.12 < 9 < large
    assert learnt.p95(10_000) is None


def test_the_past_fades() -> None:
    learnt = FirstTokens()
    for _ in range(MANY):
        learnt.observe(100, 10.0)
    for _ in range(8 * MANY):
        learnt.observe(100, 0.1)
    assert learnt.p95(100) == pytest.approx(0.1, rel=RATIO - 1)


@pytest.mark.parametrize(("size", "seconds"), [(0, 0.0), (1 << 60, 1e9), (1, 1e-9)])
def test_odd_values_have_a_place(size: int, seconds: float) -> None:
    learnt = FirstTokens()
    for _ in range(ENOUGH):
        learnt.observe(size, seconds)
    assert learnt.p95(size) is not None
