"""Starts a model server, octoroute in front of it and locust's users, and prints what the users saw.

    python -m benchmarks.load [--users 50] [--seconds 30] [--spawn 25] [--out FILE]

Bounded: so many users, so many seconds. Exit code 1 if a request failed.
"""

import argparse
import csv
import json
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import octoroute
from benchmarks.micro.measure import processor
from benchmarks.native.build import model_server
from benchmarks.scale import gateway

USERS: Final = Path(__file__).parent / "locustfile.py"
OUT: Final = Path(__file__).parent.parent / "results" / "locust.json"
# For requests that run when the time is over.
LAST_S: Final = 20
COLUMNS: Final = {
    "requests": "Request Count",
    "failures": "Failure Count",
    "per_s": "Requests/s",
    "p50_ms": "50%",
    "p90_ms": "90%",
    "p99_ms": "99%",
    "max_ms": "100%",
}


def rows(path: Path) -> dict[str, dict[str, float]]:
    """name -> figures, from locust's file of statistics."""
    with path.open(newline="") as file:
        return {
            row["Name"]: {ours: round(float(row[theirs] or 0), 2) for ours, theirs in COLUMNS.items()}
            for row in csv.DictReader(file)
            if int(row["Request Count"])
        }


def show(found: dict[str, dict[str, float]]) -> None:
    print(f"{'':30}" + "".join(f"{column:>11}" for column in COLUMNS))
    for name, figures in found.items():
        print(f"{name:30}" + "".join(f"{value:11,.6g}" for value in figures.values()))


def main() -> int:
    parser = argparse.ArgumentParser(description="a mix of users in front of simulated model servers")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--spawn", type=int, default=25, help="users that start each second")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="octoroute-locust-") as temporary, model_server() as upstream:
        folder = Path(temporary)
        with gateway(folder / "gateway", upstream, 2) as (program, port, _):
            cpu = program.cpu_s()
            command = [
                sys.executable, "-m", "locust", "--headless", "--only-summary", "--locustfile", str(USERS),
                "--host", f"http://127.0.0.1:{port}", "--users", str(arguments.users),
                "--spawn-rate", str(arguments.spawn), "--run-time", f"{arguments.seconds}s",
                "--stop-timeout", str(LAST_S), "--csv", str(folder / "seen"), "--exit-code-on-error", "0",
            ]  # fmt: skip
            ended = subprocess.run(
                command, timeout=arguments.seconds + LAST_S + 60, capture_output=True, text=True, check=False
            )
            cpu_s = program.cpu_s() - cpu
        if ended.returncode:
            print(ended.stdout + ended.stderr, file=sys.stderr)
            return 2
        found = rows(folder / "seen_stats.csv")
        failures = (folder / "seen_failures.csv").read_text()
    show(found)
    failed = int(sum(figures["failures"] for name, figures in found.items() if name != "Aggregated"))
    print(f"\nthe gateway took {cpu_s:.2f} s of processor time; {failed} requests failed")
    if failed:
        print(failures)
    written: dict[str, Any] = {
        "command": f"python -m benchmarks.load {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "kernel": platform.release()},
        "versions": {"octoroute": octoroute.__version__, "python": platform.python_version()},
        "gateway_cpu_s": round(cpu_s, 2),
        "figures": found,
    }
    arguments.out.write_text(json.dumps(written, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
