"""What each way for a request to end leaves in the metrics, the log and the recent requests."""

from array import array
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from octoroute.exchange import Outcome, Plan, RequestView, Target
from octoroute.observe.metrics import INTER_TOKEN_S
from octoroute.observe.recent import Recent, Wanted
from octoroute.observe.record import Recorder
from octoroute.observe.registry import Registry
from octoroute.observe.request_log import as_text

VIEW = RequestView("r1", "/v1/chat/completions", b"{}", {"messages": ["secret"]}, "auto", stream=True)
PLAN = Plan(Target("fast"), "rule", "rule:casual_chat", 0.4)


def done(**but: Any) -> Outcome:
    """What came of a request that went well, but for what is given."""
    usual = {
        "status": 200,
        "result": "ok",
        "endpoint": "qwen",
        "attempts": 1,
        "ttft_s": 0.2,
        "overhead_s": 0.0003,
        "duration_s": 1.5,
        "bytes_out": 900,
        "prompt_tokens": 11,
        "completion_tokens": 7,
    }
    return Outcome(**usual | but)


DONE = done()


class Desk:
    """A recorder with its registry, its lines and its ring."""

    def __init__(self) -> None:
        self.registry = Registry(1, list, list)
        self.recent = Recent(10)
        self.lines: list[bytes] = []
        self.recorder = Recorder(self.registry, self.recent, as_text, self.lines.append, now=lambda: 0.0)

    def counted(self) -> dict[str, float]:
        """Every series that is not zero, named as in the exposition; buckets and sums left out."""
        found = {}
        for family in parse(self.registry.render()[0].decode()):
            for sample in family.samples:
                if sample.value and not sample.name.endswith(("_bucket", "_sum", "_info")):
                    labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                    found[f"{sample.name}{{{labels}}}"] = sample.value
        return found


@pytest.fixture
def desk() -> Desk:
    return Desk()


ROUTED = {
    "octoroute_requests_total{strategy=rule,tier=fast}": 1,
    "octoroute_routing_duration_ms_count{strategy=rule}": 1,
}


def test_a_whole_answer_counts_in_everything_that_is_about_success(desk: Desk) -> None:
    desk.recorder.record(VIEW, PLAN, DONE)
    assert desk.counted() == {
        **ROUTED,
        "octoroute_model_invocations_total{tier=fast}": 1,
        "octoroute_upstream_requests_total{endpoint=qwen,outcome=ok,tier=fast}": 1,
        "octoroute_time_to_first_token_seconds_count{tier=fast}": 1,
        "octoroute_request_duration_seconds_count{outcome=ok,tier=fast}": 1,
        "octoroute_overhead_seconds_count{}": 1,
        "octoroute_tokens_total{direction=prompt,tier=fast}": 11,
        "octoroute_tokens_total{direction=completion,tier=fast}": 7,
    }


def test_an_answer_that_breaks_off_is_no_invocation_but_a_mid_stream_failure(desk: Desk) -> None:
    broken = Outcome(status=200, result="broken", endpoint="qwen", attempts=1, ttft_s=0.2, duration_s=1.0)
    desk.recorder.record(VIEW, PLAN, broken)
    assert desk.counted() == {
        **ROUTED,
        "octoroute_mid_stream_failures_total{endpoint=qwen}": 1,
        "octoroute_upstream_requests_total{endpoint=qwen,outcome=broken,tier=fast}": 1,
        "octoroute_time_to_first_token_seconds_count{tier=fast}": 1,
        "octoroute_request_duration_seconds_count{outcome=broken,tier=fast}": 1,
    }


def test_attempts_in_vain_count_for_their_endpoints_and_as_retries_for_the_tier(desk: Desk) -> None:
    failures = [("a", "connect"), ("b", "status_503")]
    desk.recorder.record(VIEW, PLAN, done(endpoint="c", attempts=3, failures=failures))
    counted = desk.counted()
    for endpoint, outcome in (*failures, ("c", "ok")):
        series = f"octoroute_upstream_requests_total{{endpoint={endpoint},outcome={outcome},tier=fast}}"
        assert counted[series] == 1
    assert counted["octoroute_retries_total{reason=connect,tier=fast}"] == 1
    assert counted["octoroute_retries_total{reason=status_503,tier=fast}"] == 1


def test_the_last_attempt_in_vain_was_not_retried(desk: Desk) -> None:
    failures = [("a", "connect"), ("b", "timeout")]
    failed = Outcome(status=504, result="error", endpoint="b", attempts=2, failures=failures, duration_s=3.0)
    desk.recorder.record(VIEW, PLAN, failed)
    assert desk.counted() == {
        **ROUTED,
        "octoroute_upstream_requests_total{endpoint=a,outcome=connect,tier=fast}": 1,
        "octoroute_upstream_requests_total{endpoint=b,outcome=timeout,tier=fast}": 1,
        "octoroute_retries_total{reason=connect,tier=fast}": 1,
        "octoroute_request_duration_seconds_count{outcome=error,tier=fast}": 1,
    }


@pytest.mark.parametrize(
    ("status", "result", "expected"),
    [
        (200, "ok", "ok"),
        (200, "error", "error"),
        (400, "error", "client_error"),
        (404, "ok", "client_error"),
        (429, "error", "limited"),
        (500, "error", "error"),
        (500, "ok", "error"),
        (503, "error", "error"),
        (0, "error", "error"),
        (0, "client_gone", "client_gone"),
        (200, "client_gone", "client_gone"),
        (200, "broken", "broken"),
    ],
)
def test_how_a_request_ended_is_one_of_six_words(desk: Desk, status: int, result: str, expected: str) -> None:
    desk.recorder.record(VIEW, PLAN, Outcome(status=status, result=result))
    assert f"octoroute_request_duration_seconds_count{{outcome={expected},tier=fast}}" in desk.counted()
    assert (expected == "ok") == ("octoroute_model_invocations_total{tier=fast}" in desk.counted())


def test_a_request_that_was_never_routed_counts_in_no_tier(desk: Desk) -> None:
    desk.recorder.record(VIEW, None, Outcome(status=400))
    assert desk.counted() == {"octoroute_request_duration_seconds_count{outcome=client_error,tier=none}": 1}
    assert b" tier=- why=- endpoint=- attempts=0 status=400 " in desk.lines[0]


def test_token_counts_are_read_from_the_end_of_the_answer(desk: Desk) -> None:
    tail = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}\n\ndata: [DONE]\n\n'
    desk.recorder.record(VIEW, PLAN, done(prompt_tokens=-1, completion_tokens=-1, tail=tail))
    assert desk.counted()["octoroute_tokens_total{direction=completion,tier=fast}"] == 5
    assert b" prompt_tokens=3 completion_tokens=5 " in desk.lines[0]


def test_the_gaps_of_a_stream_are_merged_at_its_end(desk: Desk) -> None:
    counts = array("I", [0] * (len(INTER_TOKEN_S) + 1))
    counts[3] = 40
    desk.recorder.record(VIEW, PLAN, done(gap_counts=counts.tobytes(), gap_sum_s=0.3))
    assert desk.counted()["octoroute_inter_token_latency_seconds_count{tier=fast}"] == 40


def test_one_line_and_one_entry_are_written_and_neither_holds_content(desk: Desk) -> None:
    desk.recorder.record(VIEW, PLAN, done(error="secret of the server", tail=b"secret"))
    assert desk.lines == [
        b"1970-01-01T00:00:00.000Z INFO octoroute.request: request_id=r1 tenant=- model=auto tier=fast"
        b" why=rule:casual_chat endpoint=qwen attempts=1 status=200 result=ok ttft_ms=200.0"
        b" duration_ms=1500.0 prompt_tokens=11 completion_tokens=7 bytes=900 resumed=0\n"
    ]
    [(_, entry)] = desk.recent.latest(Wanted())
    assert '"model":"auto"' in entry
    assert "secret" not in entry


def test_a_long_model_name_is_cut(desk: Desk) -> None:
    desk.recorder.record(replace(VIEW, model="m" * 5000, request_id="i" * 5000), PLAN, DONE)
    assert b" model=" + b"m" * 100 + b" " in desk.lines[0]
    assert len(desk.lines[0]) < 700


def test_no_line_is_made_where_the_log_is_off(desk: Desk) -> None:
    Recorder(desk.registry, desk.recent, as_text, None).record(VIEW, PLAN, DONE)
    assert desk.lines == []
    assert len(desk.recent.latest(Wanted())) == 1


def test_a_recorder_of_the_next_config_goes_on_where_the_last_one_was(desk: Desk) -> None:
    desk.recorder.record(VIEW, PLAN, DONE)
    Recorder(desk.registry, desk.recent, as_text, None).record(VIEW, PLAN, DONE)
    assert desk.counted()["octoroute_requests_total{strategy=rule,tier=fast}"] == 2


def test_a_record_that_fails_disturbs_no_request_and_is_counted(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.recorder.record(VIEW, replace(PLAN, target=Target("no such tier")), DONE)
    assert desk.counted() == {"octoroute_metrics_recording_failures_total{operation=record}": 1}
    assert "request r1 could not be recorded" in caplog.text


def test_the_series_of_every_tier_are_there_before_the_first_request(desk: Desk) -> None:
    text = desk.registry.render()[0].decode()
    for tier in ("fast", "balanced", "deep"):
        for strategy in ("rule", "llm"):
            assert f'octoroute_requests_total{{strategy="{strategy}",tier="{tier}"}} 0.0' in text
