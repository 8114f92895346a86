"""Of several workers one says that Redis is away, and one that it is back."""

import os

from octoroute.sharing.outage import Outage


def test_one_of_all_workers_says_that_it_began_and_one_that_it_ended() -> None:
    outage = Outage(3)
    for worker in range(3):
        outage.note(worker, "away")
    # All have noted it before the first of them comes to say it.
    assert [outage.begins() for _ in range(3)] == [True, False, False]
    outage.note(0, "up")
    assert not outage.ends()
    outage.note(1, "up")
    outage.note(2, "up")
    assert [outage.ends() for _ in range(3)] == [True, False, False]
    assert outage.begins()


def test_what_never_began_does_not_end() -> None:
    outage = Outage(1)
    assert not outage.ends()
    assert outage.begins()


def test_what_it_had_open_is_closed_with_it() -> None:
    before = len(os.listdir("/proc/self/fd"))
    outage = Outage(1)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del outage
    assert len(os.listdir("/proc/self/fd")) == before
