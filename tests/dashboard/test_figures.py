"""The arithmetic of the dashboard, run by node: rates, quantiles, and how numbers are written."""

import json
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest

FIGURES = Path(__file__).parents[2] / "octoroute" / "dashboard" / "figures.js"
pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Debian's package nodejs is not there")

BOUNDS = [0.1, 0.2, 0.4, None]


def run(*expressions: str) -> list[Any]:
    """What expressions come to; the module is `f`."""
    # As a URL of its own: older nodes take a file that ends in .js for no module.
    module = f"data:text/javascript;base64,{b64encode(FIGURES.read_bytes()).decode()}"
    script = f'import * as f from "{module}"; console.log(JSON.stringify([{",".join(expressions)}]))'
    command = ["node", "--input-type=module"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def status(uptime: float, ok: int = 0, errors: int = 0, waited: int = 0, first: int = 0) -> dict[str, Any]:
    tier = {
        "requests": {"ok": ok, "error": errors, "broken": 0},
        "tokens": {"prompt": 0, "completion": 10 * ok},
        "first_token": [[bound, first if bound == 0.2 else 0] for bound in BOUNDS],
    }
    queue = {"waited": {"count": waited, "seconds": 2.0 * waited}}
    return {"gateway": {"uptime_seconds": uptime}, "tiers": {"fast": tier}, "queues": {"fast": queue}}


def kept(*looks: tuple[float, dict[str, Any]], seconds: int = 120) -> str:
    """The samples of some looks, each at its moment."""
    samples = "[]"
    for at, told in looks:
        samples = f"f.keep({samples}, f.sample({json.dumps(told)}, {at}), {seconds})"
    return samples


def test_what_happened_lately_is_the_difference_of_two_looks() -> None:
    samples = kept((0, status(5, 100, 7)), (2, status(7, 104, 8)), (4, status(9, 130, 9, waited=3, first=4)))
    [lately] = run(f'f.lately({samples}, "fast", 60)')
    expected = {"rate": 8, "requests": 32, "failed": 2, "tokens": 75, "wait": 2, "first": [0, 4, 0, 0]}
    assert lately == {**expected, "bounds": BOUNDS}


def test_there_is_nothing_to_tell_after_one_look_nor_after_a_new_beginning() -> None:
    first = kept((0, status(5, 100)))
    restarted = kept((0, status(500, 100)), (2, status(502, 110)), (4, status(1, 3)))
    assert run(f'f.lately({first}, "fast", 60)', f'f.lately({restarted}, "fast", 60)') == [None, None]
    assert run(f"{restarted}.length") == [1]


def test_looks_that_are_too_old_are_let_go() -> None:
    looks = [(float(at), status(at, at)) for at in range(0, 400, 2)]
    [count, first, rate] = run(
        f"{kept(*looks)}.length", f"{kept(*looks)}[0].at", f'f.lately({kept(*looks)}, "fast", 60).rate'
    )
    assert (count, first, rate) == (62, 276, 1)


def test_a_course_has_a_point_for_each_step() -> None:
    samples = kept((0, status(1)), (2, status(3, 4)), (4, status(5, 4, 2)))
    assert run(f'f.course({samples}, "fast")') == [[[2, 2, 0], [0, 1, 1]]]


@pytest.mark.parametrize(
    ("share", "counts", "value"),
    [
        (0.5, [0, 0, 0, 0], None),
        (0.5, [10, 0, 0, 0], 0.05),
        (0.5, [5, 0, 5, 0], 0.1),
        (0.95, [0, 10, 0, 0], 0.195),
        # Above the last bound nothing is known but that.
        (0.95, [1, 0, 0, 9], 0.4),
    ],
)
def test_a_quantile_lies_evenly_within_its_bucket(share: float, counts: list[int], value: Any) -> None:
    assert run(f"f.quantile({share}, {counts}, {json.dumps(BOUNDS)})") == [pytest.approx(value)]


def test_numbers_are_written_with_as_many_digits_as_say_something() -> None:
    durations = {
        0: "0 ms",
        0.0123: "12.3 ms",
        0.34: "340 ms",
        0.9996: "1.0 s",
        59.9: "59.9 s",
        75: "1 min 15 s",
    }
    spans = {0: "0 s", 59: "59 s", 60: "1 min", 3700: "1 h 1 min", 90000: "1 d 1 h", 172800: "2 d"}
    rates = {0: "0", 0.034: "0.03", 2.34: "2.3", 9.96: "10", 1234: "1\u202f234"}
    for name, cases in (("duration", durations), ("span", spans), ("rate", rates)):
        assert run(*(f"f.{name}({value})" for value in cases)) == list(cases.values())
    assert run("f.duration(null)", "f.count(null)", "f.percent(0.05)") == ["–", "–", "5\u00a0%"]  # noqa: RUF001
