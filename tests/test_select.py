"""The selection core against a plain oracle: exact fractions, chi-squared at fixed seeds."""

import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octoroute._select import FatalSelectionError, Selector, xoshiro_words

WORD = 2**64


def chi_squared_bound(freedom: int) -> float:
    """What chi-squared stays below with probability 1 - 1e-6.

    E. B. Wilson and M. M. Hilferty, PNAS 17(12), 1931: the cube root of chi-squared over freedom is near
    normal; 4.7534 is the normal quantile of 1 - 1e-6.
    """
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + 4.7534 * math.sqrt(spread)) ** 3)


def chi_squared(drawn: Counter[int], chances: dict[int, float]) -> tuple[float, int]:
    """Pearson's statistic and its degrees of freedom; cells that expect fewer than 5 are pooled."""
    total = drawn.total()
    cells = []
    pooled_expected = pooled_drawn = 0.0
    for index, chance in chances.items():
        if chance * total >= 5:
            cells.append((chance * total, float(drawn[index])))
        else:
            pooled_expected += chance * total
            pooled_drawn += drawn[index]
    if pooled_expected >= 5:
        cells.append((pooled_expected, pooled_drawn))
    elif cells:  # too small a cell of its own: it joins the largest one
        cells.sort()
        cells[-1] = (cells[-1][0] + pooled_expected, cells[-1][1] + pooled_drawn)
    return sum((seen - expected) ** 2 / expected for expected, seen in cells), len(cells) - 1


@dataclass
class Fleet:
    """What a Selector is made of, and the plain way to say what it must do."""

    weights: list[float]
    priorities: list[int]
    eligible: list[bool]
    full: list[bool]
    excluded: set[int] = field(default_factory=set)

    def selector(self, seed: int | None = 1) -> Selector:
        count = len(self.weights)
        # Gates in another order than the endpoints, as slots are.
        slots = [count - 1 - index for index in range(count)]
        gates = bytearray(count)
        for index, slot in enumerate(slots):
            gates[slot] = self.full[index]
        names = [f"m{index}" for index in range(count)]
        selector = Selector("fast", names, self.weights, self.priorities, gates, slots, seed)
        selector.rebuild(bytes(self.eligible))
        return selector

    def chances(self, closed: Callable[[int], bool]) -> dict[int, float]:
        left = [i for i in range(len(self.weights)) if self.eligible[i] and not closed(i)]
        top = max((self.priorities[i] for i in left), default=0)
        group = [i for i in left if self.priorities[i] == top]
        total = sum((Fraction(self.weights[i]) for i in group), Fraction())
        return {i: float(Fraction(self.weights[i]) / total) for i in group}

    def chances_of_a_draw(self) -> dict[int, float]:
        return self.chances(lambda i: self.full[i] or i in self.excluded)

    def chances_of_the_tables(self) -> dict[int, float]:
        return self.chances(lambda _: False)


def drawn(selector: Selector, count: int, excluded: Collection[int] | None = None) -> Counter[int]:
    return Counter(selector.draw(excluded) for _ in range(count))


def sound(
    weights: Sequence[float], priorities: Sequence[int] | None = None, seed: int | None = 7
) -> Selector:
    """A selector of eligible endpoints whose gates are open."""
    count = len(weights)
    names = [f"m{index}" for index in range(count)]
    selector = Selector("fast", names, weights, priorities or [1] * count, seed=seed)
    selector.rebuild(bytes([1] * count))
    return selector


def in_child(answer: Callable[[], bytes]) -> bytes:
    """What `answer` gives in a forked process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, answer())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


# The generator


def test_the_generator_gives_the_published_words() -> None:
    # rand_xoshiro's vector, made with the authors' C program from the state 1, 2, 3, 4.
    assert xoshiro_words((1, 2, 3, 4), 10) == [
        41943041,
        58720359,
        3588806011781223,
        3591011842654386,
        9228616714210784205,
        9973669472204895162,
        14011001112246962877,
        12406186145184390807,
        15849039046786891736,
        10450023813501588000,
    ]


def test_a_seed_becomes_the_state_through_splitmix64() -> None:
    # The first words of splitmix64 from 0; with four equal weights a draw is the top two bits of a word.
    state = (16294208416658607535, 7960286522194355700, 487617019471545679, 17909611376780542444)
    selector = sound([1.0] * 4, seed=0)
    assert [selector.draw() for _ in range(100)] == [word * 4 // WORD for word in xoshiro_words(state, 100)]


def test_the_same_seed_draws_the_same_and_no_seed_draws_differently() -> None:
    def sequence(seed: int | None) -> list[int]:
        selector = sound([1.0, 2.0, 3.0, 4.0], seed=seed)
        return [selector.draw() for _ in range(100)]

    assert sequence(5) == sequence(5)
    assert sequence(5) != sequence(6)
    assert sequence(None) != sequence(None)


def test_reseeding_starts_the_sequence_again() -> None:
    selector = sound([1.0] * 9, seed=3)
    first = [selector.draw() for _ in range(50)]
    selector.reseed(3)
    assert [selector.draw() for _ in range(50)] == first
    selector.reseed()
    assert [selector.draw() for _ in range(50)] != first


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_draws_its_own_sequence_unless_it_was_seeded() -> None:
    for seed, same in ((None, False), (11, True)):
        selector = sound([1.0] * 200, seed=seed)
        told = in_child(lambda made=selector: bytes(made.draw() for _ in range(100)))  # type: ignore[misc]
        assert len(told) == 100
        assert (told == bytes(selector.draw() for _ in range(100))) is same


# What octoroute 1.0 held of its draws


def test_two_to_one_over_3000_draws_is_2000_to_1000_within_a_tenth() -> None:
    counts = drawn(sound([2.0, 1.0]), 3000)
    assert 1800 <= counts[0] <= 2200
    assert 900 <= counts[1] <= 1100


def test_nine_to_one_over_1000_draws_stays_in_its_bounds() -> None:
    counts = drawn(sound([9.0, 1.0]), 1000)
    assert 765 <= counts[0] <= 1035
    assert 35 <= counts[1] <= 165


def test_three_two_one_over_6000_draws_is_within_a_tenth() -> None:
    counts = drawn(sound([3.0, 2.0, 1.0]), 6000)
    for index, expected in enumerate((3000, 2000, 1000)):
        assert 0.9 * expected <= counts[index] <= 1.1 * expected


def test_one_to_three_over_10000_draws_has_a_chi_squared_below_10() -> None:
    statistic, freedom = chi_squared(drawn(sound([1.0, 3.0]), 10_000), {0: 0.25, 1: 0.75})
    assert freedom == 1
    assert statistic < 10


def test_equal_weights_are_uniform() -> None:
    for count in (2, 3, 10, 1000):
        statistic, freedom = chi_squared(
            drawn(sound([0.7] * count), 50 * count), dict.fromkeys(range(count), 1 / count)
        )
        assert freedom == count - 1
        assert statistic < chi_squared_bound(freedom)


def test_only_the_highest_priority_is_drawn() -> None:
    assert set(drawn(sound([1.0, 9.0, 1.0, 1.0], [5, 1, 5, 0]), 500)) == {0, 2}


def test_a_lower_priority_answers_where_the_higher_ones_are_excluded_full_or_not_eligible() -> None:
    gates = bytearray(8)
    selector = Selector("deep", list("abcd"), [1.0, 1.0, 1.0, 1.0], [3, 3, 2, 1], gates, [6, 4, 2, 0], 1)
    selector.rebuild(bytes([1, 1, 1, 1]))
    assert set(drawn(selector, 200)) == {0, 1}
    assert set(drawn(selector, 200, {0, 1})) == {2}
    gates[6] = gates[4] = 1
    assert set(drawn(selector, 200)) == {2}
    assert set(drawn(selector, 200, [2])) == {3}
    selector.rebuild(bytes([1, 1, 0, 1]))
    assert set(drawn(selector, 200)) == {3}
    assert selector.draw([3]) == -1
    gates[4] = 0
    assert set(drawn(selector, 200)) == {1}


# Against the oracle


def fleets(exclusions: bool) -> st.SearchStrategy[Fleet]:
    """Up to 1,000 endpoints. Hypothesis chooses sizes and a seed: over lists of 1,000 it would take ages."""

    def build(count: int, seed: int, decades: int, priorities: int, share: float) -> Fleet:
        random = Random(seed)
        excluded = {i for i in range(count) if random.random() < share} if exclusions else set()
        return Fleet(
            [10.0 ** random.uniform(-decades, decades) for _ in range(count)],
            [random.randrange(priorities) for _ in range(count)],
            [random.random() < 0.9 for _ in range(count)],
            [exclusions and random.random() < share / 2 for _ in range(count)],
            excluded,
        )

    return st.builds(
        build,
        st.one_of(st.integers(0, 12), st.integers(0, 1000)),
        st.integers(0, 2**32),
        st.sampled_from([0, 1, 3, 300]),
        st.integers(1, 5),
        st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99]),
    )


@settings(derandomize=True, max_examples=200)
@given(fleets(exclusions=True), st.integers(0, WORD - 1))
def test_draws_have_the_exact_conditional_distribution(fleet: Fleet, seed: int) -> None:
    counts = drawn(fleet.selector(seed), 1000, fleet.excluded or None)
    chances = fleet.chances_of_a_draw()
    if not chances:
        assert set(counts) == {-1}
        return
    assert set(counts) <= set(chances)
    statistic, freedom = chi_squared(counts, chances)
    assert freedom == 0 or statistic < chi_squared_bound(freedom)


@settings(derandomize=True, max_examples=200)
@given(fleets(exclusions=False))
def test_the_columns_of_a_table_add_up_to_weight_over_total(fleet: Fleet) -> None:
    chances = fleet.chances_of_the_tables()
    for index, chance in enumerate(fleet.selector().probabilities()):
        assert chance == pytest.approx(chances.get(index, 0.0), rel=0, abs=1e-12)


@settings(derandomize=True, max_examples=100)
@given(fleets(exclusions=True))
def test_what_remains_is_counted(fleet: Fleet) -> None:
    untried = [i for i, eligible in enumerate(fleet.eligible) if eligible and i not in fleet.excluded]
    free = [i for i in untried if not fleet.full[i]]
    assert fleet.selector().remaining(fleet.excluded) == (len(untried), len(free))


@pytest.mark.parametrize("weight", [5e-324, 1e-300, 1e300, 1.7e308])
def test_a_thousand_endpoints_of_any_one_legal_weight_are_uniform(weight: float) -> None:
    selector = sound([weight] * 1000)
    assert selector.probabilities() == pytest.approx([0.001] * 1000, rel=1e-12)
    counts = drawn(selector, 5_000, range(500))
    statistic, freedom = chi_squared(counts, dict.fromkeys(range(500, 1000), 1 / 500))
    assert statistic < chi_squared_bound(freedom)


def test_tiny_weights_share_by_weight_once_the_huge_one_is_excluded() -> None:
    counts = drawn(sound([1e300, 1e-300, 3e-300]), 10_000, [0])
    statistic, freedom = chi_squared(counts, {1: 0.25, 2: 0.75})
    assert freedom == 1
    assert statistic < chi_squared_bound(1)


def test_exclusions_leave_the_tables_as_they_are() -> None:
    selector = sound([1.0, 2.0, 3.0])
    before = selector.probabilities()
    drawn(selector, 100, [1, 2])
    assert selector.probabilities() == before
    assert set(drawn(selector, 500)) == {0, 1, 2}


# Rebuilds


def test_nothing_is_drawn_before_the_first_rebuild_or_from_nobody() -> None:
    assert Selector("fast", ["a"], [1.0], [1]).draw() == -1
    assert sound([]).draw() == -1
    assert sound([]).probabilities() == []


def test_a_rebuild_takes_new_weights_and_keeps_them() -> None:
    selector = sound([1.0, 1.0])
    selector.rebuild(b"\1\1", [1.0, 3.0])
    assert selector.probabilities() == [0.25, 0.75]
    selector.rebuild(b"\1\0")
    assert selector.probabilities() == [1.0, 0.0]
    selector.rebuild(b"\1\1")
    assert selector.probabilities() == [0.25, 0.75]


def test_lengths_that_do_not_fit_are_refused() -> None:
    selector = sound([1.0, 1.0])
    with pytest.raises(ValueError, match="exactly 2"):
        selector.rebuild(b"\1")
    with pytest.raises(ValueError, match="exactly 2"):
        selector.rebuild(b"\1\1", [1.0])
    with pytest.raises(ValueError, match="same length"):
        Selector("fast", ["a"], [1.0, 2.0], [1])
    with pytest.raises(ValueError, match="one slot per endpoint"):
        Selector("fast", ["a"], [1.0], [1], bytearray(4))
    with pytest.raises(ValueError, match="slot 4 lies outside"):
        Selector("fast", ["a"], [1.0], [1], bytearray(4), [4])
    with pytest.raises(ValueError, match="slot -1 lies outside"):
        Selector("fast", ["a"], [1.0], [1], bytearray(4), [-1])


def test_an_index_that_is_none_is_refused_and_leaves_no_mark() -> None:
    selector = sound([1.0, 1.0])
    for wrong in ([0, 2], [0, -1], [0, 2**40]):
        with pytest.raises(IndexError):
            selector.draw(wrong)
    with pytest.raises(TypeError):
        selector.draw([0, "one"])  # type: ignore[list-item]
    with pytest.raises(IndexError):
        selector.remaining([0, 2])
    assert set(drawn(selector, 100)) == {0, 1}


# Corruption


CORRUPT = [0.0, -1.0, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("weight", CORRUPT, ids=str)
def test_weights_past_validation_are_fatal_and_say_everything(weight: float) -> None:
    selector = Selector("balanced", ["good", "bad", "worse"], [1.0, weight, weight], [2, 7, 7])
    with pytest.raises(FatalSelectionError) as raised:
        selector.rebuild(b"\1\1\1")
    message = str(raised.value)
    assert message.startswith("MEMORY CORRUPTION DETECTED: ")
    assert "tier 'balanced', priority 7: " in message
    assert f"total weight is {weight + weight!r}" in message
    assert message.endswith(f"[('bad', {weight!r}), ('worse', {weight!r})]")
    assert (raised.value.label, raised.value.priority) == ("balanced", 7)
    assert [name for name, _ in raised.value.members] == ["bad", "worse"]


@pytest.mark.parametrize("weight", CORRUPT, ids=str)
def test_one_corrupt_member_is_fatal_whatever_the_total(weight: float) -> None:
    with pytest.raises(FatalSelectionError):
        sound([5.0, weight])
    with pytest.raises(FatalSelectionError):  # below a sound group too
        sound([5.0, weight], [2, 1])


def test_every_draw_after_corruption_is_fatal_until_a_rebuild_succeeds() -> None:
    selector = sound([1.0, 1.0])
    with pytest.raises(FatalSelectionError):
        selector.rebuild(b"\1\1", [1.0, math.nan])
    for excluded in (None, [0], [0, 1]):
        with pytest.raises(FatalSelectionError, match=r"^MEMORY CORRUPTION DETECTED: .*\('m1', nan\)"):
            selector.draw(excluded)
    selector.rebuild(b"\1\0")  # the corrupt one is out
    assert selector.draw() == 0
    selector.rebuild(b"\1\1", [1.0, 2.0])
    assert set(drawn(selector, 100)) == {0, 1}
