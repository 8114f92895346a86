"""What clients of octoroute 1.0 use beside OpenAI's API: POST /chat and GET /models."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, Request, SimulatedServer, Step
from octoroute.demo.answers import prompt_of_messages
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, endpoint, fleet_config
from tests.end_to_end.processes import probed
from tests.end_to_end.wire_client import Reply, WireClient, ask

HELLO = prompt_of_messages([{"role": "user", "content": "hello"}])


@dataclass
class Fleet:
    servers: dict[str, SimulatedServer]
    gateway: Gateway

    async def chat(self, message: str = "hello", **more: Any) -> Reply:
        return await ask(self.gateway.port, "/chat", {"message": message, **more})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    servers = {
        "fast": await serve_module("llama_cpp", "small", seed=1, wide=True),
        "balanced": await serve_module("vllm", "medium", seed=2),
        "deep": await serve_module("vllm", "large", seed=3),
    }
    fast, balanced, deep = servers.values()
    config = fleet_config(
        [endpoint(fast, temperature=0.25, max_tokens=77)],
        [endpoint(balanced, priority=3)],
        [deep],
        health={"failures": 1000},
        server={"max_body_bytes": 2_000_000},
        recovery={"cancel_plain": False},
    )
    return Fleet(servers, await gateway_module(config))


@pytest.mark.parametrize(
    ("more", "tier"),
    [
        ({"task_type": "casual_chat"}, "fast"),
        ({"task_type": "casual_chat", "importance": "high"}, "balanced"),
        ({"task_type": "code"}, "balanced"),
        ({"importance": "high"}, "deep"),
        ({"task_type": "deep_analysis", "importance": "low"}, "deep"),
        ({"task_type": "creative_writing"}, "deep"),
        # No rule matches a short question, whatever words are in it: the default tier.
        ({}, "balanced"),
        ({"importance": None, "task_type": None}, "balanced"),
    ],
    ids=str,
)
async def test_a_message_is_answered_by_the_tier_that_the_rules_say(
    fleet: Fleet, more: dict[str, Any], tier: str
) -> None:
    server = fleet.servers[tier]
    reply = await fleet.chat(**more)
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "content": server.text(HELLO),
        "model_tier": tier,
        "model_name": server.model,
        "routing_strategy": "rule",
    }
    assert reply.headers["x-octoroute-tier"] == tier
    assert reply.headers["x-octoroute-endpoint"] == server.model


async def test_the_model_is_asked_one_question_with_the_tiers_defaults(fleet: Fleet) -> None:
    await fleet.chat("hello", task_type="casual_chat")
    request = fleet.servers["fast"].completions[-1]
    assert request.target == "/v1/chat/completions"
    assert request.json == {
        "model": "small",
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.25,
        "max_tokens": 77,
    }


async def test_the_headers_override_the_body(fleet: Fleet) -> None:
    async with WireClient(fleet.gateway.port) as client:
        client.post(
            "/chat",
            {"message": "hello", "task_type": "code"},
            headers={"x-octoroute-task-type": "casual_chat", "x-octoroute-importance": "low"},
        )
        assert (await client.reply()).json["model_tier"] == "fast"


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({}, "message", ["missing"]),
        ({"message": ""}, "message", ["blank"]),
        ({"message": " \n\t"}, "message", ["blank"]),
        ({"message": 7}, "message", ["string"]),
        ({"message": "x" * 100_001}, "message", ["100000"]),
        ({"message": "a", "importance": "urgent"}, "importance", ["low", "normal", "high"]),
        ({"message": "a", "task_type": "poetry"}, "task_type", ["casual_chat", "code", "deep_analysis"]),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_what_is_wrong_with_a_message_is_said(
    fleet: Fleet, fields: dict[str, Any], param: str, words: list[str]
) -> None:
    reply = await ask(fleet.gateway.port, "/chat", fields)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert all(word in reply.error["message"] for word in words)


async def test_a_message_of_the_greatest_length_is_answered(fleet: Fleet) -> None:
    assert (await fleet.chat("\u00e9" * 100_000)).status == 200


async def test_what_is_no_json_is_refused(fleet: Fleet) -> None:
    for body, headers, status in (
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b" " * 2_000_001, {}, 413),
    ):
        async with WireClient(fleet.gateway.port) as client:
            client.post("/chat", body=body, headers=headers)
            reply = await client.reply()
        assert (reply.status, reply.error["type"]) == (status, "invalid_request_error")


def completion(content: str, finish_reason: str = "stop", padding: int = 0) -> bytes:
    choice = {"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}
    return orjson.dumps({"choices": [choice], "padding": "x" * padding})


def head(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d Any\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (
        status,
        len(body),
    )


async def scripted(fleet: Fleet, *steps: Step) -> Reply:
    """The answer to a message while the balanced server answers with these steps."""
    server = fleet.servers["balanced"]

    def play(_: Request) -> Iterator[Step]:
        yield from steps

    server.script(play)
    try:
        return await fleet.chat()
    finally:
        server.script(None)


async def test_an_answer_that_was_cut_off_carries_a_warning(fleet: Fleet) -> None:
    body = completion("half", "length")
    reply = await scripted(fleet, head(body), body)
    assert reply.json["content"] == "half"
    assert [("max_tokens" in one) for one in reply.json["warnings"]] == [True]


async def test_an_answer_too_large_to_be_held_back_is_whole(fleet: Fleet) -> None:
    body = completion("\u00e9" * 300_000)
    reply = await scripted(fleet, head(body), body[:70_000], body[70_000:200_000], body[200_000:])
    assert reply.json["content"] == "\u00e9" * 300_000


async def test_a_large_answer_that_breaks_off_is_an_error_and_no_half(fleet: Fleet) -> None:
    body = completion("a" * 200_000)
    reply = await scripted(fleet, head(body), body[:150_000], CLOSE)
    assert (reply.status, reply.error["code"]) == (502, "stream_interrupted")
    assert reply.headers["x-request-id"] in reply.error["message"]


@pytest.mark.parametrize("body", [b"{}", b"hello", b'{"choices":[]}'])
async def test_an_answer_that_makes_no_sense_is_the_servers_failure(fleet: Fleet, body: bytes) -> None:
    reply = await scripted(fleet, head(body), body)
    assert (reply.status, reply.error["code"]) == (502, "upstream_failed")


async def test_a_refusal_of_the_server_comes_as_it_was_said(fleet: Fleet) -> None:
    body = b'{"error":{"code":400,"message":"too long","type":"exceed_context_size_error"}}'
    reply = await scripted(fleet, head(body, 400), body)
    assert (reply.status, reply.body) == (400, body)
    assert reply.headers["x-octoroute-tier"] == "balanced"


async def test_another_server_answers_where_one_fails(serve: StartServer, gateway: StartGateway) -> None:
    bad = await serve(model="bad", fault="reset-before-head")
    good = await serve(model="good")
    hour = {"interval_seconds": 3600.0, "unhealthy_interval_seconds": 3600.0}
    one = await gateway(fleet_config([endpoint(bad, priority=2), good], health=hour))
    await probed(one, "bad")
    for _ in range(4):
        reply = await ask(one.port, "/chat", {"message": "hello", "task_type": "casual_chat"})
        assert (reply.status, reply.json["model_name"]) == (200, "good")
    listed = await models(one)
    assert [(entry["name"], entry["healthy"]) for entry in listed[:2]] == [("bad", False), ("good", True)]
    assert listed[0]["consecutive_failures"] >= 3


async def test_when_nobody_answers_it_is_an_error_with_the_request_id(
    serve: StartServer, gateway: StartGateway
) -> None:
    only = await serve(fault="refuse")
    one = await gateway(fleet_config([only]))
    reply = await ask(one.port, "/chat", {"message": "hello", "task_type": "casual_chat"})
    assert (reply.status, reply.error["type"]) == (502, "api_error")
    assert reply.headers["x-request-id"] in reply.error["message"]
    assert f":{only.port}" not in reply.error["message"]


async def test_a_client_that_leaves_ends_the_servers_work(fleet: Fleet) -> None:
    server = fleet.servers["deep"]
    server.engine.tokens_per_second = 10
    before = len(server.completions)
    try:
        async with WireClient(fleet.gateway.port) as client:
            client.post("/chat", {"message": "hello", "task_type": "deep_analysis"})
            await server.wait_for(lambda: len(server.completions) > before)
        await server.wait_for(lambda: server.completions[-1].left_at is not None)
    finally:
        server.engine.tokens_per_second = 1e6


async def test_a_message_counts_like_any_other_request(fleet: Fleet) -> None:
    async def counted() -> float:
        async with WireClient(fleet.gateway.port) as client:
            client.get("/metrics")
            lines = (await client.reply()).body.decode().splitlines()
        name = 'octoroute_model_invocations_total{tier="fast"} '
        return float(next((line.removeprefix(name) for line in lines if line.startswith(name)), 0))

    before = await counted()
    await fleet.chat(task_type="casual_chat")
    assert await counted() == before + 1


async def models(one: Gateway) -> list[dict[str, Any]]:
    async with WireClient(one.port) as client:
        client.get("/models")
        reply = await client.reply()
    assert reply.status == 200
    return list(reply.json["models"])


async def test_the_list_of_models_tells_health_and_no_address(
    serve: StartServer, gateway: StartGateway
) -> None:
    first, second = await serve(model="same"), await serve(model="same")
    one = await gateway(fleet_config([first, second]))
    await first.wait_for(lambda: bool(first.requests))
    listed = await models(one)
    assert [(entry["name"], entry["tier"], entry["endpoint"]) for entry in listed] == [
        ("same", "fast", "same"),
        ("same", "fast", "same#2"),
        ("nobody-balanced", "balanced", "nobody-balanced"),
        ("nobody-deep", "deep", "nobody-deep"),
    ]
    for entry in listed:
        assert set(entry) == {
            "name",
            "tier",
            "endpoint",
            "healthy",
            "last_check_seconds_ago",
            "consecutive_failures",
        }
        assert isinstance(entry["last_check_seconds_ago"], int)
        assert 0 <= entry["last_check_seconds_ago"] < 30
    assert b"127.0.0.1" not in orjson.dumps(listed)


async def test_a_server_that_was_never_checked_is_listed_too(
    serve: StartServer, gateway: StartGateway
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connects, and is never heard of
        port = silent.getsockname()[1]
        unseen = endpoint(await serve(), base_url=f"http://127.0.0.1:{port}/v1")
        listed = await models(await gateway(fleet_config([unseen])))
    assert listed[0]["last_check_seconds_ago"] in range(30)
