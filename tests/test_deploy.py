"""The files in deploy/ fit the program: their config is valid, what they copy is there, times agree."""

import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from octoroute import __version__
from octoroute.config import parse

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "octoroute"
VALUES = (CHART / "values.yaml").read_text(encoding="utf-8")
DEPLOYMENT = (CHART / "templates" / "deployment.yaml").read_text(encoding="utf-8")
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def chart_config() -> str:
    """The text under `config: |` in the values."""
    [block] = re.findall(r"^config: \|\n((?:  .*\n|\n)+)", VALUES, re.MULTILINE)
    return textwrap.dedent(block)


def test_the_config_of_the_chart_is_valid_and_can_be_reached() -> None:
    config = parse(chart_config())
    assert (config.server.host, config.server.port) == ("0.0.0.0", 3000)
    assert "containerPort: 3000" in DEPLOYMENT


def test_a_pod_and_a_unit_have_time_to_drain() -> None:
    drain_s = parse(chart_config()).server.drain_seconds
    [grace, wait] = [
        int(re.findall(rf"^{name}: (\d+)$", VALUES, re.MULTILINE)[0])
        for name in ("terminationGracePeriodSeconds", "preStopSeconds")
    ]
    assert grace > drain_s + wait + 5
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "octoroute.service").read_text(), re.MULTILINE)
    assert int(stop) > drain_s + 5


def test_every_value_that_a_template_uses_is_there() -> None:
    used = {
        name
        for template in (CHART / "templates").glob("*.yaml")
        for name in re.findall(r"\.Values\.(\w+)", template.read_text(encoding="utf-8"))
    }
    assert used == set(re.findall(r"^(\w+):", VALUES, re.MULTILINE))


def test_the_chart_is_of_this_version() -> None:
    assert f'appVersion: "{__version__}"' in (CHART / "Chart.yaml").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not here: the templates are not rendered")
def test_the_chart_is_rendered() -> None:
    done = subprocess.run(
        ["helm", "template", "gateway", str(CHART)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert textwrap.indent(chart_config().rstrip("\n"), "    ", lambda line: line != "\n") in done.stdout


def test_what_the_image_copies_is_there_and_sent_to_the_builder() -> None:
    sources = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    named = {source for line in sources for source in line.split()}
    assert all((ROOT / source).exists() for source in named)
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert named == let_through


def test_image_unit_and_page_start_the_same_program() -> None:
    program = "/opt/octoroute/bin/octoroute"
    for path in (DEPLOY / "Dockerfile", DEPLOY / "octoroute.service", ROOT / "docs" / "deployment.md"):
        assert program in path.read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not here: its config is not checked")
def test_nginx_takes_the_config_that_the_page_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```nginx\n(.*?)```", page, re.DOTALL)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{block}}}\n")
    command = ["nginx", "-t", "-q", "-e", str(tmp_path / "log"), "-p", str(tmp_path), "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
