"""Policies through a group: what holds for every policy, and what each goes by."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any, get_args

import pytest

from octoroute.balance.breaker import record_failure
from octoroute.balance.endpoint import Endpoint, EndpointSpec, FleetState, claim_endpoints
from octoroute.balance.group import Group, PrefixIndex
from octoroute.balance.policies import POLICIES
from octoroute.config.describe import kind_of
from octoroute.config.schema import TierRules
from octoroute.exchange import RequestView

SPEC = EndpointSpec("fast", "m", "http://h/v1")
SYSTEM = "You are helpful, honest and brief. " * 100


def a_group(
    policy: str, count: int = 4, *changes: dict[str, Any], prefixes: PrefixIndex | None = None
) -> Group:
    """`changes` are those of the first endpoints."""
    specs = [replace(SPEC, name=f"m{at}", base_url=f"http://gpu-{at}:8080/v1") for at in range(count)]
    specs = [replace(each, **(changes[at] if at < len(changes) else {})) for at, each in enumerate(specs)]
    state = FleetState(slots=64, workers=2)
    return Group("fast", claim_endpoints(specs, state), state, 1, policy=policy, prefixes=prefixes)


def asked(*contents: str, session: str | None = None, tenant: str = "", **fields: Any) -> RequestView:
    roles = ("system", *("user", "assistant") * len(contents))
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    whole = {"model": "fast", "messages": messages, **fields}
    return RequestView(
        "r-1",
        "/v1/chat/completions",
        json.dumps(whole).encode(),
        whole,
        "fast",
        stream=False,
        tenant=tenant,
        session=session,
    )


def sent(group: Group, view: RequestView, tried: tuple[Endpoint, ...] = ()) -> int | None:
    """Which endpoint gets it; it is answered at once."""
    lease = group.pick(tried, group.facts(view))
    if lease is None:
        return None
    lease.release()
    return group.endpoints.index(lease.endpoint)


def conversation(number: int) -> RequestView:
    return asked(SYSTEM, f"question {number}", user=f"user-{number}")


# What holds for every policy


def test_the_config_knows_the_policies_that_there_are() -> None:
    assert get_args(kind_of(TierRules.model_fields["policy"]).type) == tuple(POLICIES)


@pytest.mark.parametrize("policy", POLICIES)
class TestEveryPolicy:
    def test_spreads_what_is_new_over_all(self, policy: str) -> None:
        group = a_group(policy)
        counts: Counter[int | None] = Counter()
        for at in range(200):
            lease = group.pick((), group.facts(asked(f"system {at}", f"question {at}", user=f"user {at}")))
            assert lease is not None
            counts[group.endpoints.index(lease.endpoint)] += 1
            # A fifth of them stays, so that loads are real.
            if at % 5:
                lease.release()
            else:
                group.endpoints[0].state.acquire(lease.endpoint.slot)
        assert set(counts) == {0, 1, 2, 3}

    def test_passes_over_what_is_sick_draining_asleep_or_tried(self, policy: str) -> None:
        group = a_group(policy, 5)
        sick, draining, asleep, tried, left = group.endpoints
        record_failure(sick, 1)
        draining.drain()
        asleep.state.set_asleep(asleep.slot, True)
        assert {sent(group, conversation(at), (tried,)) for at in range(30)} == {4}
        assert sent(group, conversation(1), (tried, left)) is None
        asleep.state.set_asleep(asleep.slot, False)
        assert 2 in {sent(group, conversation(at), (tried,)) for at in range(60)}

    def test_takes_backups_only_where_no_primary_is_left(self, policy: str) -> None:
        group = a_group(policy, 4, {"priority": 3}, {"priority": 3, "max_in_flight": 1})
        held = []
        assert {sent(group, conversation(at)) for at in range(40)} == {0, 1}
        for endpoint in group.endpoints[:2]:
            record_failure(endpoint, 1) if endpoint.capacity == 0 else held.append(
                group.pick((group.endpoints[0],))
            )
        assert {sent(group, conversation(at)) for at in range(60)} == {2, 3}
        held.clear()
        assert {sent(group, conversation(at)) for at in range(20)} == {1}

    def test_gives_up_when_all_are_full(self, policy: str) -> None:
        group = a_group(policy, 2, {"max_in_flight": 1}, {"max_in_flight": 1})
        leases = [group.pick((), group.facts(conversation(1))) for _ in range(3)]
        assert [lease is None for lease in leases] == [False, False, True]
        assert group.vacancy() == "full"

    def test_needs_nothing_of_the_request_for_a_group_of_one(self, policy: str) -> None:
        group = a_group(policy, 1)
        assert group.facts(conversation(1)) is None
        assert sent(group, conversation(1)) == 0


# By load


def test_the_least_loaded_of_two_gets_every_request() -> None:
    group = a_group("least_loaded", 2)
    held = [group.pick() for _ in range(40)]
    assert [endpoint.in_flight for endpoint in group.endpoints] == [20, 20]
    assert None not in held


def test_a_server_with_two_names_has_what_was_sent_to_either() -> None:
    group = a_group("least_loaded", 3, {"base_url": "http://gpu-2:8080/v1"})
    held = [group.pick() for _ in range(40)]
    counts = [endpoint.in_flight for endpoint in group.endpoints]
    assert counts[1] == pytest.approx(counts[0] + counts[2], abs=2)
    assert None not in held


def test_the_least_loaded_are_chosen_by_load_for_their_weight() -> None:
    group = a_group("least_loaded", 2, {"weight": 3.0})
    held = [group.pick() for _ in range(40)]
    assert [endpoint.in_flight for endpoint in group.endpoints] == pytest.approx([30, 10], abs=1)
    assert None not in held


def test_what_a_server_says_of_its_load_counts_as_long_as_it_is_fresh() -> None:
    group = a_group("least_loaded", 2)
    first = group.endpoints[0]
    first.state.note_load(first.slot, 5, 3, 0.9, 1000.0)
    assert group.refresh(1001.0) is False
    assert {sent(group, conversation(at)) for at in range(20)} == {1}
    group.refresh(1000.0 + group.trust_s + 0.1)
    assert {sent(group, conversation(at)) for at in range(40)} == {0, 1}


# By prefix


def test_a_conversation_stays_where_it_is() -> None:
    group = a_group("prefix_affinity")
    turns = [SYSTEM, "first question"]
    places = set()
    for at in range(6):
        places.add(sent(group, asked(*turns)))
        turns += [f"answer {at}", f"question {at}"]
    assert len(places) == 1
    assert group.take_tally()["ring"] == 1


def test_two_workers_agree_on_a_conversation_of_which_they_have_told_each_other_nothing() -> None:
    one, other = a_group("prefix_affinity"), a_group("prefix_affinity")
    for at in range(20):
        first = sent(one, asked(SYSTEM, f"question {at}"))
        assert sent(other, asked(SYSTEM, f"question {at}", "answer", "next")) == first


def test_questions_about_one_document_go_to_where_it_was_read() -> None:
    group = a_group("prefix_affinity")
    document = "A long document. " * 200
    assert len({sent(group, asked("system", f"{document} Question {at}?")) for at in range(30)}) == 1


def test_what_one_group_learns_another_one_with_the_same_table_knows() -> None:
    table = PrefixIndex()
    one = a_group("prefix_affinity", prefixes=table)
    state = one.endpoints[0].state
    other = Group("fast", one.endpoints, state, 2, policy="prefix_affinity", prefixes=table)
    place = sent(one, asked(SYSTEM, "question"), (one.endpoints[0], one.endpoints[1]))
    assert sent(other, asked(SYSTEM, "question", "answer", "another")) == place


def test_a_conversation_goes_on_where_it_had_to_go_when_its_server_was_away() -> None:
    group = a_group("prefix_affinity")
    turns = [SYSTEM, "question"]
    before = sent(group, asked(*turns))
    assert before is not None
    group.endpoints[before].drain()
    turns += ["answer", "another"]
    after = sent(group, asked(*turns))
    group.endpoints[before].drain(False)
    assert after != before
    assert sent(group, asked(*turns, "answer", "a third")) == after


def test_a_request_without_a_prompt_goes_to_the_least_loaded() -> None:
    group = a_group("prefix_affinity", 2)
    view = replace(asked("x"), body=b'{"model": "fast"}', fields={"model": "fast"})
    assert group.facts(view) is None
    held = [group.pick((), None) for _ in range(10)]
    assert [endpoint.in_flight for endpoint in group.endpoints] == [5, 5]
    assert None not in held


# By session


def test_a_session_is_named_by_header_cache_key_or_user_in_this_order() -> None:
    group = a_group("session_affinity")
    named = asked("x", prompt_cache_key="k", user="u", session="s 1")
    assert group.facts(named) == group.facts(asked("y", session="s 1"))
    assert group.facts(asked("x", session="", user="u")) == group.facts(asked("x", user="u"))
    assert group.facts(asked("x", prompt_cache_key="k", user="u")) == group.facts(asked("y", user="k"))
    assert group.facts(asked("x", user="u")) != group.facts(asked("x", user="v"))
    for nobody in (asked("x"), asked("x", user=None), asked("x", user=7), asked("x", user="")):
        assert group.facts(nobody) is None
    assert group.facts(asked("x", user="\ud800")) is not None


def test_the_same_user_of_two_tenants_is_two_sessions() -> None:
    group = a_group("session_affinity")
    assert group.facts(asked("x", user="u", tenant="a")) != group.facts(asked("x", user="u", tenant="b"))


def test_a_session_moves_when_its_server_is_gone_and_only_then() -> None:
    group = a_group("session_affinity")
    sessions = [asked("x", user=f"user {at}") for at in range(40)]
    before = [sent(group, session) for session in sessions]
    group.endpoints[0].drain()
    away = [sent(group, session) for session in sessions]
    group.endpoints[0].drain(False)
    assert [sent(group, session) for session in sessions] == away
    assert all(then == now for then, now in zip(before, away, strict=True) if then != 0)
    assert 0 in before
    assert 0 not in away


def test_a_session_moves_when_its_server_is_over_its_bound() -> None:
    group = a_group("session_affinity")
    session = asked("x", user="u")
    places: Counter[int | None] = Counter()
    held = []
    for _ in range(40):
        held.append(group.pick((), group.facts(session)))
        places[held[-1] and group.endpoints.index(held[-1].endpoint)] += 1
    assert max(places.values()) <= 13  # 1.25 times the average of 10, rounded up
    tally = group.take_tally()
    assert tally["least_loaded"] >= 3
    assert sum(tally.values()) == 40


# For nothing


def test_by_weight_nothing_of_a_request_is_looked_at() -> None:
    for policy in ("weighted", "least_loaded"):
        assert a_group(policy).facts(None) is None  # type: ignore[arg-type]
