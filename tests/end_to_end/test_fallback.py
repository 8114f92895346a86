"""A tier that has no endpoint able to answer has others stand in for it, where the config says so."""

from typing import Any

import pytest

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config
from tests.end_to_end.processes import until
from tests.end_to_end.wire_client import Reply, ask, chat, converse, fetch

TO_BALANCED = {"fast": {"fallback": ["balanced"]}}
ONCE = {"attempts": 1}


async def counted(port: int, name: str) -> list[str]:
    """The lines of a metric."""
    text = (await fetch(port, "/metrics")).body.decode()
    return [line for line in text.splitlines() if line.startswith(f"{name}{{")]


def told(reply: Reply) -> tuple[str, str, str]:
    return tuple(reply.headers[f"x-octoroute-{name}"] for name in ("tier", "endpoint", "reason"))  # type: ignore[return-value]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_tier_answers_where_all_that_were_tried_failed_and_the_answer_says_so(
    serve: StartServer, gateway: StartGateway, stream: bool
) -> None:
    failing = [await serve("vllm", "failing", fault="status-500") for _ in range(2)]
    other = await serve("vllm", "other")
    one = await gateway(fleet_config(failing, [other], tiers=TO_BALANCED))
    reply = await converse(one.port, stream=stream)
    assert (reply.status, reply.json_model()) == (200, "other")
    assert told(reply) == ("balanced", "other", "named;fallback:fast")
    assert await counted(one.port, "octoroute_fallbacks_total") == [
        'octoroute_fallbacks_total{tier="fast",to="balanced"} 1.0'
    ]
    # What failed counts for the tier that it failed in.
    assert sorted(await counted(one.port, "octoroute_upstream_requests_total")) == [
        'octoroute_upstream_requests_total{endpoint="failing",outcome="status_500",tier="fast"} 2.0',
        'octoroute_upstream_requests_total{endpoint="other",outcome="ok",tier="balanced"} 1.0',
    ]
    await until(lambda: "why=named;fallback:fast endpoint=other attempts=3 status=200" in one.log)


async def test_a_tier_without_a_healthy_endpoint_falls_back_at_once(
    serve: StartServer, gateway: StartGateway
) -> None:
    drained, other = await serve("vllm", "drained"), await serve("vllm", "other")
    one = await gateway(fleet_config([drained], [other], tiers=TO_BALANCED))
    await ask(one.port, "/admin/endpoints/fast/drained/drain")
    assert told(await converse(one.port)) == ("balanced", "other", "named;fallback:fast")
    assert not drained.completions
    # With the way of octoroute 1.0 too.
    reply = await ask(one.port, "/chat", {"message": "hello", "task_type": "casual_chat"})
    assert (reply.json["model_tier"], reply.json["model_name"]) == ("balanced", "other")


async def test_tiers_are_tried_in_order_and_the_first_error_is_told_where_none_answers(
    serve: StartServer, gateway: StartGateway
) -> None:
    servers = [[await serve("vllm", name, fault="status-500")] for name in ("one", "two", "three")]
    config = fleet_config(*servers, tiers={"fast": {"fallback": ["deep", "balanced"]}}, retry=ONCE)
    one = await gateway(config)
    reply = await converse(one.port)
    assert (reply.status, reply.error["code"]) == (502, "upstream_failed")
    assert "the server answered 500" in reply.error["message"]
    await until(lambda: "why=named;fallback:fast,deep endpoint=two attempts=3 status=502" in one.log)


async def test_a_stream_that_its_client_hears_nothing_of_for_long_may_still_fall_back(
    serve: StartServer, gateway: StartGateway
) -> None:
    silent, other = await serve("vllm", "silent", fault="stall-after-head"), await serve("vllm", "other")
    timeouts = {"fast": 1.0}
    one = await gateway(fleet_config([silent], [other], tiers=TO_BALANCED, timeouts=timeouts, retry=ONCE))
    reply = await converse(one.port, stream=True)
    assert (reply.json_model(), reply.events[-1]) == ("other", "[DONE]")
    # The head was out before, so only the log can tell.
    await until(lambda: "tier=balanced why=named;fallback:fast endpoint=other" in one.log)


NOT_FALLEN_BACK: list[tuple[str, dict[str, Any], int]] = [
    ("/v1/chat/completions", chat(model="failing"), 502),  # it names an endpoint
    ("/v1/embeddings", {"model": "fast", "input": "a"}, 502),  # vectors of another model are no answer
    ("/tokenize", {"model": "fast", "content": "a"}, 502),
    ("/v1/chat/completions", chat(model="deep"), 502),  # no fallback for this tier
]


async def test_what_only_the_tier_itself_can_answer_does_not_fall_back(
    serve: StartServer, gateway: StartGateway
) -> None:
    other = await serve("vllm", "other")
    failing = await serve("vllm", "failing", fault="status-500")
    deep = await serve("vllm", "deep-one", fault="status-500")
    one = await gateway(fleet_config([failing], [other], [deep], tiers=TO_BALANCED, retry=ONCE))
    for path, fields, status in NOT_FALLEN_BACK:
        assert (await ask(one.port, path, fields)).status == status
    assert not other.completions


async def test_a_refusal_and_a_full_tier_are_answers_of_the_tier(
    serve: StartServer, gateway: StartGateway
) -> None:
    other = await serve("vllm", "other")
    busy = await serve("vllm", "busy", fault="status-429")
    one = await gateway(fleet_config([busy], [other], tiers=TO_BALANCED, retry=ONCE))
    assert (await converse(one.port)).status == 429
    assert not other.completions
