"""The pages that are made from the code are up to date."""

import os
import re
import subprocess
import sys
from pathlib import Path

from octoroute.config import parse

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_about_the_config_is_what_the_schema_says() -> None:
    done = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_on_the_page_is_a_valid_config() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert parse(example, environ={"DEEP_SERVER_KEY": "sk-1"}).models.deep[0].name == "gpt-oss-120b"
