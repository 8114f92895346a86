"""What makes an endpoint unhealthy and what heals it."""

from octoroute.balance.breaker import Change, Probe, record_failure, record_probe, record_success
from octoroute.balance.endpoint import Endpoint, EndpointSpec, FleetState


def an_endpoint() -> Endpoint:
    return Endpoint(EndpointSpec("fast", "a", "http://a/v1"), FleetState())


def probed(endpoint: Endpoint, passed: bool, now: float = 100.0, timed_out: bool = False) -> Change | None:
    return record_probe(endpoint, Probe(passed, now, 5.0, timed_out), failures=3, successes=2)


def test_an_endpoint_starts_healthy() -> None:
    assert an_endpoint().healthy


def test_the_third_failure_in_a_row_makes_it_unhealthy_and_says_so_once() -> None:
    endpoint = an_endpoint()
    assert [record_failure(endpoint, 3) for _ in range(4)] == [False, False, True, False]
    assert not endpoint.healthy
    assert endpoint.consecutive_failures == 4


def test_a_success_in_between_starts_the_count_anew() -> None:
    endpoint = an_endpoint()
    for _ in range(2):
        record_failure(endpoint, 3)
        record_failure(endpoint, 3)
        assert not record_success(endpoint, 1.0)
    assert endpoint.healthy
    assert endpoint.consecutive_failures == 0


def test_a_successful_request_heals_at_once() -> None:
    endpoint = an_endpoint()
    record_failure(endpoint, 1)
    assert record_success(endpoint, 30.0)
    assert endpoint.healthy
    assert endpoint.seen["healthy_since"] == 30.0


def test_probes_heal_after_as_many_in_a_row_as_configured() -> None:
    endpoint = an_endpoint()
    record_failure(endpoint, 1)
    assert [probed(endpoint, passed) for passed in (True, False, True, True, True)] == [
        None,
        None,
        None,
        "recovered",
        None,
    ]


def test_failed_probes_and_failed_requests_count_together() -> None:
    endpoint = an_endpoint()
    record_failure(endpoint, 3)
    assert probed(endpoint, False) is None
    assert probed(endpoint, False) == "failed"
    assert not endpoint.healthy


def test_a_probe_that_passes_forgives_earlier_failures() -> None:
    endpoint = an_endpoint()
    record_failure(endpoint, 3)
    record_failure(endpoint, 3)
    probed(endpoint, True)
    assert endpoint.consecutive_failures == 0


def test_a_slow_probe_does_not_count_while_tokens_flow() -> None:
    endpoint = an_endpoint()
    endpoint.state.note_activity(endpoint.slot, 96.0)  # within the probe's 5 s
    assert [probed(endpoint, False, timed_out=True) for _ in range(5)] == [None] * 5
    assert endpoint.consecutive_failures == 0
    endpoint.state.note_activity(endpoint.slot, 94.0)
    probed(endpoint, False, timed_out=True)
    assert endpoint.consecutive_failures == 1


def test_a_refused_probe_counts_even_while_tokens_flow() -> None:
    endpoint = an_endpoint()
    endpoint.state.note_activity(endpoint.slot, 100.0)
    assert [probed(endpoint, False) for _ in range(3)] == [None, None, "failed"]


def test_every_probe_is_remembered() -> None:
    endpoint = an_endpoint()
    for now, passed in ((10.0, True), (20.0, False)):
        probed(endpoint, passed, now)
        assert endpoint.seen["last_check"] == now
