"""The table of limits against a plain oracle, and what holds whatever the times and amounts are."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._limits import ADMITTED, IN_FLIGHT, REQUESTS, LimitTable, Pass

TENANT = b"t" * 16
SECONDS = 61


class Oracle:
    """A window as a list of what each second has used, gone through second by second."""

    def __init__(self, limit: int, second: int) -> None:
        self.limit = limit
        self.head = second
        self.used: Counter[int] = Counter()
        self.debt = 0

    @property
    def sum(self) -> int:
        return sum(self.used.values())

    def pay(self) -> None:
        paid = max(0, min(self.debt, self.limit - self.sum))
        self.used[self.head] += paid
        self.debt -= paid

    def advance(self, second: int) -> None:
        while self.head < second:
            self.head += 1
            self.used.pop(self.head - SECONDS, None)
            self.pay()

    def take(self, second: int, amount: int) -> bool:
        self.advance(second)
        if self.debt or self.sum + amount > self.limit:
            return False
        self.used[self.head] += amount
        return True

    def correct(self, second: int, at: int, reserved: int, used: int) -> None:
        self.advance(second)
        if used > reserved:
            self.debt += used - reserved
        elif at in self.used:
            self.used[at] -= min(self.used[at], reserved - used)
        self.pay()

    def free_in(self, amount: int) -> int:
        """By trying it out."""
        if amount > self.limit:
            return -1
        copy = Oracle(self.limit, self.head)
        copy.used, copy.debt = self.used.copy(), self.debt
        while not copy.take(copy.head, amount):
            copy.advance(copy.head + 1)
        return copy.head - self.head


def table_with_slot() -> tuple[LimitTable, int]:
    table = LimitTable(slots=4)
    return table, table.claim(TENANT)


steps = st.tuples(
    st.one_of(st.integers(0, 3), st.integers(50, 70), st.integers(0, 400)),  # seconds that pass
    st.integers(0, 12),  # tokens reserved
    st.one_of(st.integers(0, 12), st.integers(0, 200)),  # tokens used
    st.integers(0, 30),  # seconds until that is known
    st.integers(0, 10),  # an amount to ask a wait for
)


@settings(max_examples=300)
@given(st.integers(1, 10), st.lists(steps, max_size=40))
def test_tokens_are_counted_as_the_oracle_counts_them(
    limit: int, moves: list[tuple[int, int, int, int, int]]
) -> None:
    table, slot = table_with_slot()
    second = 1000
    oracle = Oracle(limit, second)
    for passed, reserved, used, later, asked in moves:
        second += passed
        one = Pass(table, slot)
        taken = one.reserve(second + 0.5, reserved, limit)
        assert taken == oracle.take(second, reserved)
        at = second
        if taken:
            second += later
            one.settle(second + 0.5, used, limit)
            oracle.correct(second, at, reserved, used)
        found = table.tokens(slot, second + 0.5, limit, asked)
        oracle.advance(second)
        some, everything = oracle.free_in(asked), oracle.free_in(limit)
        assert found == (
            oracle.sum + oracle.debt,
            -1.0 if some < 0 else max(0.0, some - 0.5),
            max(0.0, everything - 0.5),
        )


@settings(max_examples=200)
@given(st.integers(1, 8), st.lists(st.floats(0.0, 30.0), min_size=1, max_size=120))
def test_no_sixty_seconds_ever_see_more_requests_than_the_limit(limit: int, gaps: list[float]) -> None:
    table, slot = table_with_slot()
    now = 1000.0
    admitted: list[float] = []
    for gap in gaps:
        now += gap
        if Pass(table, slot).begin(now, limit, 0) == ADMITTED:
            admitted.append(now)
        else:
            # Nothing is refused that 61 seconds would have freed.
            assert now - admitted[-limit] <= 61.0
    assert all(late - early >= 60.0 for early, late in zip(admitted, admitted[limit:], strict=False))


@settings(max_examples=200)
@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 90), st.integers(0, 500)), max_size=40))
def test_over_a_long_time_no_more_tokens_are_used_than_the_limit_allows(
    limit: int, uses: list[tuple[int, int]]
) -> None:
    """Whatever one request uses beyond, the next has to wait for."""
    table, slot = table_with_slot()
    now, total = 1000.0, 0
    for passed, used in uses:
        now += passed
        one = Pass(table, slot)
        if one.reserve(now, 1, limit):
            one.settle(now, used, limit)
            # Before this one, all earlier ones were paid.
            assert total <= limit * (1 + (now - 1000.0) / 60.0)
            total += used


def test_a_wait_is_exact() -> None:
    table, slot = table_with_slot()
    for at in range(5):
        assert Pass(table, slot).begin(100.25 + at, 5, 0) == ADMITTED
    used, wait, reset = table.requests(slot, 110.0, 5, 2)
    assert (used, wait, reset) == (5, 52.0, 55.0)
    assert Pass(table, slot).begin(110.0 + 50.99, 5, 0) == REQUESTS
    assert [Pass(table, slot).begin(162.0, 5, 0) for _ in range(3)] == [ADMITTED, ADMITTED, REQUESTS]
    assert table.requests(slot, 1e6, 5) == (0, 0.0, 0.0)


def test_a_clock_that_is_behind_does_no_harm() -> None:
    table, slot = table_with_slot()
    assert Pass(table, slot).begin(200.0, 2, 0) == ADMITTED
    assert Pass(table, slot).begin(199.0, 2, 0) == ADMITTED
    assert Pass(table, slot).begin(0.0, 2, 0) == REQUESTS
    assert table.requests(slot, 199.0, 2) == (2, 62.0, 62.0)


def test_what_is_refused_or_withdrawn_counts_as_nothing() -> None:
    table, slot = table_with_slot()
    first, second, third = (Pass(table, slot) for _ in range(3))
    assert first.begin(100.0, 2, 1) == ADMITTED
    assert second.begin(100.0, 2, 1) == IN_FLIGHT
    assert table.requests(slot, 100.0, 2)[0] == 1
    assert first.reserve(100.0, 7, 10)
    assert not third.reserve(100.0, 4, 10)
    first.withdraw()
    assert table.requests(slot, 100.0, 2)[0] == 0
    assert table.tokens(slot, 100.0, 10)[0] == 0
    assert table.in_flight(slot)[1] == 0
    first.end()
    assert table.in_flight(slot)[1] == 0


def test_a_place_is_given_back_once_and_at_the_latest_with_the_pass() -> None:
    table, slot = table_with_slot()
    one, other = Pass(table, slot), Pass(table, slot)
    assert [one.begin(1.0, 0, 2), other.begin(1.0, 0, 2)] == [ADMITTED, ADMITTED]
    one.end()
    one.end()
    assert table.in_flight(slot)[1] == 1
    del other
    assert table.in_flight(slot)[1] == 0
    again = Pass(table, slot)
    again.begin(1.0, 0, 0)
    with pytest.raises(ValueError, match="one request"):
        again.begin(1.0, 0, 0)


def test_each_change_of_what_is_in_flight_is_newer_than_the_one_before() -> None:
    table, slot = table_with_slot()
    seen = [table.in_flight(slot)]
    passes = [Pass(table, slot) for _ in range(3)]
    for one in passes:
        one.begin(1.0, 0, 0)
        seen.append(table.in_flight(slot))
    for one in passes:
        one.end()
        seen.append(table.in_flight(slot))
    assert [count for _, count in seen] == [0, 1, 2, 3, 2, 1, 0]
    assert all(before < after for (before, _), (after, _) in pairwise(seen))


def test_a_tenant_that_is_claimed_again_finds_what_it_used() -> None:
    table = LimitTable(slots=2)
    slot = table.claim(TENANT)
    Pass(table, slot).begin(100.0, 5, 0)
    assert table.claim(TENANT) == slot
    table.release_slot(slot)
    table.release_slot(slot)
    assert table.claim(TENANT) == slot
    assert table.requests(slot, 100.0, 5)[0] == 1
    other = table.claim(b"u" * 16)
    with pytest.raises(MemoryError, match="all 2 slots"):
        table.claim(b"v" * 16)
    table.release_slot(slot)
    assert table.claim(b"v" * 16) == slot
    assert table.requests(slot, 100.0, 5)[0] == 0
    assert table.claim(b"u" * 16) == other


def test_a_slot_with_requests_in_flight_is_given_to_nobody_else() -> None:
    table = LimitTable(slots=1)
    slot = table.claim(TENANT)
    one = Pass(table, slot)
    one.begin(1.0, 0, 0)
    table.release_slot(slot)
    with pytest.raises(MemoryError):
        table.claim(b"u" * 16)
    one.end()
    assert table.claim(b"u" * 16) == slot


def test_what_makes_no_sense_is_refused() -> None:
    table, slot = table_with_slot()
    for bad in (lambda: LimitTable(0), lambda: LimitTable(1, 0), lambda: table.claim(b"short")):
        with pytest.raises(ValueError, match=r"."):
            bad()
    with pytest.raises(ValueError, match="worker 1 of 1"):
        table.worker = 1
    with pytest.raises(ValueError, match="worker 1 of 1"):
        table.reclaim(1)
    for wrong in (-1, 4, (slot + 1) % 4):
        with pytest.raises(IndexError):
            Pass(table, wrong)
        with pytest.raises(IndexError):
            table.in_flight(wrong)
    with pytest.raises(ValueError, match="limit of 0"):
        table.requests(slot, 1.0, 0)
    with pytest.raises(ValueError, match="tokens of 0"):
        Pass(table, slot).reserve(1.0, 1, 0)
    with pytest.raises(ValueError, match="-1 tokens"):
        Pass(table, slot).settle(1.0, -1, 5)
