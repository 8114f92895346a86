"""Cores that look into memory let go of it in order, also where the collector finds them in a cycle."""

import gc
from collections.abc import Callable

import pytest

from octoroute._limits import LimitTable
from octoroute._prefix import PrefixIndex
from octoroute._select import Selector
from octoroute._state import FleetState


class Knot:
    """Refers to itself, so that only the collector can end it."""

    def __init__(self, held: object) -> None:
        self.held = held
        self.knot = self


def selector() -> Selector:
    return Selector("fast", ["a"], [1.0], [1], memoryview(bytearray(1)), [0])


@pytest.mark.parametrize("make", [selector, FleetState, PrefixIndex, LimitTable])
def test_the_collector_ends_it_without_a_complaint(
    make: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", complaints.append)
    gc.collect()
    Knot(make())
    assert gc.collect() > 0
    assert complaints == []
