"""What the soak counts against the gateway, and what it does not."""

import pytest

from benchmarks.soak.clock import Clock
from benchmarks.soak.load import SHAPES, Load
from octoroute.demo.client import End, Seen, Target
from octoroute.demo.judging import Judgement, Verdict

NOT_JUDGED = (Verdict.ERROR, Verdict.HANG)
WRONG = (Verdict.WRONG, Verdict.SILENTLY_CUT, Verdict.CUT, Verdict.BARE_ERROR, Verdict.SAME_NO_DONE)


class Soak:
    """A load whose clock is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        clock = Clock(2.0, monotonic=lambda: self.now, wall=lambda: self.now)
        self.load = Load([], Target("http://127.0.0.1:1", "soak"), 1, clock, lambda: False)

    def ended(self, verdict: Verdict, *steps: float) -> tuple[int, int]:
        """After a request that was there while the clock was looked at after each of the `steps`: how many
        errors were shown, how many not judged.
        """
        began_s = self.load.clock.now()
        for step in steps:
            self.now += step
            self.load.clock.now()
        self.load.note(SHAPES[0], 1, None, began_s, Seen(End.WHOLE, 200), Judgement(verdict))
        tally = self.load.tally
        return tally.shown.total(), tally.not_judged


@pytest.mark.parametrize("verdict", NOT_JUDGED)
def test_errors_and_silence_are_not_judged_where_the_machine_stood_still(verdict: Verdict) -> None:
    assert Soak().ended(verdict, 1.0, 30.0, 1.0) == (0, 1)


@pytest.mark.parametrize("verdict", [*NOT_JUDGED, *WRONG])
def test_they_are_judged_where_it_did_not(verdict: Verdict) -> None:
    assert Soak().ended(verdict, *[1.0] * 32) == (1, 0)


@pytest.mark.parametrize("verdict", WRONG)
def test_a_standstill_is_no_excuse_for_a_wrong_answer(verdict: Verdict) -> None:
    assert Soak().ended(verdict, 1.0, 30.0, 1.0) == (1, 0)


def test_a_whole_answer_counts_as_such_after_a_standstill() -> None:
    assert Soak().ended(Verdict.SAME, 30.0) == (0, 0)
