"""All micro benchmarks, one after another: `make bench-micro`.

Those that time with measure.py add their raw figures to results/micro.json; the others print.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent.parent / "results"


def main() -> int:
    status = 0
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        command = [sys.executable, "-m", f"benchmarks.micro.{path.stem}"]
        if "import run" in path.read_text():
            command += ["--out", str(RESULTS / "micro.json")]
        print(f"\n{path.stem}", flush=True)
        status |= subprocess.run(command, check=False).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
