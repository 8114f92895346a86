"""Instructions per request and per chunk, compared with the committed ones: `make bench-check`.

    python -m benchmarks.instructions [--save] [--keep FOLDER]

Fails where a figure is beyond the limit above its baseline. `--save` makes what is measured the baseline.
`--keep` leaves callgrind's files, one for each figure in order, for callgrind_annotate.
"""

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import octoroute
from benchmarks.instructions.counting import Counted, counted_gateway
from benchmarks.instructions.lockstep import (
    ANSWER,
    END_OF_STREAM,
    STREAM_HEAD,
    Client,
    Model,
    client,
    event,
    plain,
)

BASELINE: Final = Path(__file__).parent.parent / "results" / "instructions.json"
LIMIT: Final = 1.10
WARM_UP: Final = 100
REQUESTS: Final = 300
STREAMS: Final = 100
PROMPTS: Final = 30
CHUNKS: Final = 32
LONG_CHUNKS: Final = 512
LEARN_S: Final = 0.5
IDLE_S: Final = 3.0
PROMPT_BYTES: Final = 256 * 1024
MANY_ENDPOINTS: Final = 1000


def post(*, stream: bool, prompt: str = "What is six times seven?") -> bytes:
    # The model server sends the usage, which is left out for clients that do not ask for it.
    options = {"stream_options": {"include_usage": True}} if stream else {}
    body = json.dumps(
        {
            "model": "fast",
            "messages": [
                {"role": "system", "content": "You answer in one sentence."},
                {"role": "user", "content": prompt},
            ],
            "stream": stream,
            "max_tokens": 64,
            **options,
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway:3000\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


SMALL: Final = post(stream=False)
STREAM: Final = post(stream=True)
# Words, so that the text holds what JSON text holds and not one letter.
LARGE: Final = post(
    stream=False, prompt=("The quick brown fox jumps over the lazy dog. " * 6000)[:PROMPT_BYTES]
)
QUICK: Final = [STREAM_HEAD + b"".join(event(number) for number in range(CHUNKS)) + END_OF_STREAM]
PACED: Final = [STREAM_HEAD + event(0), *(event(number) for number in range(1, LONG_CHUNKS)), END_OF_STREAM]


class Scenarios:
    """Each returns instructions per unit."""

    def __init__(self, gateway: Counted, model: Model, user: Client) -> None:
        self.gateway = gateway
        self.model = model
        self.user = user
        self.idle_per_s = 0.0

    def warm_up(self) -> None:
        """Caches fill, and the gateway learns that the server keeps connections after streams."""
        for _ in range(WARM_UP):
            self.user.exchange(SMALL, self.model, [plain(ANSWER)])
        self.user.exchange(STREAM, self.model, QUICK)
        time.sleep(LEARN_S)
        for _ in range(WARM_UP // 5):
            self.user.exchange(STREAM, self.model, QUICK)
            self.user.exchange(LARGE, self.model, [plain(ANSWER)])
        self.idle_per_s = self.gateway.count(lambda: time.sleep(IDLE_S)) / IDLE_S

    def small_request(self) -> float:
        return self._each(REQUESTS, SMALL, [plain(ANSWER)])

    def stream_of_quick_chunks(self) -> float:
        return self._each(STREAMS, STREAM, QUICK)

    def paced_chunk(self) -> float:
        """What each chunk adds: a long stream, less one of two chunks, divided by the chunks between."""
        long = self._each(2, STREAM, PACED)
        short = self._each(STREAMS, STREAM, [PACED[0], PACED[-1]])
        return (long - short) / (len(PACED) - 2)

    def large_prompt(self) -> float:
        return self._each(PROMPTS, LARGE, [plain(ANSWER)])

    def _each(self, times: int, request: bytes, pieces: list[bytes]) -> float:
        """Less what the gateway does anyway in that time: it differs with the speed of the machine."""
        took_s = 0.0

        def work() -> None:
            nonlocal took_s
            began = time.monotonic()
            for _ in range(times):
                self.user.exchange(request, self.model, pieces)
            took_s = time.monotonic() - began

        return (self.gateway.count(work) - took_s * self.idle_per_s) / times


def measure(kept: Path | None) -> dict[str, int]:
    """All figures, instructions per unit."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="octoroute-instructions-") as temporary:
        folder = kept or Path(temporary)
        model = Model()
        with counted_gateway(folder / "few", model.port, 3) as gateway, client(gateway.port) as user:
            scenarios = Scenarios(gateway, model, user)
            scenarios.warm_up()
            figures["small request"] = scenarios.small_request()
            figures["stream of 32 quick chunks"] = scenarios.stream_of_quick_chunks()
            figures["paced chunk"] = scenarios.paced_chunk()
            figures["256 KB prompt"] = scenarios.large_prompt()
        model = Model()
        many = counted_gateway(folder / "many", model.port, MANY_ENDPOINTS)
        with many as gateway, client(gateway.port) as user:
            model.wait_for_probes(MANY_ENDPOINTS + 2)
            scenarios = Scenarios(gateway, model, user)
            scenarios.warm_up()
            figures["idle second, 1,000 endpoints"] = scenarios.idle_per_s
            figures["small request, 1,000 endpoints"] = scenarios.small_request()
    return {name: round(figure) for name, figure in figures.items()}


def environment() -> dict[str, str]:
    """What the figures depend on beside the code."""
    packages = {name: version(name) for name in ("aiohttp", "uvloop", "orjson", "Cython")}
    return {"machine": platform.machine(), "python": platform.python_version(), **packages}


def written(figures: dict[str, int]) -> dict[str, Any]:
    return {
        "command": "python -m benchmarks.instructions --save",
        "date": datetime.now(UTC).date().isoformat(),
        "octoroute": octoroute.__version__,
        "environment": environment(),
        "instructions": figures,
    }


def compare(figures: dict[str, int], baseline: dict[str, Any]) -> bool:
    """Prints the table; whether all is within the limit."""
    before = baseline.get("instructions", {})
    print(f"{'instructions per':34}{'now':>12}{'baseline':>12}{'ratio':>8}")
    good = True
    for name, now in figures.items():
        known = before.get(name)
        ratio = now / known if known else None
        over = ratio is not None and ratio > LIMIT
        good = good and not over
        shown = f"{known:12,}{ratio:8.3f}" if known and ratio else f"{'none':>12}{'':8}"
        print(f"{name:34}{now:12,}{shown}{'  TOO MANY' if over else ''}")
    others = {
        key: (value, there)
        for key, value in environment().items()
        if (there := baseline.get("environment", {}).get(key)) not in (value, None)
    }
    for key, (here, there) in others.items():
        print(f"beware: the baseline is of {key} {there}, this is {here}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="instructions per request and per chunk")
    parser.add_argument("--save", action="store_true", help=f"write the figures to {BASELINE.name}")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave callgrind's files there")
    arguments = parser.parse_args()
    if missing := [tool for tool in ("valgrind", "vgdb") if shutil.which(tool) is None]:
        print(f"{missing[0]} is not there. On Debian: apt-get install -y valgrind", file=sys.stderr)
        return 2
    figures = measure(arguments.keep)
    good = compare(figures, json.loads(BASELINE.read_text()) if BASELINE.exists() else {})
    if arguments.save:
        BASELINE.write_text(json.dumps(written(figures), indent=1) + "\n")
        return 0
    if not good:
        print(f"more than {LIMIT - 1:.0%} above the baseline: make it cheaper, or say why and save a new one")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
