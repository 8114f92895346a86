"""Whose turn it is: fair between tenants, by importance within one, nobody starves, bounds hold."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.admission.queue import YIELDS, Bounds, Queue, Waiter
from octoroute.admission.shares import NOBODY, TENANTS, Shares

A, B = ("a",), ("b",)
IMPORTANCES = tuple(YIELDS)
ROWS: defaultdict[str, int] = defaultdict(count(TENANTS).__next__, {"": NOBODY})


def made(bounds: Bounds | None = None, shares: Shares | None = None) -> Queue[Waiter]:
    return Queue(shares or fresh_shares(), bounds)


def fresh_shares() -> Shares:
    return Shares(memoryview(bytearray(8000)).cast("d"))


def waiter(
    tenant: str = "", importance: str = "normal", key: tuple[str, ...] = A, tokens: int = 1, size: int = 0
) -> Waiter:
    return Waiter(key=key, tenant=tenant, row=ROWS[tenant], importance=importance, tokens=tokens, size=size)


def joined(queue: Queue[Waiter], waiters: Sequence[Waiter], now: float = 0.0) -> Sequence[Waiter]:
    for one in waiters:
        assert queue.join(one, now) == []
    return waiters


def places(
    free: int, keys: tuple[tuple[str, ...], ...] = (A, B)
) -> tuple[list[Waiter], Callable[[Waiter], bool]]:
    """So many places, for those who wait for one of `keys`; and who got them."""
    seated: list[Waiter] = []

    def place(one: Waiter) -> bool:
        if one.key not in keys or len(seated) >= free:
            return False
        seated.append(one)
        return True

    return seated, place


def served(queue: Queue[Waiter], free: int = 1_000_000, now: float = 0.0) -> list[Waiter]:
    seated, place = places(free)
    queue.serve(place, now)
    return seated


def test_requests_alike_are_served_in_the_order_in_which_they_came() -> None:
    queue = made()
    waiters = joined(queue, [waiter() for _ in range(50)])
    assert served(queue, 3) == waiters[:3]
    assert served(queue) == waiters[3:]
    assert (queue.waiting, queue.size, list(queue)) == (0, 0, [])


def test_the_important_go_first_and_those_that_came_long_enough_before_go_before_them() -> None:
    queue = made(Bounds(max_wait_s=30.0))
    old_low, old_normal = waiter(importance="low"), waiter(importance="normal")
    joined(queue, [old_low, old_normal], now=0.0)
    late_high = waiter(importance="high")
    joined(queue, [late_high], now=4.9)
    later_high = waiter(importance="high")
    joined(queue, [later_high], now=14.9)
    last_high = waiter(importance="high")
    joined(queue, [last_high], now=15.1)
    assert served(queue) == [late_high, old_normal, later_high, old_low, last_high]


def test_a_request_that_is_tried_again_stands_where_its_coming_puts_it() -> None:
    queue = made()
    joined(queue, [waiter() for _ in range(3)], now=8.0)
    again = Waiter(key=A, came=7.0)
    joined(queue, [again], now=9.0)
    assert served(queue, 1) == [again]


def test_who_cannot_run_is_passed_over_and_holds_up_nobody() -> None:
    queue = made()
    blocked = joined(queue, [waiter(key=B) for _ in range(5)])
    others = joined(queue, [waiter(key=A), waiter("other", key=A)])
    seated, place = places(10, keys=(A,))
    queue.serve(place, 0.0)
    assert set(seated) == set(others)
    assert served(queue) == blocked


def test_who_is_passed_over_saves_nothing_up() -> None:
    queue = made()
    joined(queue, [waiter("blocked", key=B, tokens=500) for _ in range(20)])
    joined(queue, [waiter("busy", key=A, tokens=500) for _ in range(40)])
    seated, place = places(20, keys=(A,))
    queue.serve(place, 0.0)
    assert len(seated) == 20
    # From here both take turns: the one that was held up goes first, as it came first, and that is all.
    tenants = [one.tenant for one in served(queue, 9)]
    assert Counter(tenants) == {"blocked": 5, "busy": 4}


def test_a_client_that_leaves_is_out_at_once_and_leaving_twice_does_nothing() -> None:
    queue = made()
    first, second = joined(queue, [waiter(size=10), waiter(size=20)])
    assert queue.remove(first)
    assert not queue.remove(first)
    assert (queue.waiting, queue.size) == (1, 20)
    assert served(queue) == [second]
    assert not queue.remove(second)


def test_those_that_waited_too_long_are_told_apart() -> None:
    queue = made(Bounds(max_wait_s=10.0))
    (early,) = joined(queue, [waiter()], now=0.0)
    (late,) = joined(queue, [waiter("other", "low")], now=5.0)
    assert queue.expire(9.9) == []
    assert queue.expire(10.0) == [early]
    assert queue.expire(15.0) == [late]
    assert queue.waiting == 0


def test_a_full_queue_refuses_the_newcomer_where_all_are_alike() -> None:
    queue = made(Bounds(max_waiting=3))
    waiters = joined(queue, [waiter() for _ in range(3)])
    newcomer = waiter()
    assert queue.join(newcomer, 1.0) == [(newcomer, "max_waiting")]
    assert served(queue) == waiters


def test_a_full_queue_makes_room_for_what_is_more_important() -> None:
    queue = made(Bounds(max_waiting=2))
    low, normal = joined(queue, [waiter(importance="low"), waiter()])
    high = waiter(importance="high")
    assert queue.join(high, 0.0) == [(low, "max_waiting")]
    assert served(queue) == [high, normal]


def test_a_full_queue_makes_room_at_the_cost_of_the_tenant_that_has_most_in_it() -> None:
    queue = made(Bounds(max_waiting=10))
    greedy = joined(queue, [waiter("greedy") for _ in range(10)])
    modest = [waiter("modest") for _ in range(5)]
    dropped = [queue.join(one, 0.0) for one in modest]
    assert dropped == [[(one, "max_waiting")] for one in reversed(greedy[5:])]
    # Now both have as much, and who wants more has to go itself.
    more = waiter("modest")
    assert queue.join(more, 0.0) == [(more, "max_waiting")]


def test_bytes_are_bounded_too_and_nobody_leaves_in_vain() -> None:
    queue = made(Bounds(max_bytes=100))
    first, second = joined(queue, [waiter("a", size=60), waiter("b", size=30)])
    huge = waiter("b", size=101)
    assert queue.join(huge, 0.0) == [(huge, "max_waiting_bytes")]
    large = waiter("c", size=50)
    assert queue.join(large, 0.0) == [(first, "max_waiting_bytes")]
    # It would take the place of `large`, and still not fit.
    vain = waiter("d", size=90)
    assert queue.join(vain, 0.0) == [(vain, "max_waiting_bytes")]
    assert (queue.size, set(queue)) == (80, {second, large})


def test_nobody_waits_where_the_bound_is_nothing() -> None:
    queue = made(Bounds(max_waiting=0))
    one = waiter()
    assert queue.join(one, 0.0) == [(one, "max_waiting")]


def jain(shares: Sequence[float]) -> float:
    """Jain, Chiu and Hawe, 1984: 1 where all get the same, 1/n where one gets all."""
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def simulate(
    arrivals: Sequence[tuple[float, Waiter]], slots: int, per_second: float, bounds: Bounds, seconds: float
) -> tuple[list[tuple[float, Waiter]], list[Waiter]]:
    """A tier of so many slots, each with so many tokens a second, on a clock of its own: who began when, who
    was dropped. Checks that no slot idles while anybody waits.
    """
    queue = made(bounds)
    ends: list[float] = []
    began: list[tuple[float, Waiter]] = []
    dropped: list[Waiter] = []
    coming = sorted(arrivals, key=lambda each: each[0], reverse=True)
    now = 0.0

    def place(one: Waiter) -> bool:
        if len(ends) >= slots:
            return False
        heapq.heappush(ends, now + one.tokens / per_second)
        began.append((now, one))
        return True

    while now < seconds and (coming or ends):
        if coming and (not ends or coming[-1][0] < ends[0]):
            now, one = coming.pop()
            dropped += [gone for gone, _ in queue.join(one, now)]
        else:
            now = heapq.heappop(ends)
        dropped += queue.expire(now)
        queue.serve(place, now)
        assert len(ends) == slots or not queue.waiting
        assert queue.waiting <= bounds.max_waiting
        assert queue.size <= bounds.max_bytes
    return began, dropped


@pytest.mark.parametrize("importance", ["high", "normal"])
@pytest.mark.parametrize("max_waiting", [20, 1000])
def test_a_tenant_with_ten_times_the_requests_gets_no_more_than_the_others(
    importance: str, max_waiting: int
) -> None:
    arrivals = []
    for number in range(5):
        greedy = number == 0
        # One alone asks for 1.5 times a fair share, the greedy one for 15 times as much, in requests of
        # another size.
        interval = (0.1 if greedy else 1.0) / 1.5
        tokens = 700 if greedy else 400 + 150 * number
        interval *= tokens / 200
        for at in range(int(600 / interval)):
            one = waiter(f"tenant-{number}", importance if greedy else "normal", tokens=tokens)
            arrivals.append((at * interval + number * 0.01, one))
    began, dropped = simulate(arrivals, 4, 250.0, Bounds(max_waiting=max_waiting), 600.0)
    assert dropped
    tokens_of: Counter[str] = Counter()
    for _, one in began:
        tokens_of[one.tenant] += one.tokens
    assert sum(tokens_of.values()) > 0.95 * 4 * 250 * 600
    assert jain(list(tokens_of.values())) >= 0.99


def test_a_tenant_below_its_share_gets_all_it_asks_for_beside_a_greedy_one() -> None:
    greedy = [(at * 0.02, waiter("greedy", tokens=100)) for at in range(5000)]
    modest = [(at * 1.0, waiter("modest", tokens=100)) for at in range(100)]
    began, _ = simulate(greedy + modest, 2, 250.0, Bounds(max_waiting=50), 100.0)
    begins = {id(one): now for now, one in began}
    waits = [begins[id(one)] - at for at, one in modest[:-2]]
    # One of the greedy is running in each slot.
    assert max(waits) <= 100 / 250.0 + 1e-9


def test_low_importance_is_served_in_a_flood_of_high_before_its_time_is_over() -> None:
    bounds = Bounds(max_wait_s=30.0, max_waiting=1000)
    # As much as the tier can do is of high importance alone.
    high = [(at * 0.5, waiter(importance="high", tokens=100)) for at in range(400)]
    low = [(50.0 + at, waiter(importance="low", tokens=100)) for at in range(10)]
    began, dropped = simulate(high + low, 1, 200.0, bounds, 200.0)
    assert not dropped
    begins = {id(one): now for now, one in began}
    waits = [begins[id(one)] - at for at, one in low]
    assert max(waits) <= 30.0 * YIELDS["low"] + 10 * 0.5 + 0.5


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 20),
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(IMPORTANCES),
        st.integers(1, 5000),
        st.integers(0, 50),
    ),
    max_size=60,
)


@given(REQUESTS, st.integers(1, 4), st.integers(0, 10), st.integers(1, 200))
def test_no_slot_idles_while_one_waits_and_everyone_is_served_or_told(
    requests: list[tuple[float, str, str, int, int]], slots: int, most: int, most_bytes: int
) -> None:
    arrivals = [
        (at, waiter(tenant, importance, tokens=tokens, size=size))
        for at, tenant, importance, tokens, size in requests
    ]
    bounds = Bounds(max_waiting=most, max_wait_s=5.0, max_bytes=most_bytes)
    began, dropped = simulate(arrivals, slots, 1000.0, bounds, 1e9)
    over = [id(one) for _, one in began] + [id(one) for one in dropped]
    assert len(over) == len(set(over)) == len(arrivals)
    for now, one in began:
        assert now - one.since <= bounds.max_wait_s


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(0, 2048), st.integers(0, 1)), min_size=2, max_size=200
    )
)
def test_tenants_with_enough_waiting_are_never_further_apart_than_a_request_of_each(
    requests: list[tuple[str, int, int]],
) -> None:
    """Wherever their requests wait: in the queue of one worker or of the other."""
    shares = fresh_shares()
    queues = made(shares=shares), made(shares=shares)
    for tenant, tokens, at in requests:
        joined(queues[at], [waiter(tenant, tokens=tokens)])
    left = Counter(tenant for tenant, _, _ in requests)
    tokens_of = dict.fromkeys(left, 0)
    # The bound of Goyal, Vin and Cheng, theorem 1.
    bound = 2 * max(tokens for _, tokens, _ in requests)
    while all(left.values()):
        assert max(tokens_of.values()) - min(tokens_of.values()) <= bound
        (one,) = served(min(queues, key=lambda queue: queue.turn_of(queue.next())), 1)
        tokens_of[one.tenant] += one.tokens
        left[one.tenant] -= 1


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9000)), min_size=1, max_size=60))
def test_the_order_is_that_of_start_tags(requests: list[tuple[str, int]]) -> None:
    """Against the algorithm as it is printed in the paper, of requests that are all there from the start."""
    queue = made()
    waiters = joined(queue, [waiter(tenant, tokens=tokens) for tenant, tokens in requests])
    finish = dict.fromkeys("abc", 0)
    tags = []
    for number, one in enumerate(waiters):
        tags.append((finish[one.tenant], number))
        finish[one.tenant] += one.tokens
    assert served(queue) == [waiters[number] for _, number in sorted(tags)]


def test_what_was_charged_too_much_is_given_back() -> None:
    queue = made()
    joined(queue, [waiter(tenant, tokens=1000) for tenant in "abab"])
    (first,) = served(queue, 1)
    assert (first.tenant, first.charged) == ("a", 1000)
    queue.correct(first.row, 10 - first.charged)
    assert [one.tenant for one in served(queue)] == ["b", "a", "b"]
    late = joined(queue, [waiter("b"), waiter("a")])
    assert served(queue) == [late[1], late[0]]


def test_a_wait_is_told_by_how_fast_places_became_free() -> None:
    queue = made()
    assert queue.wait_s("", 0.0) is None
    joined(queue, [waiter() for _ in range(30)], now=0.0)
    assert queue.wait_s("", 5.0) is None
    for second in range(6, 16):
        assert len(served(queue, 1, float(second))) == 1
    # Ten in 15 s, 20 wait.
    assert queue.wait_s("", 15.0) == pytest.approx(21 / (10 / 15), rel=0.25)
    # Another tenant's turn comes before it comes to any of these twice.
    assert queue.wait_s("other", 15.0) == pytest.approx(2 / (10 / 15), rel=0.25)
    served(queue, 20, 15.0)
    joined(queue, [waiter()], now=1e6)
    # Nobody waited meanwhile: that time says nothing.
    assert queue.wait_s("", 1e6) == pytest.approx(2 / (30 / 15), rel=0.25)
