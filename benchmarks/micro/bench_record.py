"""What one finished request costs to write down: usage, metrics, log line to a file, recent ring.

    python benchmarks/micro/bench_record.py

Nanoseconds a call, the best of seven rounds. The bar is 4,000 ns for the whole.
"""

import tempfile
from array import array
from collections.abc import Callable
from time import process_time
from timeit import repeat

from octoroute.exchange import Outcome, Plan, RequestView, Target
from octoroute.observe.line_writer import LineWriter
from octoroute.observe.metrics import INTER_TOKEN_S
from octoroute.observe.recent import Recent
from octoroute.observe.record import Recorder
from octoroute.observe.registry import Registry
from octoroute.observe.request_log import FORMATS

ROUND = 20_000
VIEWS = [
    RequestView(f"{n:032x}", "/v1/chat/completions", b"", {}, "auto", stream=True, tenant="team-a")
    for n in range(ROUND)
]
PLAN = Plan(Target("fast"), "rule", "rule:casual_chat", 0.012)
OUTCOME = Outcome(
    status=200,
    result="ok",
    endpoint="qwen3-8b",
    attempts=1,
    ttft_s=0.1534,
    overhead_s=0.0002,
    duration_s=2.3456,
    bytes_out=54321,
    chunks=210,
    tail=b'data: {"choices":[],"usage":{"prompt_tokens":523,"completion_tokens":207}}\n\ndata: [DONE]\n\n',
)


def best_ns(calls: Callable[[], object], count: int) -> float:
    return min(repeat(calls, timer=process_time, number=1, repeat=7)) / count * 1e9


def show(label: str, call: Callable[[], object]) -> None:
    def calls() -> None:
        for _ in range(ROUND):
            call()

    print(f"{label:<24}{best_ns(calls, ROUND):8.0f} ns")


def main() -> None:
    registry = Registry(1, list, list)
    histogram = registry.histogram("octoroute_inter_token_latency_seconds", "fast")
    counts = array("I", [1] * (len(INTER_TOKEN_S) + 1))
    show("Counter.inc", registry.counter("octoroute_requests_total", "fast", "rule").inc)
    show("Histogram.observe *", lambda: histogram.observe(0.02))
    show("Histogram.merge *", lambda: histogram.merge(counts, 2.0))
    print("  * and a Python call")
    with tempfile.TemporaryFile() as file:
        writer = LineWriter(file.fileno(), lost=print)
        for name, format_entry in FORMATS.items():
            for write in (writer.write, None):
                recorder = Recorder(registry, Recent(1000), format_entry, write)

                def calls(record: Callable[[RequestView, Plan, Outcome], None] = recorder.record) -> None:
                    for view in VIEWS:
                        OUTCOME.prompt_tokens = -1
                        record(view, PLAN, OUTCOME)
                    writer.flush()

                label = f"record, {name} line" if write else "record, no line"
                print(f"{label:<24}{best_ns(calls, ROUND):8.0f} ns")


if __name__ == "__main__":
    main()
