"""What is written down of a request after its last byte: metrics, one log line, one entry of the recent ones.

The one place where an Outcome turns into label values. It never raises into a request: a failure here is
counted and logged. It knows nothing of files; `write` takes a finished line, and is None where the request
log is off.
"""

import logging
from collections.abc import Callable
from time import time
from typing import Final

from octoroute._usage import tokens
from octoroute.exchange import TIERS, Outcome, Plan, RequestView, Target
from octoroute.observe.ending import OUTCOMES, ending
from octoroute.observe.recent import Recent
from octoroute.observe.registry import Registry
from octoroute.observe.request_log import Entry, Format, harmless

NO_TIER: Final = "none"  # of requests that ended before they were routed
ID_CHARACTERS: Final = 200  # in the log
MODEL_CHARACTERS: Final = 100
STRATEGIES: Final = ("rule", "llm")

logger = logging.getLogger(__name__)


class _Tier:
    """The handles of one tier, bound once."""

    def __init__(self, registry: Registry, tier: str) -> None:
        self.durations = {
            outcome: registry.histogram("octoroute_request_duration_seconds", tier, outcome)
            for outcome in OUTCOMES
        }
        if tier == NO_TIER:
            return
        self.requests = {
            strategy: registry.counter("octoroute_requests_total", tier, strategy) for strategy in STRATEGIES
        }
        self.invocations = registry.counter("octoroute_model_invocations_total", tier)
        self.first_token = registry.histogram("octoroute_time_to_first_token_seconds", tier)
        self.inter_token = registry.histogram("octoroute_inter_token_latency_seconds", tier)
        self.prompt_tokens = registry.counter("octoroute_tokens_total", tier, "prompt")
        self.completion_tokens = registry.counter("octoroute_tokens_total", tier, "completion")


class Recorder:
    """Make one at each load of the config: what the old one held for endpoints that are gone goes with it."""

    def __init__(
        self,
        registry: Registry,
        recent: Recent,
        format_entry: Format,
        write: Callable[[bytes], None] | None,
        now: Callable[[], float] = time,
    ) -> None:
        self._registry = registry
        self._recent = recent
        self._format = format_entry
        self._write = write
        self._now = now
        self._tiers = {tier: _Tier(registry, tier) for tier in (*TIERS, NO_TIER)}
        self._routing_ms = {
            strategy: registry.histogram("octoroute_routing_duration_ms", strategy) for strategy in STRATEGIES
        }
        self._overhead = registry.histogram("octoroute_overhead_seconds")
        self._attempts = registry.bound("octoroute_upstream_requests_total")
        self._retries = registry.bound("octoroute_retries_total")
        self._unretried = registry.bound("octoroute_retries_refused_total")
        self._hedges = registry.bound("octoroute_hedges_total")
        self._recoveries = registry.bound("octoroute_stream_recoveries_total")
        self._broken = registry.bound("octoroute_mid_stream_failures_total")
        self._failures = registry.counter("octoroute_metrics_recording_failures_total", "record")

    def record(self, view: RequestView, plan: Plan | None, outcome: Outcome) -> None:
        """The request is over. `plan` is None when it was never routed."""
        try:
            if outcome.tail and outcome.prompt_tokens < 0:
                outcome.prompt_tokens, outcome.completion_tokens = tokens(outcome.tail)
            self._count(plan, outcome)
            entry = self._entry(view, plan, outcome)
            self._recent.add(entry)
            if self._write is not None:
                self._write(self._format(entry))
        except Exception:
            self._failures.inc()
            logger.exception("request %s could not be recorded", harmless(view.request_id))

    def fell_back(self, plan: Plan, target: Target, outcome: Outcome) -> None:
        """The plan's tier could not answer, `target` is tried: what was tried so far counts for the first."""
        self._registry.counter("octoroute_fallbacks_total", plan.target.tier, target.tier).inc()
        self._count_failures(plan.target.tier, outcome)

    def _count(self, plan: Plan | None, outcome: Outcome) -> None:
        ended = ending(outcome.status, outcome.result)
        if plan is None:
            outside = self._tiers[NO_TIER]
            outside.durations[ended].observe(outcome.duration_s)
            return
        name = plan.target.tier
        tier = self._tiers[name]
        tier.requests[plan.strategy].inc()
        self._routing_ms[plan.strategy].observe(plan.routing_ms)
        tier.durations[ended].observe(outcome.duration_s)
        if ended == "ok":
            tier.invocations.inc()
        if outcome.ttft_s >= 0.0:
            tier.first_token.observe(outcome.ttft_s)
        if outcome.overhead_s >= 0.0:
            self._overhead.observe(outcome.overhead_s)
        if outcome.gap_counts:
            tier.inter_token.merge(outcome.gap_counts, outcome.gap_sum_s)
        if outcome.prompt_tokens > 0:
            tier.prompt_tokens.add(outcome.prompt_tokens)
        if outcome.completion_tokens > 0:
            tier.completion_tokens.add(outcome.completion_tokens)
        for _, how in outcome.recoveries:
            self._recoveries[name, how].inc()
        if outcome.failures:
            self._count_failures(name, outcome)
        if outcome.hedge:
            self._hedges[name, outcome.hedge].inc()
            if outcome.beside[0]:
                self._attempts[(name, *outcome.beside)].inc()
        if len(outcome.failures) < outcome.attempts:
            self._attempts[name, outcome.endpoint, ended].inc()
            if ended == "broken":
                self._broken[(outcome.endpoint,)].inc()

    def _count_failures(self, tier: str, outcome: Outcome) -> None:
        for endpoint, reason in outcome.failures:
            self._attempts[tier, endpoint, reason].inc()
            if reason == "broken":
                self._broken[(endpoint,)].inc()
        for _, reason in outcome.failures[: outcome.attempts - 1]:
            self._retries[tier, reason].inc()
        if outcome.unretried:
            self._unretried[tier, outcome.unretried].inc()
            outcome.unretried = ""

    def _entry(self, view: RequestView, plan: Plan | None, outcome: Outcome) -> Entry:
        return (
            self._now(),
            view.request_id[:ID_CHARACTERS],
            view.tenant,
            view.model[:MODEL_CHARACTERS],
            plan.target.tier if plan is not None else "",
            plan.reason if plan is not None else "",
            outcome.endpoint,
            outcome.earlier_attempts + outcome.attempts,
            outcome.status,
            outcome.result,
            outcome.ttft_s * 1000.0,
            outcome.duration_s * 1000.0,
            outcome.prompt_tokens,
            outcome.completion_tokens,
            outcome.bytes_out,
            len(outcome.recoveries) - (outcome.result == "broken"),
        )
