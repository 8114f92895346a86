"""The memory of decisions against a plain list of pairs in order of use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octoroute.routing.remember import Decisions


def test_what_was_remembered_is_recalled() -> None:
    decisions = Decisions(2)
    assert decisions.recall(b"a") is None
    decisions.remember(b"a", "deep")
    assert decisions.recall(b"a") == "deep"
    assert (decisions.hits, decisions.misses, decisions.evicted, len(decisions)) == (1, 1, 0, 1)


def test_the_one_unused_for_longest_makes_room() -> None:
    decisions = Decisions(2)
    decisions.remember(b"a", "fast")
    decisions.remember(b"b", "deep")
    decisions.recall(b"a")
    decisions.remember(b"c", "deep")
    assert (decisions.recall(b"a"), decisions.recall(b"b"), decisions.recall(b"c")) == ("fast", None, "deep")
    assert decisions.evicted == 1


def test_remembering_again_replaces_and_evicts_nothing() -> None:
    decisions = Decisions(1)
    decisions.remember(b"a", "fast")
    decisions.remember(b"a", "deep")
    assert (decisions.recall(b"a"), decisions.evicted) == ("deep", 0)


def test_no_entries_means_no_memory_and_no_counting() -> None:
    decisions = Decisions(0)
    decisions.remember(b"a", "fast")
    assert decisions.recall(b"a") is None
    assert (len(decisions), decisions.hits, decisions.misses, decisions.evicted) == (0, 0, 0, 0)


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        Decisions(-1)


def test_an_operator_sees_how_full_it_is() -> None:
    decisions = Decisions(2)
    decisions.remember(b"secret", "fast")
    assert repr(decisions) == "<Decisions 1/2, 0 hits, 0 misses, 0 evicted>"


@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.booleans(), st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"]))),
)
def test_the_memory_agrees_with_a_plain_list(entries: int, steps: list[tuple[bool, bytes]]) -> None:
    decisions = Decisions(entries)
    used: list[tuple[bytes, str]] = []
    for number, (writes, key) in enumerate(steps):
        known = dict(used).get(key)
        if writes:
            tier = f"tier-{number}"
            decisions.remember(key, tier)
            used = [*(pair for pair in used if pair[0] != key), (key, tier)][-entries:]
        else:
            assert decisions.recall(key) == known
            if known is not None:
                used = [*(pair for pair in used if pair[0] != key), (key, known)]
        assert len(decisions) == len(used)
    reads = sum(not writes for writes, _ in steps)
    assert decisions.hits + decisions.misses == reads
