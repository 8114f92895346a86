"""The page about observability, the dashboard and the alerts, against what the code declares and writes."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octoroute.observe.ending import OUTCOMES
from octoroute.observe.metrics import METRICS
from octoroute.observe.request_log import FIELDS, Entry, as_json, as_text

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/observability.md").read_text()
ALERTS = ROOT / "deploy/prometheus-alerts.yml"
ALERTS_TEST = ROOT / "deploy/prometheus-alerts-test.yml"
DASHBOARD = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text())
PROMTOOL = pytest.mark.skipif(
    not shutil.which("promtool"), reason="Debian's package prometheus is not installed"
)

SERIES = {
    metric.name + suffix: metric
    for metric in METRICS
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}
EXAMPLE: Entry = (
    *(1795428000.0049, "8f2c", "", "auto", "fast", "rule:casual_chat", "qwen3-8b", 1, 200, "ok"),
    *(153.44, 2345.67, 523, 207, 54321, 0),
)


def panels() -> list[dict[str, Any]]:
    return list(DASHBOARD["panels"])


def queries() -> Iterator[str]:
    """Every PromQL expression of the dashboard, and the text of both files of alerts."""
    for panel in panels():
        yield from (target["expr"] for target in panel["targets"])
    yield from (variable.get("definition", "") for variable in DASHBOARD["templating"]["list"])
    yield ALERTS.read_text()
    yield ALERTS_TEST.read_text()


def table(heading: str, text: str = PAGE) -> list[list[str]]:
    """The cells of the first table whose head begins with `heading`."""
    lines = text[text.index(f"| {heading} |") :].splitlines()
    rows = lines[2 : next((at for at, line in enumerate(lines) if "|" not in line), len(lines))]
    return [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]


def test_the_page_lists_every_metric_as_it_is_declared() -> None:
    assert table("metric") == [
        [f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help]
        for metric in METRICS
    ]


def test_the_page_lists_every_outcome_and_every_field_of_the_log() -> None:
    assert [row[0] for row in table("outcome")] == [f"`{outcome}`" for outcome in OUTCOMES]
    assert [row[0] for row in table("field")] == [f"`{field}`" for field in FIELDS]


def test_the_lines_on_the_page_are_what_is_written() -> None:
    assert f"```text\n{as_text(EXAMPLE).decode()}```" in PAGE
    assert f"```json\n{as_json(EXAMPLE).decode()}```" in PAGE


def test_the_page_the_dashboard_and_the_alerts_name_no_metric_that_is_not_declared() -> None:
    for text in queries():
        assert set(re.findall(r"\boctoroute_\w+", text)) <= SERIES.keys()
    declared = {metric.name for metric in METRICS}
    assert set(re.findall(r"\boctoroute_\w+", PAGE)) <= SERIES.keys() | declared


def test_no_query_asks_for_a_label_that_its_metric_does_not_have() -> None:
    found = 0
    for text in queries():
        for name, selector in re.findall(r"(octoroute_\w+)\{([^}]*)\}", text):
            labels = set(re.findall(r"(\w+)\s*=", selector))
            assert labels <= {*SERIES[name].labels, "instance", "le"}, f"{name}{{{selector}}}"
            found += 1
    assert found > 50


def test_the_dashboard_shows_every_metric() -> None:
    shown = " ".join(target["expr"] for panel in panels() for target in panel["targets"])
    hidden = {metric.name for metric in METRICS if metric.name not in shown}
    assert hidden == {"octoroute_model_invocations_total"}  # requests by outcome say the same


def test_the_panels_of_the_dashboard_do_not_overlap_and_have_what_grafana_needs() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert grid["x"] + grid["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert DASHBOARD["schemaVersion"]
    assert DASHBOARD["uid"]


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    text = ALERTS_TEST.read_text()
    quiet = set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", text))
    assert names == quiet
    assert names == set(re.findall(r"alertname: (\w+)\n\s+exp_alerts:\n", text))


@PROMTOOL
def test_promtool_accepts_the_alerts_and_their_tests_pass() -> None:
    for command in (("check", "rules", ALERTS), ("test", "rules", ALERTS_TEST)):
        result = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr


@PROMTOOL
def test_promtool_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    """As rules, which are checked with the same parser; Grafana's variables are filled in first."""
    rules = []
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "5m").replace("$tier", ".*")
            rules.append({"record": "a:b", "expr": query.replace("$instance", ".*")})
    labelled = [rule | {"labels": {"at": str(at)}} for at, rule in enumerate(rules)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": labelled}]}))
    result = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
