"""What the metrics say of each tier since the start, for GET /admin/status: sums over its endpoints and all
workers.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from octoroute.exchange import TIERS
from octoroute.observe.ending import OUTCOMES
from octoroute.observe.metrics import FIRST_TOKEN_S

# By name: labels and values of each series, as the registry has them; a histogram's are its counts by bucket,
# and their sum.
Series = Mapping[str, Iterable[tuple[list[str], list[float]]]]

# Of each bucket of times to the first token, null for those above.
BOUNDS_S: Final = (*FIRST_TOKEN_S, None)


def tier_tallies(series: Series) -> dict[str, dict[str, Any]]:
    """By tier: requests by how they ended, tokens by direction, `first_token` as pairs of a bucket's upper
    bound in seconds and its count.
    """
    tallies: dict[str, dict[str, Any]] = {
        tier: {
            "requests": dict.fromkeys(OUTCOMES, 0),
            "tokens": {"prompt": 0, "completion": 0},
            "first_token": [[bound, 0] for bound in BOUNDS_S],
        }
        for tier in TIERS
    }
    for (tier, outcome), (*counts, _) in series.get("octoroute_request_duration_seconds", ()):
        if tier in tallies:
            tallies[tier]["requests"][outcome] = int(sum(counts))
    for (tier, direction), (value,) in series.get("octoroute_tokens_total", ()):
        if tier in tallies:
            tallies[tier]["tokens"][direction] = int(value)
    for (tier,), (*counts, _) in series.get("octoroute_time_to_first_token_seconds", ()):
        if tier in tallies:
            tallies[tier]["first_token"] = [
                [bound, int(count)] for bound, count in zip(BOUNDS_S, counts, strict=True)
            ]
    return tallies


def queue_tallies(series: Series) -> dict[str, dict[str, Any]]:
    """By tier: how many `waited` and got a place, for how many seconds in all; who left without, by why."""
    tallies: dict[str, dict[str, Any]] = {
        tier: {"waited": {"count": 0, "seconds": 0.0}, "dropped": {}} for tier in TIERS
    }
    for (tier,), (*counts, seconds) in series.get("octoroute_queue_wait_seconds", ()):
        if tier in tallies:
            tallies[tier]["waited"] = {"count": int(sum(counts)), "seconds": round(seconds, 3)}
    for (tier, reason), (value,) in series.get("octoroute_queue_dropped_total", ()):
        if tier in tallies:
            tallies[tier]["dropped"][reason] = int(value)
    return tallies
