"""deploy/octoroute.service, as systemd reads it."""

import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

from octoroute.config.schema import Server
from octoroute.supervisor.workers import KILL_SECONDS

UNIT = Path(__file__).parents[1] / "deploy" / "octoroute.service"
PROGRAM = "/opt/octoroute/bin/octoroute"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(PROGRAM, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_gives_a_drain_the_time_that_it_takes() -> None:
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    service = unit["Service"]
    drain_s = Server(host="::1", port=1).drain_seconds
    assert float(service["TimeoutStopSec"]) > drain_s + KILL_SECONDS
    assert service["Type"] == "notify"
    for name in ("ExecStart", "ExecReload"):
        assert service[name].startswith(PROGRAM)
