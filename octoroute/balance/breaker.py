"""What a success, a failure and a probe mean for an endpoint's health.

Owns the rules; the counts are the endpoint's, shared by all workers and changed as a whole. Probes nothing,
reads no clock: `now` is monotonic seconds.
"""

from dataclasses import dataclass
from typing import Literal

from octoroute.balance.endpoint import Endpoint

Change = Literal["recovered", "failed"]


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe that ended at `now`. `timed_out` is failure by silence, unlike a refusal or a wrong answer."""

    passed: bool
    now: float
    timeout_s: float
    timed_out: bool = False


def record_success(endpoint: Endpoint, now: float) -> bool:
    """A request succeeded, which heals at once. True where the endpoint was unhealthy until now."""
    return endpoint.state.count_success(endpoint.slot, 1, now)


def record_failure(endpoint: Endpoint, threshold: int) -> bool:
    """An attempt failed. True where that made the endpoint unhealthy: the `threshold`th failure in a row."""
    return endpoint.state.count_failure(endpoint.slot, threshold)


def record_probe(endpoint: Endpoint, probe: Probe, *, failures: int, successes: int) -> Change | None:
    """Count a probe: `successes` in a row heal, `failures` in a row (requests count too) make unhealthy.

    Silence is no evidence against a server that sent tokens while the probe waited: a burst of prompts makes
    llama.cpp deaf to probes for seconds.
    """
    state, slot = endpoint.state, endpoint.slot
    state.note_check(slot, probe.now)
    if probe.passed:
        return "recovered" if state.count_success(slot, successes, probe.now) else None
    if probe.timed_out and state.report(slot)["last_activity"] >= probe.now - probe.timeout_s:
        return None
    return "failed" if state.count_failure(slot, failures) else None
