"""Why: told before a request is sent, and in the headers of its answer, or not there."""

import pytest

from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import fleet_config
from tests.end_to_end.test_observability import scrape
from tests.end_to_end.wire_client import WireClient, ask

CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}


async def test_a_request_is_explained_and_not_sent(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm", "qwen3-8b")
    one = await gateway(fleet_config([server], health={"failures": 1}))
    reply = await ask(one.port, "/admin/explain", CHAT)
    assert (reply.status, reply.json["tier"], reply.json["reason"]) == (200, "fast", "rule:casual_chat")
    [candidate] = reply.json["candidates"]
    assert (candidate["name"], candidate["healthy"], candidate["probability"]) == ("qwen3-8b", True, 1.0)
    async with WireClient(one.port) as client:
        client.post(
            "/admin/explain",
            CHAT,
            headers={"X-Octoroute-Importance": "high", "X-Octoroute-Task-Type": "code"},
        )
        reply = await client.reply()
    assert reply.json["reason"] == "rule:high_importance"
    assert not server.completions
    assert (await scrape(one.port))["octoroute_requests_total{strategy=rule,tier=fast}"] == 0
    refused = await ask(one.port, "/admin/explain", CHAT | {"model": "nothing"})
    assert (refused.status, refused.json["error"]["type"]) == (400, "invalid_request_error")
    assert (await ask(one.port, "/admin/explain", CHAT | {"top_p": 0})).status == 400


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat"])
async def test_the_why_headers_can_be_turned_off_but_warnings_stay(
    serve: StartServer, gateway: StartGateway, path: str, on: bool
) -> None:
    server = await serve("vllm", "qwen3-8b")
    one = await gateway(fleet_config([server], server={"why_headers": on}))
    fields = {"message": "hello", "task_type": "casual_chat"} if path == "/chat" else CHAT | {"model": "fast"}
    async with WireClient(one.port) as client:
        client.post(path, fields, headers={"X-Octoroute-Importance": "low"})
        reply = await client.reply()
    assert reply.status == 200
    told = {name for name in reply.headers if name.startswith("x-octoroute-")}
    why = {
        f"x-octoroute-{name}"
        for name in ("tier", "endpoint", "strategy", "reason", "attempts", "overhead-ms")
    }
    warning = {"x-octoroute-warning"} if path != "/chat" else set()
    assert told == (why if on else set()) | warning
    assert "x-request-id" in reply.headers
