"""What one finished request costs to write down: metrics, log line to a file, recent ring; and each part alone.

    python benchmarks/micro/bench_record.py

Nanoseconds a call, the best of five rounds. The bar is 4,000 ns for the whole.
"""

import tempfile
from array import array
from collections.abc import Callable
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
    prompt_tokens=523,
    completion_tokens=207,
)


def best_ns(call: Callable[[], object], calls: int) -> float:
    return min(repeat(call, number=1, repeat=5)) / calls * 1e9


def main() -> None:
    registry = Registry(1, lambda: [], lambda: [])
    counter = registry.counter("octoroute_requests_total", "fast", "rule")
    histogram = registry.histogram("octoroute_inter_token_latency_seconds", "fast")
    counts = array("I", [1] * (len(INTER_TOKEN_S) + 1))

    def times(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(ROUND):
                call()

        return run

    print(f"Counter.inc          {best_ns(times(counter.inc), ROUND):8.0f} ns")
    print(
        f"Histogram.observe    {best_ns(times(lambda: histogram.observe(0.02)), ROUND):8.0f} ns, a lambda included"
    )
    print(
        f"Histogram.merge      {best_ns(times(lambda: histogram.merge(counts, 2.0)), ROUND):8.0f} ns, likewise"
    )
    with tempfile.TemporaryFile() as file:
        writer = LineWriter(file.fileno(), lost=lambda count: None)
        for name, format_entry in FORMATS.items():
            for write in (writer.write, None):
                recorder = Recorder(registry, Recent(1000), format_entry, write)

                def run(
                    record: Callable[[RequestView, Plan | None, Outcome], None] = recorder.record,
                ) -> None:
                    for view in VIEWS:
                        record(view, PLAN, OUTCOME)
                    writer.flush()

                label = f"record, {name}" if write else "record, no line"
                print(f"{label:<20} {best_ns(run, ROUND):8.0f} ns")


if __name__ == "__main__":
    main()
