"""The header lines that tell how a request was routed."""

from hypothesis import given
from hypothesis import strategies as st

from octoroute.exchange import Plan, Target, warning_line


def test_a_plan_tells_its_strategy_and_reason() -> None:
    assert Plan(Target("fast"), "rule", "named").why == (
        b"x-octoroute-strategy: rule\r\nx-octoroute-reason: named\r\n"
    )


def test_a_plan_that_falls_back_tells_which_tiers_could_not_answer() -> None:
    plan = Plan(Target("fast"), "rule", "named").fall_back(Target("deep"))
    assert (plan.target, plan.reason) == (Target("deep"), "named;fallback:fast")
    assert plan.fall_back(Target("balanced")).reason == "named;fallback:fast,deep"


def test_warnings_are_joined() -> None:
    plan = Plan(Target("fast"), "rule", "named", warnings=("one", "two"))
    assert plan.why.endswith(b"x-octoroute-warning: one; two\r\n")


@given(st.lists(st.text(max_size=300), max_size=5))
def test_a_warning_is_one_short_line_of_printable_ascii(warnings: list[str]) -> None:
    line = warning_line(warnings)
    assert line.endswith(b"\r\n")
    value = line.removeprefix(b"x-octoroute-warning: ").removesuffix(b"\r\n")
    assert len(value) <= 500
    assert all(0x20 <= each <= 0x7E for each in value)
