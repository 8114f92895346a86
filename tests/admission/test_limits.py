"""What one request takes of its tenant's limits, and what a client is told."""

import hashlib

import pytest

from octoroute.admission.limits import (
    Entry,
    Limits,
    LimitTable,
    Standing,
    Tenant,
    Tenants,
    duration,
    used_tokens,
)
from octoroute.errors import LimitReached
from octoroute.exchange import Outcome

NOW = 1000.0


def tenant(
    name: str = "team-a", tiers: tuple[str, ...] = ("fast", "balanced", "deep"), **limits: int
) -> Tenant:
    return Tenant(LimitTable(slots=8), name, hashlib.sha256(b"sk").digest(), Limits(**limits), tiers)


def enter(one: Tenant, now: float = NOW) -> Entry:
    return Entry(one, one.limits, now)


def test_a_key_is_found_by_its_digest_and_by_no_other() -> None:
    known = tenant()
    tenants = Tenants([known])
    assert tenants.find(hashlib.sha256(b"sk").digest()) is known
    for other in (b"", b"s", b"sk ", b"SK", b"skk"):
        assert tenants.find(hashlib.sha256(other).digest()) is None
    assert Tenants([]).find(bytes(32)) is None


def test_a_tenant_under_another_key_goes_on_where_it_was() -> None:
    table = LimitTable(slots=8)
    old = Tenant(table, "team-a", b"1" * 32, Limits(requests=1))
    enter(old).leave(0, NOW)
    new = Tenant(table, "team-a", b"2" * 32, Limits(requests=1))
    with pytest.raises(LimitReached):
        enter(new)
    enter(Tenant(table, "team-b", b"3" * 32, Limits(requests=1)))


def test_the_requests_of_a_minute_run_out_and_the_error_says_when_to_come_again() -> None:
    one = tenant(requests=2)
    enter(one, NOW)
    enter(one, NOW + 10)
    with pytest.raises(LimitReached) as caught:
        enter(one, NOW + 20.5)
    error = caught.value
    assert (error.status, error.type, error.code, error.limit) == (
        429,
        "requests",
        "rate_limit_exceeded",
        "requests",
    )
    assert error.message == "team-a has made 2 of 2 requests per minute; try again in 40.5s"
    assert error.retry_after_s == 41
    assert error.headers == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "50.5s",
    }
    enter(one, NOW + 61)


def test_more_at_the_same_time_than_may_be_are_refused_until_one_leaves() -> None:
    one = tenant(in_flight=1)
    first = enter(one)
    with pytest.raises(LimitReached, match="1 requests under way at the same time") as caught:
        enter(one)
    assert (caught.value.limit, caught.value.retry_after_s) == ("in_flight", 1)
    first.leave(0, NOW)
    enter(one)


def test_tokens_are_reserved_and_then_corrected_by_what_was_used() -> None:
    one = tenant(tokens=100)
    first = enter(one)
    first.reserve(60, NOW)
    second = enter(one)
    with pytest.raises(LimitReached) as caught:
        second.reserve(50, NOW)
    assert caught.value.type == "tokens"
    assert caught.value.message == (
        "team-a has used 60 of 100 tokens per minute, and this prompt has about 50; try again in 1m1s"
    )
    first.leave(20, NOW + 1)
    third = enter(one)
    third.reserve(50, NOW + 1)
    assert third.headers(NOW + 1) == {
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "30",
        "x-ratelimit-reset-tokens": "1m1s",
    }
    # 240 in all: what the first minute has no room for is paid in the next two.
    third.leave(220, NOW + 2)
    for later in (NOW + 3, NOW + 62, NOW + 100):
        with pytest.raises(LimitReached):
            enter(one, later).reserve(1, later)
    enter(one, NOW + 190).reserve(1, NOW + 190)


def test_a_prompt_that_is_larger_than_the_limit_is_not_told_to_try_again() -> None:
    one = tenant(tokens=100)
    with pytest.raises(LimitReached) as caught:
        enter(one).reserve(101, NOW)
    assert caught.value.headers["x-should-retry"] == "false"
    assert caught.value.retry_after_s is None
    assert "this prompt has about 101: it will never fit" in caught.value.message


def test_what_is_refused_for_its_tokens_is_no_request_and_holds_no_place() -> None:
    one = tenant(requests=10, tokens=10, in_flight=1)
    with pytest.raises(LimitReached):
        enter(one).reserve(11, NOW)
    entry = enter(one)
    assert entry.headers(NOW)["x-ratelimit-remaining-requests"] == "9"


def test_a_request_is_held_to_a_share_when_gateways_lose_each_other() -> None:
    one = tenant(requests=10, tokens=90, in_flight=4)
    share = one.limits.share(3)
    assert share == Limits(3, 30, 1)
    entries = [enter(one) for _ in range(3)]
    for entry in entries:
        entry.reserve(10, NOW)
    for wrong in entries[:2]:
        with pytest.raises(LimitReached, match="1 requests under way"):
            wrong.hold_to(share, NOW)
    entries[2].hold_to(share, NOW)
    assert Limits(2, 0, 1).share(5) == Limits(1, 0, 1)
    assert one.limits.share(1) is one.limits


def test_what_others_know_better_is_what_a_client_is_told() -> None:
    one = tenant(requests=10, tokens=100)
    entry = enter(one)
    entry.standings = Standing(9, 0.0, 12.0), Standing(100, 3.25, 7.5)
    assert entry.headers(NOW)["x-ratelimit-remaining-requests"] == "1"
    error = entry.refuse(3, NOW, 20)
    assert error.message.endswith(
        "used 100 of 100 tokens per minute, and this prompt has about 20; try again in 3.25s"
    )


@pytest.mark.parametrize(
    ("outcome", "tokens"),
    [
        (Outcome(prompt_tokens=30, completion_tokens=70, result="ok", attempts=1), 100),
        (Outcome(prompt_tokens=30, result="ok", attempts=1), 30),
        (Outcome(prompt_tokens=0, completion_tokens=0, result="ok", attempts=1), 0),
        (Outcome(result="ok", attempts=1, chunks=40), 52),
        (Outcome(result="broken", attempts=1, chunks=5), 17),
        (Outcome(result="client_gone", attempts=1), 12),
        (Outcome(result="client_gone", attempts=0), 0),
        (Outcome(result="error", attempts=3), 0),
    ],
)
def test_tokens_are_what_the_server_told_else_what_can_be_seen(outcome: Outcome, tokens: int) -> None:
    assert used_tokens(12, outcome) == tokens


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.0201, "21ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9991, "1m0s"),
        (61, "1m1s"),
        (3600.2, "60m1s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_tier_that_a_key_is_not_good_for_is_replaced_by_the_next_smaller_one() -> None:
    assert tenant(tiers=("fast", "balanced")).nearest_tier("deep") == "balanced"
    assert tenant(tiers=("deep", "fast")).nearest_tier("balanced") == "fast"
    assert tenant(tiers=("deep",)).nearest_tier("fast") == "deep"
    assert tenant().nearest_tier("balanced") == "balanced"
