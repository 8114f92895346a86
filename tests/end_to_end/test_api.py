"""Every route that a model server answers, and what the gateway itself tells of models and health."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, Request, SimulatedServer, Step
from octoroute.demo.wire import LAST_CHUNK, chunk
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, fleet_config
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat

PASSED_ON = [
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/rerank",
    "/v1/messages",
    "/tokenize",
    "/detokenize",
]
GETS = ["/health", "/metrics", "/models", "/v1/models", "/v1/models/auto"]
TEXT: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "hello"},
    "/v1/embeddings": {"input": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/rerank": {"query": "hello", "documents": ["a"]},
    "/v1/messages": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9},
    "/tokenize": {"content": "hello"},
    "/detokenize": {"tokens": [1, 2, 3]},
}


@dataclass
class Fleet:
    small: SimulatedServer
    medium: SimulatedServer
    large: SimulatedServer
    gateway: Gateway

    async def get(self, path: str, method: str = "GET") -> Reply:
        async with WireClient(self.gateway.port) as client:
            client.get(path, method)
            return await client.reply()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fleet(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    small = await serve_module("llama_cpp", "small")
    medium = await serve_module("llama_cpp", "org/medium")
    large = await serve_module("llama_cpp", "large")
    config = fleet_config(
        [small],
        [medium],
        [large],
        routing={"aliases": {"gpt-4o": "deep"}},
        health={"failures": 1000},
    )
    return Fleet(small, medium, large, await gateway_module(config))


def answer_with(status: int, kind: str, body: bytes, *, chunked: bool = False) -> Any:
    """A script: this answer to any request."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"HTTP/1.1 {status} Any\r\nContent-Type: {kind}\r\n{length}\r\n\r\n".encode()

    def play(_: Request) -> Iterator[Step]:
        yield head
        if chunked:
            for event in body.split(b"\n\n")[:-1]:
                yield chunk(event + b"\n\n")
            yield LAST_CHUNK
        else:
            yield body

    return play


@pytest.mark.parametrize("path", PASSED_ON)
@pytest.mark.parametrize(
    ("model", "tier"), [("fast", "fast"), ("gpt-4o", "deep"), ("auto", None), ("org/medium", "balanced")]
)
async def test_a_request_reaches_the_servers_own_route_as_it_was_written(
    fleet: Fleet, path: str, model: str, tier: str | None
) -> None:
    fields = {"model": model, "unknown": {"a": [1.0, None]}, **TEXT[path]}
    servers = {"fast": fleet.small, "balanced": fleet.medium, "deep": fleet.large}
    for server in servers.values():
        server.script(answer_with(200, "application/json", b'{"answer": 1}'))
    try:
        reply = await ask(fleet.gateway.port, path, fields)
    finally:
        for server in servers.values():
            server.script(None)
    assert (reply.status, reply.body) == (200, b'{"answer": 1}')
    tier = tier or reply.headers["x-octoroute-tier"]
    assert reply.headers["x-octoroute-tier"] == tier
    request = servers[tier].completions[-1]
    assert (request.method, request.target) == ("POST", path)
    sent = request.json
    assert sent.pop("model") == servers[tier].model
    assert sent.items() >= {key: value for key, value in fields.items() if key != "model"}.items()
    extra = set(sent) - set(fields)
    assert extra == ({"max_tokens", "temperature"} if path == "/v1/completions" else set())


@pytest.mark.parametrize("path", PASSED_ON)
async def test_a_route_that_the_server_lacks_is_its_own_404(fleet: Fleet, path: str) -> None:
    body = b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}'
    fleet.small.script(answer_with(404, "application/json", body))
    before = len(fleet.small.completions)
    try:
        reply = await ask(fleet.gateway.port, path, {"model": "fast", **TEXT[path]})
    finally:
        fleet.small.script(None)
    assert (reply.status, reply.body) == (404, body)
    assert len(fleet.small.completions) == before + 1


@pytest.mark.parametrize("path", PASSED_ON)
async def test_another_server_answers_where_one_fails(
    serve: StartServer, gateway: StartGateway, path: str
) -> None:
    bad, good = await serve(model="same", fault="refuse"), await serve(model="same")
    good.script(answer_with(200, "application/json", b"{}"))
    port = (await gateway(fleet_config([bad, good]))).port
    for _ in range(4):
        assert (await ask(port, path, {"model": "fast", **TEXT[path]})).status == 200
    assert len(good.completions) == 4


async def test_a_completion_and_an_embedding_come_back_whole(fleet: Fleet) -> None:
    reply = await ask(fleet.gateway.port, "/v1/completions", {"model": "fast", "prompt": "hello"})
    assert reply.json["choices"][0]["text"] == fleet.small.text("hello")
    reply = await ask(fleet.gateway.port, "/v1/embeddings", {"model": "deep", "input": ["a", "b"]})
    assert [one["index"] for one in reply.json["data"]] == [0, 1]


@pytest.mark.parametrize("prompt", [None, 7, {}])
async def test_a_completion_without_a_prompt_is_refused(fleet: Fleet, prompt: Any) -> None:
    reply = await ask(fleet.gateway.port, "/v1/completions", {"model": "fast", "prompt": prompt})
    assert (reply.status, reply.error["param"]) == (400, "prompt")


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
async def test_tokens_may_be_asked_for_without_a_model(fleet: Fleet, path: str) -> None:
    fleet.small.script(answer_with(200, "application/json", b"{}"))
    try:
        reply = await ask(fleet.gateway.port, path, TEXT[path])
    finally:
        fleet.small.script(None)
    assert (reply.status, reply.headers["x-octoroute-reason"]) == (200, "default")
    assert fleet.small.completions[-1].json == TEXT[path]


async def test_a_model_is_missing_elsewhere(fleet: Fleet) -> None:
    reply = await ask(fleet.gateway.port, "/v1/embeddings", {"input": "a"})
    assert (reply.status, reply.error["param"]) == (400, "model")


NAMED_EVENTS = b"".join(
    b'event: %b\ndata: {"type":"%b","at":%d}\n\n' % (name, name, at)
    for at, name in enumerate((b"response.created", b"response.output_text.delta", b"response.completed"))
)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_a_stream_of_named_events_without_done_passes_untouched(fleet: Fleet, path: str) -> None:
    fleet.small.script(answer_with(200, "text/event-stream", NAMED_EVENTS, chunked=True))
    try:
        reply = await ask(fleet.gateway.port, path, {"model": "fast", "stream": True, **TEXT[path]})
    finally:
        fleet.small.script(None)
    assert (reply.status, reply.ended, reply.body) == (200, True, NAMED_EVENTS)


@pytest.mark.parametrize(
    ("path", "marks"),
    [
        ("/v1/responses", [b'\ndata: {"error":{"message":']),
        ("/v1/messages", [b"\nevent: error\ndata: ", b'"type":"error"', b'"type":"api_error"']),
    ],
)
async def test_a_stream_that_breaks_ends_with_an_error_that_its_clients_know(
    fleet: Fleet, path: str, marks: list[bytes]
) -> None:
    first = NAMED_EVENTS.split(b"\n\n")[0] + b"\n\n"

    def play(_: Request) -> Iterator[Step]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        yield chunk(first)
        yield CLOSE

    fleet.small.script(play)
    try:
        reply = await ask(fleet.gateway.port, path, {"model": "fast", "stream": True, **TEXT[path]})
    finally:
        fleet.small.script(None)
    assert reply.body.startswith(first)
    assert all(mark in reply.body for mark in marks), reply.body
    assert reply.headers["x-request-id"].encode() in reply.body


async def test_errors_of_messages_are_those_of_anthropic(fleet: Fleet) -> None:
    unknown = await ask(fleet.gateway.port, "/v1/messages", {"model": "nobody", **TEXT["/v1/messages"]})
    assert (unknown.status, unknown.json["type"]) == (400, "error")
    assert unknown.json["error"]["type"] == "invalid_request_error"
    assert "available" in unknown.json["error"]["message"].lower()
    wrong = await fleet.get("/v1/messages?beta=true")
    assert (wrong.status, wrong.json["type"]) == (405, "error")


@pytest.mark.parametrize("given", ["x-octoroute-importance: high", "x-octoroute-task-type: code"])
async def test_a_void_override_is_a_warning(fleet: Fleet, given: str) -> None:
    headers = dict([given.split(": ")])
    for model, warned in (("fast", True), ("auto", False)):
        async with WireClient(fleet.gateway.port) as client:
            client.post("/v1/chat/completions", chat(model=model), headers=headers)
            reply = await client.reply()
        assert reply.status == 200
        assert ("ignored" in reply.headers.get("x-octoroute-warning", "")) is warned


@pytest.mark.parametrize(
    ("asked", "answered", "owner"),
    [
        ("auto", "auto", "octoroute"),
        ("Deep", "deep", "octoroute"),
        ("small", "small", "user"),
        ("org/medium", "org/medium", "user"),
        ("org%2Fmedium?a=b", "org/medium", "user"),
        ("gpt-4o", "gpt-4o", "octoroute"),
    ],
)
async def test_one_model(fleet: Fleet, asked: str, answered: str, owner: str) -> None:
    reply = await fleet.get(f"/v1/models/{asked}")
    assert reply.status == 200
    assert reply.json == {"id": answered, "object": "model", "created": 0, "owned_by": owner}


@pytest.mark.parametrize("asked", ["nobody", "", "org", "%00%ff", "x" * 2000])
async def test_a_model_that_is_not_there(fleet: Fleet, asked: str) -> None:
    reply = await fleet.get(f"/v1/models/{asked}")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert all(name in reply.error["message"] for name in ("auto", "small", "org/medium", "large"))


@pytest.mark.parametrize("path", GETS)
async def test_head_is_get_without_a_body(fleet: Fleet, path: str) -> None:
    async with WireClient(fleet.gateway.port) as client:
        for _ in range(2):  # the connection is in order after it
            client.get(path, "HEAD")
            head = await client.reply()
            assert (head.status, head.body) == (200, b"")
        client.get(path)
        whole = await client.reply()
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert whole.body


@pytest.mark.parametrize("path", [*GETS, *PASSED_ON, "/chat", "/v1/chat/completions"])
async def test_a_wrong_method_is_told_the_right_ones(fleet: Fleet, path: str) -> None:
    reply = await fleet.get(path, "DELETE")
    assert reply.status == 405
    assert reply.headers["allow"] == ("GET, HEAD" if path in GETS else "POST")


async def test_an_unknown_route_lists_all(fleet: Fleet) -> None:
    reply = await fleet.get("/v1/moderations")
    assert (reply.status, reply.error["code"]) == (404, "unknown_route")
    for path in (*PASSED_ON, "/chat", "/models", "/health", "/metrics", "/v1/models/{id}"):
        assert path in reply.error["message"]


async def test_health_tells_the_truth(fleet: Fleet) -> None:
    reply = await fleet.get("/health")
    assert reply.status == 200
    assert orjson.loads(reply.body) == {
        "status": "OK",
        "health_tracking_status": "operational",
        "metrics_recording_status": "operational",
        "background_task_status": "operational",
        "background_task_failures": 0,
    }
