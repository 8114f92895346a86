"""A mixed load with random faults for a given time, and what is left of it: `make soak`.

    python -m benchmarks.soak [--seconds N] [--clients N] [--workers N] [--rescue] [--seed N] [--out FILE]

With several workers, one is killed each minute. Fails where a client saw an error that a perfect gateway
would have hidden, or anything is left afterwards: a connection, a lease, a request in flight. Time in which
the machine or this process stood still is told of, and does not count.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import octoroute
from benchmarks.micro.measure import processor
from benchmarks.soak.clock import Clock
from benchmarks.soak.load import Load, Tally
from benchmarks.soak.watch import Metrics, Processes, metrics, slope
from octoroute.commands.child_gateway import HOST, free_port, running
from octoroute.demo import SimulatedServer
from octoroute.demo.client import Target

MODEL: Final = "soak"
MAX_SECONDS: Final = 86_400
KINDS: Final = ("vllm", "vllm", "vllm", "llama_cpp", "llama_cpp")
SAMPLE_S: Final = 1.0
BASE_S: Final = 3.0
# Idle connections to servers live 4 s, and probes come and go.
QUIET_S: Final = 20.0
SHOWN: Final = "errors that a perfect gateway would have hidden"
NOT_JUDGED: Final = "not judged: errors and silence around that"
LEFT_OPEN: Final = "connections leaked"
LEASES: Final = "leases leaked"
IN_WORK: Final = "requests still in the servers"
IN_FLIGHT: Final = "octoroute_in_flight"
CONFIG: Final = """\
[server]
host = "{host}"
port = {port}
workers = {workers}
request_timeout_seconds = 3

[timeouts]
stream_idle_seconds = 3.0

[retry]
budget = 1.0

[recovery]
{recovery}
[health]
interval_seconds = 1.0

[routing]
strategy = "rule"

[observability]
log_level = "warn"
"""
RESCUE: Final = """\
stall_seconds = 1.0
hedge = "p95"
"""
ENDPOINT: Final = """
[[models.{tier}]]
name = "{name}"
base_url = "{base_url}"
kind = "{kind}"
max_tokens = 4096
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="how long (default: 600, at most a day)")
    parser.add_argument("--clients", type=int, default=24, help="at the same time (default: 24)")
    parser.add_argument("--workers", type=int, default=1, help="of the gateway (default: 1)")
    parser.add_argument("--seed", type=int, default=None, help="of the mix (default: another each time)")
    parser.add_argument("--rescue", action="store_true", help="with stall rescue and hedging, which are off")
    parser.add_argument("--out", type=Path, help="a JSON file to write the figures to as well")
    arguments = parser.parse_args()
    if not 0 < arguments.seconds <= MAX_SECONDS:
        parser.error(f"--seconds must be 1 to {MAX_SECONDS}")
    if arguments.seed is None:
        arguments.seed = random.randrange(1 << 32)
    clock = Clock()
    figures = asyncio.run(_soak(arguments, clock))
    if arguments.out is not None:
        _write(arguments.out, arguments, figures, clock)
    return 1 if _failed(figures) else 0


async def _soak(arguments: argparse.Namespace, clock: Clock) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        watching = asyncio.create_task(clock.watch())
        stack.callback(watching.cancel)
        servers = []
        for kind in KINDS:
            server = SimulatedServer(
                kind, MODEL, tokens_per_second=400, prefill_seconds=0.005, slots=256, wide=True
            )
            await server.start()
            stack.push_async_callback(server.stop)
            servers.append(server)
        port = free_port()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="octoroute-soak-")))
        config = _config(servers, port, arguments.workers, rescue=arguments.rescue)
        child = running(config, port, folder)
        process = await asyncio.to_thread(child.__enter__)
        stack.push_async_callback(asyncio.to_thread, child.__exit__, None, None, None)
        processes = Processes(process.pid)
        target = Target(f"http://{HOST}:{port}", MODEL)
        load = Load(servers, target, arguments.seed, clock, processes.kill_worker)
        figures = await _watched(load, servers, processes, clock, arguments.seconds, arguments.clients)
        _print(figures, load.tally, clock)
        print(f"seed {arguments.seed}")
        if _failed(figures):
            lines = (folder / "log").read_text(errors="replace").splitlines()
            print("the gateway's log, its end:\n" + "\n".join(lines[-20:]), file=sys.stderr)
        return figures


async def _watched(
    load: Load,
    servers: list[SimulatedServer],
    processes: Processes,
    clock: Clock,
    seconds: int,
    clients: int,
) -> dict[str, float]:
    base = await _extreme(processes, clock, BASE_S, most=True)
    started = clock.now()
    samples: list[tuple[float, float]] = []
    running_load = asyncio.create_task(load.run(seconds, clients))
    while not running_load.done():
        samples.append((clock.now() - started, processes.resident_kib()))
        _show_progress(samples[-1], load)
        await asyncio.wait({running_load}, timeout=SAMPLE_S)
    await running_load
    lasted = clock.now() - started
    left_open = max(0, await _extreme(processes, clock, QUIET_S, most=False, goal=base) - base)
    told, in_work = await _rest(load.target, servers, clock)
    # The first third fills caches, pools and the allocator.
    growth = slope([sample for sample in samples if sample[0] > lasted / 3]) * 60
    tally = load.tally
    recoveries, hedges = "octoroute_stream_recoveries_total", "octoroute_hedges_total"
    return {
        "seconds": round(lasted),
        "requests": tally.requests,
        "streams": tally.streams,
        "clients that left": tally.left,
        "requests that met a fault": tally.met.total(),
        "kinds of faults": len(tally.met),
        "times a server was down": tally.down.total(),
        "workers killed": tally.workers_killed,
        "answers that were cut with their worker": tally.cut_with_worker,
        "streams beyond what is kept, when a server died": tally.beyond_buffer,
        "times it stood still itself": len(clock.standstills),
        "seconds it stood still, not counted above": round(
            sum(still.seconds for still in clock.standstills), 1
        ),
        NOT_JUDGED: tally.not_judged,
        "retries": told.total("octoroute_retries_total"),
        "hedges": sum(told.total(hedges, f'outcome="{came_to}"') for came_to in ("won", "lost", "took_over")),
        "streams resumed": told.total(recoveries, 'outcome="resumed"'),
        "streams not resumed": told.total(recoveries) - told.total(recoveries, 'outcome="resumed"'),
        SHOWN: sum(tally.shown.values()),
        "memory at the end, MiB": round(samples[-1][1] / 1024, 1),
        "memory slope, KiB a minute": round(growth),
        LEFT_OPEN: left_open,
        LEASES: told.total(IN_FLIGHT),
        IN_WORK: in_work,
    }


def _print(figures: dict[str, float], tally: Tally, clock: Clock) -> None:
    print()
    for name, value in figures.items():
        print(f"{name:<48} {value}")
    for what, times in tally.shown.most_common():
        print(f"  {times:>5} x {what}")
    for problem in tally.problems:
        print(f"  {problem}")
    seconds = sum(still.seconds for still in clock.standstills)
    print(f"stood still: {len(clock.standstills)} times, {seconds:.1f} seconds")
    for still in clock.standstills:
        print(f"  {still.seconds:.1f} s, after {still.at_s:.1f} s")


def _failed(figures: dict[str, float]) -> bool:
    return any(figures[name] for name in (SHOWN, LEFT_OPEN, LEASES, IN_WORK))


def _write(path: Path, arguments: argparse.Namespace, figures: dict[str, float], clock: Clock) -> None:
    written = {
        "command": f"python -m benchmarks.soak {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cpus": os.cpu_count(), "kernel": platform.release()},
        "versions": {"octoroute": octoroute.__version__, "python": platform.python_version()},
        "seed": arguments.seed,
        "figures": figures,
        "stood still": [
            {"at_s": round(still.at_s, 1), "seconds": round(still.seconds, 1)} for still in clock.standstills
        ],
    }
    path.write_text(json.dumps(written, indent=1) + "\n")


async def _rest(target: Target, servers: list[SimulatedServer], clock: Clock) -> tuple[Metrics, int]:
    """The gateway's metrics and how many requests the servers still work on, when all is at rest or after
    QUIET_S.
    """
    until = clock.now() + QUIET_S
    while True:
        told = await metrics(target)
        in_work = sum(server.active for server in servers)
        if not (told.total(IN_FLIGHT) or in_work) or clock.now() > until:
            return told, in_work
        await asyncio.sleep(0.2)


def _show_progress(sample: tuple[float, float], load: Load) -> None:
    if sys.stdout.isatty():
        tally = load.tally
        shown = sum(tally.shown.values())
        print(
            f"\r{sample[0]:6.0f} s  {tally.requests} requests  {shown} errors  {sample[1] / 1024:.1f} MiB ",
            end="",
            flush=True,
        )


async def _extreme(processes: Processes, clock: Clock, within_s: float, *, most: bool, goal: int = -1) -> int:
    """The most or the fewest sockets seen in some seconds; at once where there are no more than `goal`."""
    until = clock.now() + within_s
    seen = [processes.sockets()]
    while clock.now() < until and seen[-1] > goal:
        await asyncio.sleep(0.1)
        seen.append(processes.sockets())
    return max(seen) if most else min(seen)


def _config(servers: list[SimulatedServer], port: int, workers: int, *, rescue: bool) -> str:
    config = CONFIG.format(host=HOST, port=port, workers=workers, recovery=RESCUE if rescue else "")
    for server in servers:
        config += ENDPOINT.format(tier="fast", name=MODEL, base_url=server.base_url, kind=server.kind)
    for tier in ("balanced", "deep"):
        base_url = f"http://{HOST}:9/v1"
        config += ENDPOINT.format(tier=tier, name=f"nobody-{tier}", base_url=base_url, kind="auto")
    return config


if __name__ == "__main__":
    sys.exit(main())
