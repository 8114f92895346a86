"""Sums of the metrics by tier."""

from octoroute.observe.ending import OUTCOMES
from octoroute.observe.metrics import FIRST_TOKEN_S
from octoroute.observe.registry import Registry
from octoroute.observe.tallies import queue_tallies, tier_tallies


def registry() -> Registry:
    return Registry(1, tuple, tuple)


def test_every_tier_is_there_before_the_first_request() -> None:
    series = registry().series()
    for tallies in (tier_tallies(series), queue_tallies(series)):
        assert tuple(tallies) == ("fast", "balanced", "deep")
    fast = tier_tallies(series)["fast"]
    assert fast["requests"] == dict.fromkeys(OUTCOMES, 0)
    assert fast["first_token"] == [[bound, 0] for bound in (*FIRST_TOKEN_S, None)]
    assert queue_tallies(series)["deep"] == {"waited": {"count": 0, "seconds": 0.0}, "dropped": {}}


def test_what_was_counted_is_found_under_its_tier() -> None:
    one = registry()
    for seconds in (0.02, 0.02, 500.0):
        one.histogram("octoroute_time_to_first_token_seconds", "fast").observe(seconds)
    one.histogram("octoroute_request_duration_seconds", "fast", "broken").observe(3.0)
    one.histogram("octoroute_request_duration_seconds", "none", "error").observe(3.0)
    one.counter("octoroute_tokens_total", "deep", "prompt").add(7)
    one.histogram("octoroute_queue_wait_seconds", "deep").observe(1.5)
    one.counter("octoroute_queue_dropped_total", "deep", "max_waiting").inc()
    tiers, queues = tier_tallies(one.series()), queue_tallies(one.series())
    assert tiers["fast"]["requests"]["broken"] == 1
    assert tiers["fast"]["first_token"][2] == [0.025, 2]
    assert tiers["fast"]["first_token"][-1] == [None, 1]
    assert sum(count for _, count in tiers["fast"]["first_token"]) == 3
    assert tiers["deep"]["tokens"] == {"prompt": 7, "completion": 0}
    assert queues["deep"] == {"waited": {"count": 1, "seconds": 1.5}, "dropped": {"max_waiting": 1}}


def test_what_found_no_room_is_of_no_tier() -> None:
    one = Registry(1, tuple, tuple, capacity=700)
    for at in range(700):
        one.counter("octoroute_queue_dropped_total", "fast", f"reason {at}").inc()
    assert "_overflow" in str(one.series())
    assert "_overflow" not in str(queue_tallies(one.series()))
