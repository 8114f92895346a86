"""Every metric of the gateway, as data: name, kind, help, labels, buckets.

The exposition, the documentation, the dashboard and the alerts are checked against this list. Names, labels
and buckets of octoroute 1.0 are kept as they were. No label's value ever comes from a client: it is one of
our own words, or a name out of the config.
"""

from dataclasses import dataclass
from typing import Final, Literal

OVERFLOW: Final = "_overflow"  # the value of every label of the series that counts what found no room


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. `buckets` are the inclusive upper bounds of a histogram, without +Inf."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# A first token takes milliseconds when the prompt is cached, tens of seconds after a long prefill or wait.
FIRST_TOKEN_S: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0),
)
# 1 ms (several tokens in one read) to 10 s (a stall); 5 to 100 ms is where servers differ.
INTER_TOKEN_S: Final = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04),
    *(0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0),
)
DURATION_S: Final = (
    0.01,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    20.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1800.0,
)
OVERHEAD_S: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
QUEUE_WAIT_S: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0)
ROUTING_MS: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0)

METRICS: Final[tuple[Metric, ...]] = (
    # What octoroute 1.0 had.
    Metric(
        "octoroute_requests_total",
        "counter",
        "Requests that were routed, by tier and by what decided (rule, llm).",
        ("tier", "strategy"),
    ),
    Metric(
        "octoroute_routing_duration_ms",
        "histogram",
        "Time to decide the tier, in milliseconds; 0 for a request that named its target.",
        ("strategy",),
        ROUTING_MS,
    ),
    Metric(
        "octoroute_model_invocations_total",
        "counter",
        "User requests that were answered in full, by tier; the router's own questions are not in it.",
        ("tier",),
    ),
    Metric(
        "octoroute_health_tracking_failures_total",
        "counter",
        "Times an endpoint's health could not be recorded.",
        ("endpoint", "error_type"),
    ),
    Metric(
        "octoroute_metrics_recording_failures_total",
        "counter",
        "What was not recorded in full: label_overflow (labels), request_log (lines), record (requests).",
        ("operation",),
    ),
    Metric(
        "octoroute_background_health_task_failures_total",
        "counter",
        "Crashes of the task that probes the endpoints; it is started again.",
        ("failure_type",),
    ),
    Metric(
        "octoroute_mid_stream_failures_total",
        "counter",
        "Answers that broke after their first byte had gone to the client.",
        ("endpoint",),
    ),
    Metric(
        "octoroute_clock_errors_total",
        "counter",
        "Times the system clock was found to have gone backwards.",
    ),
    # What it lacked.
    Metric(
        "octoroute_upstream_requests_total",
        "counter",
        "Attempts at an endpoint, by how they ended: as requests do, or why no answer came.",
        ("tier", "endpoint", "outcome"),
    ),
    Metric(
        "octoroute_retries_total",
        "counter",
        "Further attempts for one request, by why the attempt before failed.",
        ("tier", "reason"),
    ),
    Metric(
        "octoroute_retries_refused_total",
        "counter",
        "Retries that were not made, being beyond retry.budget, by why the attempt before failed.",
        ("tier", "reason"),
    ),
    Metric(
        "octoroute_hedges_total",
        "counter",
        "Streams that were late, by what came of asking a second endpoint, or why it was not asked.",
        ("tier", "outcome"),
    ),
    Metric(
        "octoroute_fallbacks_total",
        "counter",
        "Times that a tier could not answer and another one was tried (to).",
        ("tier", "to"),
    ),
    Metric(
        "octoroute_stream_recoveries_total",
        "counter",
        "Servers that left their stream unfinished, by what became of it: resumed, refused, failed.",
        ("tier", "outcome"),
    ),
    Metric(
        "octoroute_time_to_first_token_seconds",
        "histogram",
        "From the request read to the first byte of the answer's body.",
        ("tier",),
        FIRST_TOKEN_S,
    ),
    Metric(
        "octoroute_inter_token_latency_seconds",
        "histogram",
        "Between two chunks of a stream as its server sent them; 0 for chunks that came at the same time.",
        ("tier",),
        INTER_TOKEN_S,
    ),
    Metric(
        "octoroute_request_duration_seconds",
        "histogram",
        "From the request read to the last byte of its answer, by how it ended.",
        ("tier", "outcome"),
        DURATION_S,
    ),
    Metric(
        "octoroute_overhead_seconds",
        "histogram",
        "The gateway's own share: from the request read to the request written to the endpoint.",
        (),
        OVERHEAD_S,
    ),
    Metric(
        "octoroute_tokens_total",
        "counter",
        "Tokens that the servers reported, by direction: prompt, completion.",
        ("tier", "direction"),
    ),
    Metric(
        "octoroute_affinity_choices_total",
        "counter",
        "Choices by affinity: who was sent it before (holder), the owner by hash (ring), else least_loaded.",
        ("tier", "choice"),
    ),
    Metric(
        "octoroute_affinity_forgotten_total",
        "counter",
        "Beginnings of prompts, and sessions, whose place was forgotten because newer ones needed the room.",
    ),
    Metric(
        "octoroute_queue_wait_seconds",
        "histogram",
        "How long requests waited that got a place in the end; those that need not wait are not in it.",
        ("tier",),
        QUEUE_WAIT_S,
    ),
    Metric(
        "octoroute_queue_dropped_total",
        "counter",
        "Requests that left without a place: a bound of [queue] was met, or client_gone, or no_endpoint.",
        ("tier", "reason"),
    ),
    Metric(
        "octoroute_queue_waiting",
        "gauge",
        "Requests that wait now because every endpoint of the tier is full, over all workers.",
        ("tier",),
    ),
    Metric(
        "octoroute_in_flight",
        "gauge",
        "Requests that endpoints of the tier are answering now, over all workers.",
        ("tier",),
    ),
    Metric(
        "octoroute_endpoint_up",
        "gauge",
        "Share of the endpoint's replicas that are healthy: 1 all, 0 none.",
        ("tier", "endpoint"),
    ),
    # Of keys; without keys in the config there are none.
    Metric(
        "octoroute_unauthorized_total",
        "counter",
        "Requests that were turned away for their key, by why: missing, unknown, not_admin.",
        ("reason",),
    ),
    Metric(
        "octoroute_tenant_requests_total",
        "counter",
        "Requests to model servers, by whose key they carried.",
        ("tenant",),
    ),
    Metric(
        "octoroute_tenant_tokens_total",
        "counter",
        "Tokens that the servers reported, by whose key it was and by direction: prompt, completion.",
        ("tenant", "direction"),
    ),
    Metric(
        "octoroute_tenant_limited_total",
        "counter",
        "Requests refused (429), by whose key it was and by its limit: requests, tokens, in_flight.",
        ("tenant", "limit"),
    ),
    Metric(
        "octoroute_shared_limits_decisions_total",
        "counter",
        "Requests held to limits across gateways, by whom: redis, or while it was away the gateway's share.",
        ("by",),
    ),
    Metric(
        "octoroute_shared_limits_failures_total",
        "counter",
        "Times that Redis could not be used, by why: timeout, connection, refused, error.",
        ("reason",),
    ),
    Metric(
        "octoroute_shared_limits_away",
        "gauge",
        "Workers that can't reach Redis now, and hold to their gateway's share of the limits.",
    ),
    Metric(
        "octoroute_endpoint_load",
        "gauge",
        "What the endpoint says of its load: requests running, waiting, share of the KV cache, 1 if asleep.",
        ("tier", "endpoint", "signal"),
    ),
    # Of sources of servers; without [discovery] in the config there are none.
    Metric(
        "octoroute_discovery_servers",
        "gauge",
        "Servers of the source that are in use: those found last, until they are given up.",
        ("source", "tier"),
    ),
    Metric(
        "octoroute_discovery_last_success_timestamp_seconds",
        "gauge",
        "When the source last answered, in seconds since 1970; 0 is never.",
        ("source", "tier"),
    ),
    Metric(
        "octoroute_discovery_failures_total",
        "counter",
        "Times that nothing could be found out at the source, by why.",
        ("source", "tier", "reason"),
    ),
    Metric(
        "octoroute_discovery_watches_total",
        "counter",
        "Watches of Kubernetes that ended, by how: in_time, dropped (broke off), expired (listed anew).",
        ("tier", "ended"),
    ),
    Metric(
        "octoroute_build_info",
        "gauge",
        "Always 1; the labels say what runs.",
        ("version", "python"),
    ),
)
