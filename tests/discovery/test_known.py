"""What is kept of the sources while they answer, and while they do not."""

from octoroute.config.found import Address, Place
from octoroute.discovery.known import Known

FAST: Place = ("dns", "fast")
DEEP: Place = ("kubernetes", "deep")
ONE, TWO = (Address("10.0.0.1", 1),), (Address("10.0.0.1", 1), Address("10.0.0.2", 1))


def known(**keep: float) -> Known:
    made = Known()
    made.follow({("dns", tier): seconds for tier, seconds in keep.items()})  # type: ignore[misc]
    return made


def test_only_other_servers_are_a_change() -> None:
    made = known(fast=10.0)
    assert made.note_found(FAST, ONE) == (True, False)
    assert made.note_found(FAST, ONE) == (False, False)
    assert made.note_found(FAST, TWO) == (True, False)
    assert made.note_found(FAST, ()) == (True, False)


def test_servers_are_kept_for_a_time_while_nothing_can_be_found_out() -> None:
    made = known(fast=10.0)
    made.note_found(FAST, ONE)
    assert made.deadline is None
    assert made.note_lost(FAST, "no answer", 100.0) == 10.0
    assert made.deadline == 110.0
    assert made.expire(109.9) == []
    assert made.found == {FAST: ONE}
    assert made.expire(110.0) == [FAST]
    assert made.found == {FAST: ()}
    assert made.expire(111.0) == []


def test_the_time_runs_from_the_first_failure_and_only_news_are_told() -> None:
    made = known(fast=10.0)
    made.note_found(FAST, ONE)
    made.note_lost(FAST, "no answer", 100.0)
    assert made.note_lost(FAST, "no answer", 104.0) is None
    assert made.note_lost(FAST, "refused", 104.0) == 6.0
    assert made.deadline == 110.0


def test_an_answer_ends_the_time() -> None:
    made = known(fast=10.0)
    made.note_found(FAST, ONE)
    made.note_lost(FAST, "no answer", 100.0)
    assert made.note_found(FAST, ONE) == (False, True)
    assert made.deadline is None
    assert made.note_lost(FAST, "no answer", 200.0) == 10.0


def test_a_source_that_never_answered_has_nothing_to_keep() -> None:
    made = known(fast=10.0)
    assert made.note_lost(FAST, "no answer", 100.0) == 0.0
    assert (made.found[FAST], made.deadline) == ((), None)


def test_it_is_complete_when_every_source_has_been_looked_at_with_success_or_without() -> None:
    made = known(fast=1.0, deep=1.0)
    assert not made.complete
    made.note_found(FAST, ONE)
    made.note_lost(("dns", "deep"), "no answer", 1.0)
    assert made.complete
    assert known().complete


def test_sources_that_stay_keep_what_is_known_of_them_and_others_are_forgotten() -> None:
    made = known(fast=10.0)
    made.note_found(FAST, ONE)
    made.follow({FAST: 20.0, DEEP: 5.0})
    assert made.found == {FAST: ONE, DEEP: ()}
    assert made.note_lost(FAST, "no answer", 100.0) == 20.0
    made.follow({DEEP: 5.0})
    assert made.found == {DEEP: ()}
    assert made.note_found(FAST, ONE) == (False, False)
    assert made.note_lost(FAST, "late", 1.0) is None
    assert made.found == {DEEP: ()}
