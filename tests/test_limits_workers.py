"""The table of limits in several processes, which hammer it and are killed."""

import os
import signal

import pytest

from octoroute._limits import ADMITTED, LimitTable, Pass
from tests.test_state_workers import Beacon, ended_well, fork

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
TENANT = b"t" * 16


def test_processes_together_are_admitted_exactly_the_limit() -> None:
    table = LimitTable(workers=4)
    slot = table.claim(TENANT)
    start, reader = Beacon(), os.pipe()

    def take(worker: int) -> None:
        table.worker = worker
        start.wait()
        passes = [Pass(table, slot) for _ in range(3000)]
        admitted = sum(one.begin(1000.0, 5000, 0) == ADMITTED for one in passes)
        tokens = sum(one.reserve(1000.0, 3, 10_000) for one in passes)
        os.write(reader[1], b"%8d%8d" % (admitted, tokens))

    children = [fork(lambda number=worker: take(number)) for worker in range(4)]  # type: ignore[misc]
    for _ in children:
        start.light()
    assert ended_well(*children)
    said = [os.read(reader[0], 16) for _ in children]
    start.close()
    assert sum(int(one[:8]) for one in said) == 5000
    assert sum(int(one[8:]) for one in said) == 3333
    assert table.requests(slot, 1000.0, 5000)[0] == 5000
    assert table.tokens(slot, 1000.0, 10_000)[0] == 9999


def test_a_killed_workers_places_are_reclaimed_and_its_requests_stay_counted() -> None:
    table = LimitTable(workers=2)
    slot = table.claim(TENANT)
    mine = Pass(table, slot)
    assert mine.begin(1000.0, 10, 4) == ADMITTED
    ready, never = Beacon(), Beacon()

    def hold() -> None:
        table.worker = 1
        passes = [Pass(table, slot) for _ in range(4)]
        assert [one.begin(1000.0, 10, 4) for one in passes] == [ADMITTED] * 3 + [2]
        ready.light()
        never.wait()

    child = fork(hold)
    ready.wait()
    os.kill(child, signal.SIGKILL)
    assert not ended_well(child)
    assert table.in_flight(slot)[1] == 4
    assert table.reclaim(1) == 3
    assert table.in_flight(slot)[1] == 1
    assert table.requests(slot, 1000.0, 10)[0] == 4
    ready.close()
    never.close()


def test_a_worker_killed_in_the_middle_of_a_change_leaves_nothing_behind() -> None:
    # Where the kill falls is the kernel's choice; many fall between a lock and its unlock.
    table = LimitTable(slots=4, workers=2)
    slot, progress = table.claim(TENANT), table.claim(b"p" * 16)

    def hammer(second: float) -> None:
        table.worker = 1
        while True:
            for _ in range(20):
                second += 1
                one = Pass(table, slot)
                one.begin(second, 100, 3)
                if one.reserve(second, 5, 1000):
                    one.settle(second, 9, 1000)
                one.end()
            Pass(table, progress).begin(second, 1 << 40, 0)

    for kill in range(40):
        begin = 1000.0 + kill * 1e7
        child = fork(lambda second=begin: hammer(second))  # type: ignore[misc]
        while table.in_flight(progress)[0] < 2 * kill:
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
        os.kill(child, signal.SIGKILL)
        assert not ended_well(child)
        assert table.reclaim(1) <= 1
        assert table.in_flight(slot)[1] == 0
        assert table.requests(slot, begin, 100)[0] <= 100
        # All of it has gone a while later, so that sums and seconds agree.
        assert table.requests(slot, begin + 9e6, 100) == (0, 0.0, 0.0)
        assert table.tokens(slot, begin + 9e6, 1000) == (0, 0.0, 0.0)


def test_a_pass_that_crossed_a_fork_stays_its_first_processes() -> None:
    table = LimitTable(workers=2)
    slot = table.claim(TENANT)
    passes = [Pass(table, slot)]
    assert passes[0].begin(1.0, 0, 1) == ADMITTED

    def forget() -> None:
        table.worker = 1
        passes.clear()
        assert table.in_flight(slot)[1] == 1

    assert ended_well(fork(forget))
    assert table.in_flight(slot)[1] == 1
