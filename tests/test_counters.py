"""The cells against a plain oracle, and against processes that fork, die and are followed by others."""

import copy
import gc
import math
import os
import signal
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute._counters import KEY_BYTES, Cells, Counter, Histogram

# From Python 3.12 on a fork beside threads (pytest-xdist has some) warns; these children only count and end.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

BOUNDS = (0.1, 1.0, 10.0)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


def counter(cells: Cells, key: bytes) -> Counter:
    handle = cells.counter(key)
    assert handle is not None
    return handle


def histogram(cells: Cells, key: bytes, bounds: tuple[float, ...] = BOUNDS) -> Histogram:
    handle = cells.histogram(key, bounds)
    assert handle is not None
    return handle


def fork(work: Callable[[], None]) -> int:
    """A child that does `work` and ends without Python's clean-up, as a worker does."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def run(work: Callable[[], None]) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1]) == 0


def test_a_new_key_starts_at_zero_and_the_same_key_is_the_same_cell() -> None:
    cells = Cells(8, 1)
    first, second = counter(cells, b"a"), counter(cells, b"a")
    first.inc()
    second.add(2.5)
    assert first.total() == second.total() == 3.5
    assert cells.read() == [(b"a", [3.5])]


@pytest.mark.parametrize("amount", [-1.0, 0.0, math.nan, math.inf, -math.inf])
def test_a_counter_takes_no_amount_that_is_not_positive_and_finite(amount: float) -> None:
    handle = counter(Cells(1, 1), b"a")
    handle.add(amount)
    assert handle.total() == 0.0


@given(st.lists(numbers), st.lists(numbers, min_size=1, max_size=32, unique=True).map(sorted))
def test_a_histogram_counts_each_value_in_the_first_bucket_that_holds_it(
    values: list[float], bounds: list[float]
) -> None:
    cells = Cells(64, 1)
    handle = histogram(cells, b"h", tuple(bounds))
    expected = [0.0] * (len(bounds) + 1)
    for value in values:
        handle.observe(value)
        expected[bisect_left(bounds, value)] += 1
    [(_, (*counts, total))] = cells.read()
    assert counts == expected
    assert total == pytest.approx(sum(values), rel=1e-6, abs=1e-3 * max(map(abs, values), default=0))


def test_a_value_equal_to_a_bound_belongs_to_it() -> None:
    cells = Cells(8, 1)
    handle = histogram(cells, b"h")
    assert handle.bounds == BOUNDS
    for value in (0.1, 1.0, 10.0, 10.1):
        handle.observe(value)
    assert cells.read() == [(b"h", [1, 1, 1, 1, pytest.approx(21.2)])]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_does_not_spoil_the_sum(value: float) -> None:
    cells = Cells(8, 1)
    handle = histogram(cells, b"h")
    handle.observe(value)
    handle.merge(array("I", [1, 0, 0, 0]), value)
    assert cells.read() == [(b"h", [1, 0, 0, 0, 0.0])]


@given(st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4), max_size=4))
def test_merged_counts_are_added_bucket_by_bucket(parts: list[list[int]]) -> None:
    cells = Cells(8, 1)
    handle = histogram(cells, b"h")
    for part in parts:
        handle.merge(struct.pack("4I", *part), 0.5)
    [(_, (*counts, total))] = cells.read()
    assert counts == [sum(part[at] for part in parts) for at in range(4)]
    assert total == 0.5 * len(parts)


@pytest.mark.parametrize("counts", [b"", bytes(12), bytes(15), bytes(20)])
def test_merged_counts_of_another_size_are_refused(counts: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(counts)} bytes of counts; this histogram has 4 of 4 bytes"):
        histogram(Cells(8, 1), b"h").merge(counts, 0.0)


@pytest.mark.parametrize("bounds", [(), (1.0, 1.0), (2.0, 1.0), (math.nan,), (1.0, math.inf), (1.0,) * 33])
def test_bounds_that_do_not_rise_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="bounds"):
        Cells(64, 1).histogram(b"h", bounds)


@pytest.mark.parametrize(("capacity", "workers"), [(0, 1), (1, 0), (2**24 + 1, 1), (1, 4097)])
def test_impossible_sizes_are_refused(capacity: int, workers: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Cells(capacity, workers)


def test_a_worker_binds_a_row_that_exists() -> None:
    with pytest.raises(ValueError, match=r"worker 2 must be 0\.\.1"):
        Cells(1, 2).bind(2)


def test_any_process_reads_the_sum_of_all_workers_and_of_labels_it_never_met() -> None:
    cells = Cells(32, 3)
    early = counter(cells, b"early")
    early.inc()

    def work(worker: int) -> None:
        cells.bind(worker)
        late = counter(cells, b"late")
        timed = histogram(cells, b"h")
        for _ in range(1000):
            early.inc()
            late.add(2.0)
            timed.observe(0.5)

    children = [fork(lambda number=number: work(number)) for number in range(3)]  # type: ignore[misc]
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    expected = {b"early": [3001.0], b"late": [6000.0], b"h": [0.0, 3000.0, 0.0, 0.0, 1500.0]}
    assert dict(cells.read()) == expected

    def look() -> None:
        cells.bind(1)
        assert dict(cells.read()) == expected

    run(look)


def test_a_killed_workers_counts_stay_and_its_successor_adds_to_them() -> None:
    cells = Cells(8, 2)
    handle = counter(cells, b"a")
    ready, told = os.pipe()

    def work() -> None:
        cells.bind(0)
        for _ in range(10):
            handle.inc()
        os.write(told, b"!")
        signal.pause()

    child = fork(work)
    assert os.read(ready, 1) == b"!"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert handle.total() == 10.0

    def follow() -> None:
        cells.bind(0)
        handle.inc()

    run(follow)
    assert handle.total() == 11.0


def test_workers_killed_while_they_claim_labels_leave_a_table_that_works() -> None:
    cells = Cells(4096, 2)
    ready, told = os.pipe()

    def work() -> None:
        cells.bind(0)
        os.write(told, b"!")
        at = 0
        while True:  # claims, holds and lets go, under the lock nearly all the time, until killed
            cells.counter(b"%d" % (at % 3000))
            at += 1

    for _ in range(20):
        child = fork(work)
        assert os.read(ready, 1) == b"!"
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        counter(cells, b"mine").inc()
    assert dict(cells.read())[b"mine"] == [20.0]
    keys = [key for key, _ in cells.read()]
    assert len(keys) == len(set(keys))


def test_a_full_table_takes_no_further_key_but_still_knows_its_own() -> None:
    cells = Cells(4, 1)
    held = [counter(cells, b"%d" % at) for at in range(4)]
    assert cells.counter(b"more") is None
    assert cells.histogram(b"h", BOUNDS) is None
    held[0].inc()
    assert counter(cells, b"0").total() == 1.0


def test_a_full_table_gives_cells_that_nobody_holds_to_a_new_key_and_they_start_at_zero() -> None:
    cells = Cells(4, 1)
    held = [counter(cells, b"%d" % at) for at in range(4)]
    for handle in held:
        handle.add(7.0)
    del held[2], handle
    assert [key for key, _ in cells.read()] == [b"0", b"1", b"2", b"3"]  # kept until the room is needed
    fresh = counter(cells, b"new")
    assert fresh.total() == 0.0
    assert dict(cells.read()) == {b"0": [7.0], b"1": [7.0], b"new": [0.0], b"3": [7.0]}
    assert cells.counter(b"more") is None


def test_cells_go_only_to_a_key_that_needs_as_many() -> None:
    cells = Cells(6, 1)
    histogram(cells, b"h")
    single = counter(cells, b"c")
    assert cells.counter(b"more") is None
    assert cells.histogram(b"other", BOUNDS) is not None
    del single


def test_what_another_worker_holds_is_not_given_away() -> None:
    cells = Cells(1, 2)
    ready, told = os.pipe()
    go, tell = os.pipe()

    def work() -> None:
        cells.bind(0)
        handle = counter(cells, b"theirs")
        os.write(told, b"!")
        os.read(go, 1)
        handle.inc()
        os.kill(os.getpid(), signal.SIGKILL)

    child = fork(work)
    os.read(ready, 1)
    assert cells.counter(b"mine") is None
    os.write(tell, b"!")
    os.waitpid(child, 0)
    assert cells.counter(b"mine") is None  # the dead still hold: nobody has taken their place
    run(lambda: cells.bind(0))
    assert counter(cells, b"mine").total() == 0.0


def test_a_child_that_never_bound_does_not_let_go_of_its_parents_cells() -> None:
    cells = Cells(1, 1)
    kept = [counter(cells, b"a")]

    def work() -> None:
        kept.clear()
        gc.collect()

    run(work)
    assert cells.counter(b"b") is None


def test_a_key_longer_than_its_place_is_refused() -> None:
    cells = Cells(2, 1)
    assert cells.counter(b"x" * KEY_BYTES) is not None
    assert cells.counter(b"x" * (KEY_BYTES + 1)) is None


def test_the_cells_live_as_long_as_a_handle() -> None:
    handle = counter(Cells(1, 1), b"a")
    gc.collect()
    handle.inc()
    assert handle.total() == 1.0


@pytest.mark.parametrize("kind", [Counter, Histogram])
def test_only_cells_make_handles(kind: type) -> None:
    with pytest.raises(TypeError, match="Cells makes them"):
        kind()
    with pytest.raises(TypeError):
        copy.copy(counter(Cells(1, 1), b"a"))
