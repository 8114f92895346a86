"""From a metric's name and labels to its cells, and from the cells to the text that Prometheus reads.

Make one Registry before the workers fork and call `bind` in each. Handles are bound once and kept by who
counts; the hot path never comes here. prometheus-client writes the exposition, at scrape time only.
"""

import hashlib
import platform
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Final

import orjson
from prometheus_client.core import (
    CollectorRegistry,
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.utils import floatToGoString

from octoroute import __version__
from octoroute._counters import Cells, Counter, Histogram
from octoroute.observe.metrics import METRICS, OVERFLOW, Metric
from octoroute.observe.sources import Source

CAPACITY: Final = 16384  # cells of a worker: about 4,000 endpoints with all their outcomes
LABEL_CHARACTERS: Final = 80  # of one value; with them any label set of METRICS fits into a key

InFlight = Callable[[], Iterable[tuple[str, int]]]
EndpointsUp = Callable[[], Iterable[tuple[str, str, bool]]]
Loads = Callable[[], Iterable[tuple[str, str, str, float]]]
Sources = Callable[[], Iterable[Source]]


class Registry:
    """All metrics of one gateway, shared by its workers.

    Asked at scrape time: `in_flight` and `waiting` for (tier, requests), `endpoints_up` for (tier, endpoint
    name, healthy) of each replica, `loads` for (tier, endpoint name, signal, value), `away` for workers
    without Redis, `sources` for what is known of each. Tiers and names may come several times.
    """

    def __init__(
        self,
        workers: int,
        in_flight: InFlight,
        endpoints_up: EndpointsUp,
        loads: Loads = tuple,
        waiting: InFlight = tuple,
        away: Callable[[], int] = int,
        sources: Sources = tuple,
        capacity: int = CAPACITY,
    ) -> None:
        self._cells = Cells(capacity, workers)
        self._metrics = {metric.name: metric for metric in METRICS}
        self._in_flight = in_flight
        self._endpoints_up = endpoints_up
        self._loads = loads
        self._waiting = waiting
        self._away = away
        self._sources = sources
        # Made first and kept: they must have room when nothing else has. Without labels it is the metric
        # itself.
        self._overflow: dict[str, Counter | Histogram] = {}
        for metric in METRICS:
            if metric.kind != "gauge":
                handle = self._claim(metric, (OVERFLOW,) * len(metric.labels))
                if handle is None:
                    raise ValueError(f"capacity {capacity} is too small for the metrics themselves")
                self._overflow[metric.name] = handle
        overflowed = self._claim(
            self._metrics["octoroute_metrics_recording_failures_total"], ("label_overflow",)
        )
        if not isinstance(overflowed, Counter):
            raise ValueError(f"capacity {capacity} is too small for the metrics themselves")
        self._overflowed = overflowed
        self._exposition = CollectorRegistry(auto_describe=False)
        self._exposition.register(self)

    def bind(self, worker: int) -> None:
        """From now on this process counts as `worker`; called once in each, before it counts anything."""
        self._cells.bind(worker)

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter of these label values, in the declaration's order; the overflow's when there is no
        room."""
        handle = self._handle(name, "counter", labels)
        assert isinstance(handle, Counter)
        return handle

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram of these label values, as `counter`."""
        handle = self._handle(name, "histogram", labels)
        assert isinstance(handle, Histogram)
        return handle

    def bound(self, name: str) -> "BoundCounters":
        """The counters of one metric by label values, for labels that come and go as endpoints do."""
        return BoundCounters(self, name)

    def total(self, name: str) -> float:
        """A counter's value over all its labels and all workers."""
        opening = orjson.dumps([name])[:-1]
        return sum(values[0] for key, values in self._cells.read() if key.startswith(opening))

    def series(self) -> dict[str, list[tuple[list[str], list[float]]]]:
        """By name, each counter's or histogram's series over all workers: labels, and values as Cells.read
        gives them.
        """
        found: dict[str, list[tuple[list[str], list[float]]]] = {}
        for key, values in self._cells.read():
            name, *labels = orjson.loads(key)
            found.setdefault(name, []).append((labels, values))
        return found

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The exposition and its content type: Prometheus text 0.0.4, or what `accept` prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._exposition), content_type

    def collect(self) -> Iterator[Family]:
        """prometheus-client's side of a collector."""
        found = self.series()
        for metric in METRICS:
            series = found.get(metric.name, ())
            if metric.kind == "counter":
                yield _counters(metric, series)
            elif metric.kind == "histogram":
                yield _histograms(metric, series)
        yield self._gauge("octoroute_queue_waiting", _sums(self._waiting()))
        yield self._gauge("octoroute_in_flight", _sums(self._in_flight()))
        yield self._gauge("octoroute_endpoint_up", _shares(self._endpoints_up()))
        yield self._gauge("octoroute_endpoint_load", _replicas(self._loads()))
        yield self._gauge("octoroute_shared_limits_away", {(): self._away()})
        servers: dict[tuple[str, ...], float] = {}
        successes: dict[tuple[str, ...], float] = {}
        for each in self._sources():
            servers[each.source, each.tier] = each.servers
            successes[each.source, each.tier] = each.success_s
        yield self._gauge("octoroute_discovery_servers", servers)
        yield self._gauge("octoroute_discovery_last_success_timestamp_seconds", successes)
        yield self._gauge("octoroute_build_info", {(__version__, platform.python_version()): 1.0})

    def _handle(self, name: str, kind: str, labels: tuple[str, ...]) -> Counter | Histogram:
        metric = self._metrics.get(name)
        if metric is None or metric.kind != kind or len(metric.labels) != len(labels):
            raise ValueError(f"no {kind} {name} with {len(labels)} labels is declared")
        handle = self._claim(metric, labels)
        if handle is None:
            self._overflowed.inc()
            return self._overflow[name]
        return handle

    def _claim(self, metric: Metric, labels: tuple[str, ...]) -> Counter | Histogram | None:
        key = orjson.dumps([metric.name, *map(_short, labels)])
        if metric.kind == "counter":
            return self._cells.counter(key)
        return self._cells.histogram(key, metric.buckets)

    def _gauge(self, name: str, values: dict[tuple[str, ...], float]) -> GaugeMetricFamily:
        metric = self._metrics[name]
        family = GaugeMetricFamily(name, metric.help, labels=metric.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family


class BoundCounters(dict[tuple[str, ...], Counter]):
    """Label values -> counter, bound when first met. Drop it to let go of labels that are no longer used."""

    def __init__(self, registry: Registry, name: str) -> None:
        super().__init__()
        self._registry = registry
        self._name = name

    def __missing__(self, labels: tuple[str, ...]) -> Counter:
        counter = self[labels] = self._registry.counter(self._name, *labels)
        return counter


def _short(label: str) -> str:
    """A long name keeps its beginning, and a digest that keeps it apart from others."""
    label = label.encode(errors="replace").decode()  # lone surrogates can't be encoded
    if len(label) <= LABEL_CHARACTERS:
        return label
    return f"{label[: LABEL_CHARACTERS - 9]}~{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _counters(metric: Metric, series: Iterable[tuple[list[str], list[float]]]) -> CounterMetricFamily:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, (value,) in series:
        if value or OVERFLOW not in labels:
            family.add_metric(labels, value)
    return family


def _histograms(metric: Metric, series: Iterable[tuple[list[str], list[float]]]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
    for labels, (*counts, total) in series:
        if any(counts) or OVERFLOW not in labels:
            family.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
    return family


def _sums(values: Iterable[tuple[str, int]]) -> dict[tuple[str, ...], float]:
    sums: dict[tuple[str, ...], float] = {}
    for tier, value in values:
        sums[(tier,)] = sums.get((tier,), 0.0) + value
    return sums


def _shares(replicas: Iterable[tuple[str, str, bool]]) -> dict[tuple[str, ...], float]:
    """Replicas share a name, but a series must not come twice: its value is the share that is healthy."""
    ups: dict[tuple[str, ...], list[bool]] = {}
    for tier, name, up in replicas:
        ups.setdefault((tier, name), []).append(up)
    return {labels: sum(each) / len(each) for labels, each in ups.items()}


def _replicas(values: Iterable[tuple[str, str, str, float]]) -> dict[tuple[str, ...], float]:
    """Requests of replicas are added; of shares the highest counts."""
    found: dict[tuple[str, ...], float] = {}
    for *labels, value in values:
        key = tuple(map(str, labels))
        before = found.get(key, 0.0)
        found[key] = before + value if key[-1] in ("running", "waiting") else max(before, value)
    return found
