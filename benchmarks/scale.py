"""How far a worker goes: many endpoints, small requests, many idle clients, slow streams: `make bench-scale`.

    python -m benchmarks.scale [--endpoints 1000] [--clients 10000] [--streams 5000] [--out FILE]

Processor time and memory of the gateway's process tree; seconds of the clock for start and reload only. That
a request costs the same at 3 and at 1,000 endpoints is shown by `make bench-check`, in instructions.
"""

import argparse
import http.client
import json
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import octoroute
from benchmarks.micro.measure import processor
from benchmarks.native.build import model_server, result, start_load
from benchmarks.processes import Program, free_port

OUT: Final = Path(__file__).parent / "results" / "scale.json"
START_S: Final = 60.0
HOLD_S: Final = 20
SETTLE_S: Final = 2.0
CHUNKS: Final = 20
CLOSED_S: Final = 5.0
RAMP_MS: Final = 10_000


def config(port: int, upstream: int, endpoints: int, weight: float = 1.0, workers: int = 1) -> str:
    """Text of a config with so many endpoints in tier fast, all of them one server."""
    text = f'[server]\nhost = "127.0.0.1"\nport = {port}\nworkers = {workers}\n[routing]\nstrategy = "rule"\n'
    names = [("fast", f"m-{number}") for number in range(endpoints)]
    for tier, name in [*names, ("balanced", "m-balanced"), ("deep", "m-deep")]:
        text += (
            f'[[models.{tier}]]\nname = "{name}"\nbase_url = "http://127.0.0.1:{upstream}/v1"\n'
            f"max_tokens = 4096\nweight = {weight}\n"
        )
    return text


def asked(port: int, method: str, path: str) -> int:
    """The status of an answer; 0 where there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    with suppress(OSError, http.client.HTTPException):
        connection.request(method, path)
        return connection.getresponse().status
    return 0


@contextmanager
def gateway(
    folder: Path, upstream: int, endpoints: int, workers: int = 1
) -> Iterator[tuple[Program, int, float]]:
    """A gateway that serves: its process, its port, the seconds that this took."""
    folder.mkdir()
    port = free_port()
    (folder / "config.toml").write_text(config(port, upstream, endpoints, workers=workers))
    began = time.monotonic()
    command = [sys.executable, "-m", "octoroute", "--config", str(folder / "config.toml")]
    program = Program(command, folder / "log")
    try:
        while asked(port, "GET", "/health") != 200:
            if not program.alive() or time.monotonic() - began > START_S:
                raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.005)
        yield program, port, time.monotonic() - began
    finally:
        program.stop()


def many_endpoints(folder: Path, upstream: int, count: int) -> dict[str, Any]:
    with gateway(folder, upstream, count) as (program, port, start_s):
        time.sleep(SETTLE_S)
        before = program.cpu_s()
        time.sleep(5.0)
        idle_cpu = (program.cpu_s() - before) / 5.0
        memory = program.rss_kib()
        # Other weights, so that every table is built anew.
        (folder / "config.toml").write_text(config(port, upstream, count, weight=2.0))
        began = time.monotonic()
        status = asked(port, "POST", "/admin/reload")
        reload_s = time.monotonic() - began
        if status != 200:
            raise RuntimeError(f"the reload was answered with {status}")
        return {
            "endpoints": count,
            "start_s": round(start_s, 3),
            "reload_s": round(reload_s, 3),
            "memory_mib": round(memory / 1024, 1),
            "cpu_when_idle_percent": round(idle_cpu * 100, 2),
        }


def under_load(
    folder: Path, upstream: int, unit: Callable[[dict[str, Any]], int], **options: Any
) -> dict[str, Any]:
    """What the load costs: memory at its most, processor time until its end, both less those before."""
    with gateway(folder, upstream, 1) as (program, port, _):
        time.sleep(SETTLE_S)
        memory, cpu = program.rss_kib(), program.cpu_s()
        load = start_load(port, model="fast", ramp_ms=RAMP_MS, **options)
        most = memory
        while load.poll() is None:
            most = max(most, program.rss_kib())
            time.sleep(0.5)
        seen = result(load)
        cpu_s = program.cpu_s() - cpu
        return {
            "failed": seen["failed"],
            "open_at_once": seen["open_most"],
            "open_at_end": seen["open_at_end"],
            "kib_each": round((most - memory) / max(1, seen["open_most"]), 2),
            "cpu_percent": round(cpu_s / seen["seconds"] * 100, 1),
            "cpu_us_each": round(cpu_s / max(1, unit(seen)) * 1e6, 1),
            "transit_us": seen["transit_us"],
        }


def many_requests(folder: Path, upstream: int, workers: int) -> dict[str, Any]:
    """Small requests as fast as they are answered, the load generator and the model server on the same cores.
    Their share is taken out in `per_second_alone`: what the workers would do with a core each to themselves.
    """
    with gateway(folder, upstream, 1, workers) as (program, port, _):
        time.sleep(SETTLE_S)
        cpu = program.cpu_s()
        seen = result(start_load(port, model="fast", connections=64, seconds=CLOSED_S))
        cpu_s = program.cpu_s() - cpu
        return {
            "failed": seen["failed"],
            "per_second": round(seen["done"] / seen["seconds"]),
            "gateway_cores": round(cpu_s / seen["seconds"], 2),
            "per_second_alone": round(workers * seen["done"] / cpu_s),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description="how far one worker goes")
    parser.add_argument("--endpoints", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=10_000, help="idle connections")
    parser.add_argument("--streams", type=int, default=5000, help="with a chunk each second")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = max(arguments.clients, 2 * arguments.streams) + 100
    if files < needed:
        print(f"needs {needed} open files, and the hard limit is {files} (ulimit -Hn)", file=sys.stderr)
        return 2
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="octoroute-scale-") as temporary, model_server() as upstream:
        folder = Path(temporary)
        for count in (3, arguments.endpoints):
            found[f"{count} endpoints"] = many_endpoints(folder / f"endpoints-{count}", upstream, count)
        for workers in (1, 2):
            name = f"small requests, {workers} worker{'s' * (workers > 1)}"
            found[name] = many_requests(folder / f"workers-{workers}", upstream, workers)
        found[f"{arguments.clients} idle clients"] = under_load(
            folder / "clients",
            upstream,
            lambda seen: int(seen["opened"]),
            connections=arguments.clients,
            hold_s=RAMP_MS // 1000 + HOLD_S,
        )
        found[f"{arguments.streams} slow streams"] = under_load(
            folder / "streams",
            upstream,
            lambda seen: int(seen["chunks"]),
            connections=arguments.streams,
            total=arguments.streams,
            stream=True,
            chunks=CHUNKS,
            gap_us=1_000_000,
        )
    for name, figures in found.items():
        print(name)
        for figure, value in figures.items():
            print(f"  {figure:24} {value}")
    written = {
        "command": f"python -m benchmarks.scale {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "kernel": platform.release()},
        "versions": {"octoroute": octoroute.__version__, "python": platform.python_version()},
        "figures": found,
    }
    arguments.out.write_text(json.dumps(written, indent=1) + "\n")
    return 1 if any(figures.get("failed") for figures in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
