"""Draws among endpoints of which several are one server: a gate for each, and one for all of them."""

import pytest

from octoroute._select import Selector
from tests.test_select import drawn


def test_a_server_that_is_full_is_not_drawn_under_any_of_its_names() -> None:
    gates = bytearray(8)
    selector = Selector("deep", list("abc"), [1.0] * 3, [1] * 3, gates, [0, 1, 2], 1, [6, 6, 7])
    selector.rebuild(bytes([1, 1, 1]))
    gates[6] = 1
    assert set(drawn(selector, 200)) == {2}
    assert selector.remaining() == (3, 1)
    gates[7] = 1
    assert selector.draw() == -1
    gates[6], gates[0] = 0, 1
    assert set(drawn(selector, 200)) == {1}


def test_a_server_whose_gate_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="slot 8 lies outside of the 8 gates"):
        Selector("deep", ["a"], [1.0], [1], bytearray(8), [0], None, [8])
    with pytest.raises(ValueError, match="one slot per endpoint"):
        Selector("deep", ["a"], [1.0], [1], bytearray(8), [0], None, [])
