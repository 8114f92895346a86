"""What is measured of each gateway, and how: the load, the processor time that the gateway took, the unit.

Processor time of the gateway's process tree, divided by what was done, is the figure that holds on a machine
with other work; throughput does not. Each answer is checked by `load`; a scenario with broken ones gives no
figure.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.native.build import result, start_load
from benchmarks.processes import Program


@dataclass(frozen=True, slots=True)
class Under:
    """A gateway under measurement; `program` is None where the load goes straight to the model server."""

    port: int
    model: str
    header: str
    program: Program | None
    load_cpu: int | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """`unit` is what the figure is per. `load` is for native/load.c; `size` scales the seconds or streams."""

    about: str
    unit: str
    load: dict[str, Any]
    key: str = field(default="done")


def _closed(connections: int, **more: Any) -> dict[str, Any]:
    return {"connections": connections, "seconds": 5.0, **more}


def _paced(streams: int, chunks: int, gap_ms: int) -> dict[str, Any]:
    return {
        "connections": streams, "total": streams, "stream": True, "chunks": chunks, "gap_us": gap_ms * 1000,
        "ramp_ms": min(chunks * gap_ms // 2, 5000),
    }  # fmt: skip


SCENARIOS: Final = {
    "small": Scenario("small JSON request, 64 connections", "request", _closed(64)),
    "stream": Scenario("stream of 32 quick chunks, 64 connections", "stream", _closed(64, stream=True)),
    "prompt": Scenario("256 KB prompt, 16 connections", "request", _closed(16, prompt_bytes=262144)),
    "first": Scenario("50 streams, a chunk each 50 ms", "chunk", _paced(50, 100, 50), "chunks"),
    "paced": Scenario("200 streams, a chunk each 10 ms", "chunk", _paced(200, 500, 10), "chunks"),
    "idle": Scenario("2,000 streams, a chunk each second", "chunk", _paced(2000, 15, 1000), "chunks"),
}


def shortened(scenario: Scenario, share: float) -> dict[str, Any]:
    """The load of a scenario for a quicker look: fewer seconds, or fewer chunks and streams."""
    load = dict(scenario.load)
    if "seconds" in load:
        load["seconds"] *= share
    else:
        load["chunks"] = max(2, int(load["chunks"] * share))
        load["ramp_ms"] = int(load["ramp_ms"] * share)
        if load["connections"] > 200:
            load["connections"] = load["total"] = max(200, int(load["connections"] * share))
    return load


def measure(name: str, under: Under, share: float = 1.0) -> dict[str, Any]:
    """One figure, raw: processor time in microseconds per unit, memory, what the clients saw."""
    scenario = SCENARIOS[name]
    options = shortened(scenario, share) | {"model": under.model}
    if under.header:
        options["header"] = under.header
    program = under.program
    idle_kib = program.rss_kib() if program else 0
    cpu_before = program.cpu_s() if program else 0.0
    load = start_load(under.port, under.load_cpu, **options)
    at_most_kib = _watch_memory(program, load.poll) if name == "idle" and program else idle_kib
    seen = result(load)
    cpu_s = program.cpu_s() - cpu_before if program else 0.0
    units = seen[scenario.key]
    found: dict[str, Any] = {
        "units": units,
        "cpu_us": round(cpu_s / units * 1e6, 3) if units and not seen["failed"] else None,
        "seen": seen,
    }
    if name == "idle" and seen["open_most"]:
        found["kib_per_stream"] = round((at_most_kib - idle_kib) / seen["open_most"], 2)
    return found


def _watch_memory(program: Program, over: Callable[[], int | None]) -> int:
    """The most that it takes until the load is over."""
    most = 0
    while over() is None:
        most = max(most, program.rss_kib())
        time.sleep(0.5)
    return most
