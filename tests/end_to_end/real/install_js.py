"""Gets OpenAI's SDK for JavaScript, once, into the cache folder that install.py uses.

Needs node and npm; where one is missing it says so and does nothing, and the tests are skipped.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.real.install import cache_folder

SDK = "openai@6.49.0"
TIMEOUT_S = 300
MISSING = "node and npm are not here (Debian: apt-get install nodejs npm)"


def sdk_folder() -> Path | None:
    """The folder with the SDK in its node_modules, filled first if need be; None without node and npm."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return None
    final = cache_folder() / SDK.replace("@", "-js-")
    if not final.exists():
        # Under its final name only when it is complete.
        unfinished = final.with_name(f"{final.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        command = [
            npm,
            "install",
            "--prefix",
            str(unfinished),
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            SDK,
        ]
        subprocess.run(command, check=True, stdout=sys.stderr, timeout=TIMEOUT_S)
        unfinished.rename(final)
    return final


if __name__ == "__main__":
    print(sdk_folder() or f"OpenAI's SDK for JavaScript is not tried: {MISSING}")
