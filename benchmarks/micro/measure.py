"""How the micro benchmarks time a call and write down what they found. Standard library only."""

import argparse
import json
import platform
import statistics
import sys
import timeit
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import octoroute

ROUNDS = 7


def nanoseconds(call: Callable[[], object], calls: int) -> list[float]:
    """Nanoseconds per call, one figure per round, with the loop's own cost taken off."""
    timer = timeit.Timer("call()", globals={"call": call})
    empty = timeit.Timer("pass")
    timer.timeit(calls // 10)  # warm caches and the interpreter's inline caches
    return [(timer.timeit(calls) - empty.timeit(calls)) / calls * 1e9 for _ in range(ROUNDS)]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def run(what: str, cases: dict[str, tuple[Callable[[], object], int]]) -> None:
    """Time `cases` (name -> call, calls a round), print a table, and add the raw figures to `--out`."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument(
        "--out", type=Path, help="write the raw figures there, beside those of other benchmarks"
    )
    out = parser.parse_args().out
    figures: dict[str, Any] = {}
    print(f"{'ns per call':44} {'median':>10} {'best':>10}")
    for name, (call, calls) in cases.items():
        rounds = nanoseconds(call, calls)
        figures[name] = {"calls": calls, "ns": [round(value, 2) for value in rounds]}
        print(f"{name:44} {statistics.median(rounds):10.1f} {min(rounds):10.1f}")
    if out is None:
        return
    written = json.loads(out.read_text()) if out.exists() else {}
    script = Path(sys.argv[0]).stem
    written[script] = {
        "command": f"python -m benchmarks.micro.{script} --out {out}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "kernel": platform.release(), "load_average": _load()},
        "versions": {"octoroute": octoroute.__version__, "python": sys.version.split()[0]},
        "figures": figures,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(written, indent=1) + "\n")


def _load() -> float:
    return float(Path("/proc/loadavg").read_text().split()[0])
