"""The exposition, read back with Prometheus's own parsers."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from octoroute import __version__
from octoroute.observe.metrics import METRICS, OVERFLOW
from octoroute.observe.registry import Registry
from octoroute.observe.sources import Source

# From Python 3.12 on a fork beside threads (pytest-xdist has some) warns; these children only count and end.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

UPSTREAM = "octoroute_upstream_requests_total"


def registry(workers: int = 2, capacity: int = 2048) -> Registry:
    return Registry(
        workers,
        in_flight=lambda: [("fast", 2), ("deep", 0), ("fast", 3)],
        endpoints_up=lambda: [("fast", "qwen", True), ("fast", "qwen", False), ("deep", "llama", True)],
        loads=lambda: [
            *(("fast", "qwen", "running", 2.0), ("fast", "qwen", "kv_use", 0.5)),
            *(("fast", "qwen", "running", 3.0), ("fast", "qwen", "kv_use", 0.25)),
        ],
        waiting=lambda: [("fast", 4), ("deep", 0)],
        sources=lambda: [Source("dns", "fast", 3, 1795428000.5, "")],
        capacity=capacity,
    )


def families(of: Registry) -> dict[str, Family]:
    body, content_type = of.render()
    assert content_type.startswith("text/plain; version=0.0.4")
    return {family.name: family for family in parse(body.decode())}


def samples(of: Registry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in families(of).values():
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, "a series must not appear twice"
            found[key] = sample.value
    return found


def value(of: Registry, name: str, **labels: str) -> float:
    return samples(of)[name, frozenset(labels.items())]


def in_child(work: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def fill(of: Registry) -> None:
    """At least one series of each metric."""
    for metric in METRICS:
        labels = tuple(f"a {label}" for label in metric.labels)
        if metric.kind == "counter":
            of.counter(metric.name, *labels).inc()
        elif metric.kind == "histogram":
            of.histogram(metric.name, *labels).observe(0.3)


def test_every_declared_metric_is_exposed_with_its_type_help_and_labels() -> None:
    full = registry()
    fill(full)
    found = families(full)
    for metric in METRICS:
        family = found[metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        assert {frozenset(sample.labels) - {"le"} for sample in family.samples} == {frozenset(metric.labels)}
    assert len(found) == len(METRICS)


def test_buckets_are_those_declared_and_cumulative_and_the_last_is_the_count() -> None:
    full = registry()
    times = full.histogram("octoroute_routing_duration_ms", "rule")
    for duration in (0.0, 0.1, 0.2, 7.0, 5000.0):
        times.observe(duration)
    found = families(full)["octoroute_routing_duration_ms"].samples
    buckets = [(sample.labels["le"], sample.value) for sample in found if sample.name.endswith("_bucket")]
    bounds = [float(le) for le, _ in buckets]
    assert bounds == [0.1, 0.5, 1, 5, 10, 50, 100, 500, 1000, float("inf")]
    assert [count for _, count in buckets] == [2, 3, 3, 3, 4, 4, 4, 4, 4, 5]
    assert value(full, "octoroute_routing_duration_ms_count", strategy="rule") == 5
    assert value(full, "octoroute_routing_duration_ms_sum", strategy="rule") == pytest.approx(5007.3)


def test_replicas_of_one_name_are_one_series_with_the_share_that_is_healthy() -> None:
    assert value(registry(), "octoroute_endpoint_up", tier="fast", endpoint="qwen") == 0.5
    assert value(registry(), "octoroute_endpoint_up", tier="deep", endpoint="llama") == 1.0


def test_loads_of_replicas_are_added_and_of_shares_the_highest_counts() -> None:
    labels = {"tier": "fast", "endpoint": "qwen"}
    assert value(registry(), "octoroute_endpoint_load", signal="running", **labels) == 5
    assert value(registry(), "octoroute_endpoint_load", signal="kv_use", **labels) == 0.5


def test_in_flight_is_summed_by_tier() -> None:
    assert value(registry(), "octoroute_in_flight", tier="fast") == 5
    assert value(registry(), "octoroute_in_flight", tier="deep") == 0


def test_the_build_is_told() -> None:
    labels = {"version": __version__, "python": platform.python_version()}
    assert value(registry(), "octoroute_build_info", **labels) == 1


def test_a_metric_without_labels_is_there_from_the_start() -> None:
    assert value(registry(), "octoroute_clock_errors_total") == 0
    assert value(registry(), "octoroute_overhead_seconds_count") == 0


def test_openmetrics_is_given_to_who_asks_for_it() -> None:
    full = registry()
    fill(full)
    body, content_type = full.render("application/openmetrics-text; version=1.0.0, text/plain; q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    found = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    assert {family.name for family in found} == {metric.name.removesuffix("_total") for metric in METRICS}


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "text/plain", "\x00", "application/json;q=x"])
def test_anyone_else_gets_plain_text(accept: str) -> None:
    assert registry().render(accept)[1].startswith("text/plain")


def test_whichever_worker_is_asked_shows_the_sum_of_all() -> None:
    shared = registry(workers=3)

    def work(worker: int) -> None:
        shared.bind(worker)
        for _ in range(worker + 1):
            shared.counter(UPSTREAM, "fast", f"only-{worker}", "ok").inc()
            shared.counter(UPSTREAM, "fast", "all", "ok").inc()

    for worker in range(3):
        in_child(lambda worker=worker: work(worker))  # type: ignore[misc]

    def look() -> None:
        shared.bind(0)
        assert value(shared, UPSTREAM, tier="fast", endpoint="all", outcome="ok") == 6
        assert value(shared, UPSTREAM, tier="fast", endpoint="only-2", outcome="ok") == 3

    look()
    in_child(look)


def test_a_total_is_over_all_labels() -> None:
    of = registry()
    assert of.total("octoroute_requests_total") == 0
    of.counter("octoroute_requests_total", "fast", "rule").add(2)
    of.counter("octoroute_requests_total", "deep", "llm").add(3)
    of.counter("octoroute_model_invocations_total", "deep").add(7)
    assert of.total("octoroute_requests_total") == 5


def test_labels_without_room_are_counted_together_and_said_to_be() -> None:
    small = registry(capacity=400)
    kept = [small.counter(UPSTREAM, "fast", f"endpoint-{at}", "ok") for at in range(600)]
    for each in kept:
        each.inc()
    found = {
        labels["endpoint"]: number
        for (name, pairs), number in samples(small).items()
        if name == UPSTREAM and (labels := dict(pairs))
    }
    assert len(found) < 400
    assert sum(found.values()) == 600
    lost = 600 - (len(found) - 1)
    assert found[OVERFLOW] == lost
    assert value(small, "octoroute_metrics_recording_failures_total", operation="label_overflow") == lost


def test_the_overflow_is_not_shown_before_it_is_used() -> None:
    assert not [pairs for _, pairs in samples(registry()) if OVERFLOW in dict(pairs).values()]


@pytest.mark.parametrize("capacity", [1, 50])
def test_a_table_too_small_for_the_metrics_themselves_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match="too small"):
        registry(capacity=capacity)


@pytest.mark.parametrize(
    ("name", "labels"),
    [("octoroute_nothing_total", ()), ("octoroute_in_flight", ("fast",)), (UPSTREAM, ("fast",))],
)
def test_what_is_not_declared_is_refused(name: str, labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="is declared"):
        registry().counter(name, *labels)


@given(st.lists(st.text(max_size=300), min_size=2, max_size=4, unique=True))
def test_any_endpoint_name_can_be_exposed_and_read_back(names: list[str]) -> None:
    full = registry()
    for name in names:
        full.counter(UPSTREAM, "fast", name, "ok").inc()
    shown = [dict(pairs)["endpoint"] for (name, pairs), _ in samples(full).items() if name == UPSTREAM]
    assert len(shown) == len(names)
    assert {each for each in names if len(each) <= 80 and each.isprintable()} <= set(shown)


def test_long_names_that_begin_alike_stay_apart() -> None:
    full = registry()
    full.counter(UPSTREAM, "fast", "x" * 500 + "a", "ok").inc()
    full.counter(UPSTREAM, "fast", "x" * 500 + "b", "ok").inc()
    shown = [dict(pairs)["endpoint"] for name, pairs in samples(full) if name == UPSTREAM]
    assert len(set(shown)) == 2
    assert all(len(each) == 80 for each in shown)


@pytest.mark.skipif(not shutil.which("promtool"), reason="Debian's package prometheus is not installed")
def test_promtool_finds_nothing_but_the_unit_in_a_name_of_octoroute_1() -> None:
    full = registry()
    fill(full)
    result = subprocess.run(
        ["promtool", "check", "metrics"], input=full.render()[0], capture_output=True, check=False
    )
    assert (result.stdout + result.stderr).decode().splitlines() == [
        "octoroute_routing_duration_ms metric names should not contain abbreviated units"
    ]
