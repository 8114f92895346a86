"""Compares octoroute with other gateways, interleaved in one run: `make bench-compare`.

    python -m benchmarks.compare [GATEWAY ...] [--rounds 3] [--share 1.0] [--scenarios small,stream]
        [--command 'name=program --port {port} --upstream http://127.0.0.1:{upstream}']
        [--out FILE] [--chart FILE]

Without names: all that are installed. The gateway has one core, the model server and the clients the other.
In each round every gateway is measured in every scenario, one after the other, so that what disturbs the
machine disturbs all of them.
"""

import argparse
import http.client
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks.compare.chart import chart
from benchmarks.compare.gateways import TARGETS, FromCommand, Gateway, Place, Target
from benchmarks.compare.scenarios import SCENARIOS, Under, measure
from benchmarks.micro.measure import processor
from benchmarks.native.build import model_server
from benchmarks.processes import Program, free_port

RESULTS: Final = Path(__file__).parent.parent / "results"
START_S: Final = 90.0
WARM_UP: Final = 0.1
BASELINE: Final = "nginx"
OURS: Final = "octoroute"


@contextmanager
def running(target: Target, upstream: int, cpus: tuple[int | None, int | None]) -> Iterator[Under]:
    """A gateway that has answered once, or the model server itself. Raises RuntimeError with the end of the
    gateway's log where it does not answer.
    """
    gateway_cpu, load_cpu = cpus
    if not isinstance(target, Gateway):
        yield Under(upstream, target.model, target.header, None, load_cpu)
        return
    gateway = target
    with tempfile.TemporaryDirectory(prefix="octoroute-compare-") as folder:
        place = Place(free_port(), upstream, Path(folder))
        log = Path(folder) / "log"
        program = Program(gateway.command(place), log, cpu=gateway_cpu, env=gateway.env)
        try:
            _wait_until_it_answers(gateway, place, program)
            yield Under(place.port, gateway.model, gateway.header, program, load_cpu)
        finally:
            program.stop()


def _wait_until_it_answers(gateway: Gateway, place: Place, program: Program) -> None:
    body = json.dumps({"model": gateway.model, "messages": [{"role": "user", "content": "ready?"}]})
    headers = {"Content-Type": "application/json"}
    if gateway.header:
        name, _, value = gateway.header.partition(":")
        headers[name] = value.strip()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and program.alive():
        with suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=10)
            connection.request("POST", "/v1/chat/completions", body, headers)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{gateway.name} does not answer:\n{program.log.read_text(errors='replace')[-2000:]}")


def compare(targets: list[Target], names: list[str], rounds: int, share: float) -> dict[str, Any]:
    """scenario -> gateway -> one raw figure per round."""
    cpus = sorted(os.sched_getaffinity(0))
    cores = (cpus[-1], cpus[0]) if len(cpus) > 1 else (None, None)
    raw: dict[str, dict[str, list[dict[str, Any]]]] = {name: {} for name in names}
    for number in range(rounds):
        for target in targets:
            # A fresh process each round, and for the memory of idle streams: what one has grown to does not
            # count for the next.
            busy = [name for name in names if name != "idle"]
            for together in (busy, [name for name in names if name == "idle"]):
                try:
                    for name, found in _measured(target, together, share, cores):
                        raw[name].setdefault(target.name, []).append(found)
                        print(f"round {number + 1}  {target.name:16}{name:8}{_shown(found)}", file=sys.stderr)
                except RuntimeError as error:
                    print(error, file=sys.stderr)
    return raw


def _measured(
    target: Target, names: list[str], share: float, cores: tuple[int | None, int | None]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each scenario's figure, of one process. Raises RuntimeError where it does not start."""
    if not names:
        return
    with model_server(cores[1]) as upstream, running(target, upstream, cores) as under:
        measure("small", under, WARM_UP)
        measure("stream", under, WARM_UP)
        for name in names:
            yield name, measure(name, under, share)


def _shown(found: dict[str, Any]) -> str:
    seen = found["seen"]
    text = f"{found['cpu_us'] or 0:10.2f} us  {seen['done']:7} whole {seen['failed']:5} broken"
    return text + (f"  {found['kib_per_stream']} KiB/stream" if "kib_per_stream" in found else "")


def figures(raw: dict[str, Any]) -> dict[str, dict[str, float]]:
    """figure -> gateway -> median of the rounds in which every answer was whole."""
    found: dict[str, dict[str, float]] = {}

    def note(figure: str, gateway: str, values: list[float]) -> None:
        if values:
            found.setdefault(figure, {})[gateway] = round(statistics.median(values), 3)

    for name, gateways in raw.items():
        scenario = SCENARIOS[name]
        for gateway, rounds in gateways.items():
            good = [one for one in rounds if one["cpu_us"] is not None]
            if gateway != "direct":
                note(
                    f"{scenario.about}: CPU us per {scenario.unit}", gateway, [one["cpu_us"] for one in good]
                )
            if name == "idle" and gateway != "direct":
                note(f"{scenario.about}: KiB per stream", gateway, [one["kib_per_stream"] for one in good])
            if name == "first":
                for point in ("p50", "p99"):
                    added = [one["seen"]["first_us"][point] / 1000 for one in good]
                    note(f"time to first token {point}, 50 streams, ms", gateway, added)
    for figure, gateways in found.items():
        if figure.startswith("time to first token"):
            direct = gateways.pop("direct", 0.0)
            for gateway in gateways:
                gateways[gateway] = round(max(0.001, gateways[gateway] - direct), 3)
    return {_added(figure): gateways for figure, gateways in found.items() if gateways}


def _added(figure: str) -> str:
    return figure.replace("time to first token", "added time to first token")


def print_table(found: dict[str, dict[str, float]]) -> None:
    for figure, gateways in found.items():
        base = gateways.get(BASELINE)
        print(f"\n{figure}")
        for gateway, value in sorted(gateways.items(), key=lambda item: item[1]):
            print(f"  {gateway:20}{value:12.3f}{f'{value / base:8.2f} x {BASELINE}' if base else ''}")


def chosen(arguments: argparse.Namespace) -> list[Target]:
    targets: list[Target] = []
    for name in arguments.gateways or TARGETS:
        if name not in TARGETS:
            raise SystemExit(f"there is no gateway {name!r}; known: {', '.join(TARGETS)}")
        if TARGETS[name].installed():
            targets.append(TARGETS[name])
        elif arguments.gateways:
            raise SystemExit(f"{name} is not installed")
    return targets + [FromCommand(definition) for definition in arguments.command]


def main() -> int:
    parser = argparse.ArgumentParser(description="octoroute beside other gateways, in one run")
    parser.add_argument("gateways", nargs="*", metavar="GATEWAY", help=", ".join(TARGETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the full length, for a quick look")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="default: all")
    parser.add_argument("--command", action="append", default=[], metavar="NAME=TEMPLATE")
    parser.add_argument("--out", type=Path, default=RESULTS / "compare.json")
    parser.add_argument("--chart", type=Path, default=RESULTS / "compare.svg")
    arguments = parser.parse_args()
    names = arguments.scenarios.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise SystemExit(f"there is no scenario {unknown[0]!r}; known: {', '.join(SCENARIOS)}")
    targets = chosen(arguments)
    raw = compare(targets, names, arguments.rounds, arguments.share)
    found = figures(raw)
    print_table(found)
    written = {
        "command": f"python -m benchmarks.compare {' '.join(sys.argv[1:])}".strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {"processor": processor(), "cores": os.cpu_count(), "kernel": platform.release()},
        "versions": {
            "python": platform.python_version(),
            **{one.name: version for one in targets if (version := one.version())},
        },
        "share": arguments.share,
        "rounds": arguments.rounds,
        "figures": found,
        "raw": raw,
    }
    arguments.out.write_text(json.dumps(written, indent=1) + "\n")
    arguments.chart.write_text(chart(list(found.items()), ours=OURS, baseline=BASELINE))
    print(f"\n{arguments.out} and {arguments.chart} are written")
    broken = sum(one["seen"]["failed"] for rounds in raw.values() for ones in rounds.values() for one in ones)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
