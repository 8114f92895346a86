"""A plain request to llama.cpp goes as a stream, so that it can be given up; its client can't tell."""

from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, Request, SimulatedServer, Step
from octoroute.demo.wire import DONE, chunk, event
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.processes import HEAD, PATH
from tests.end_to_end.test_failover import BROKEN_MIDDLE, BROKEN_START, HARMLESS
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat

PATIENT = {"failures": 1000, "interval_seconds": 3600.0}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]


def config(*servers: SimulatedServer, **sections: Any) -> str:
    """All are known to be what they are; the first is always tried first."""
    members = [
        endpoint(server, kind=server.kind, priority=len(servers) - at) for at, server in enumerate(servers)
    ]
    return fleet_config(members, **({"health": PATIENT} | sections))


def streams(server: SimulatedServer) -> list[bool]:
    """Whether its requests were for streams."""
    return [request.json.get("stream") is True for request in server.completions]


def without_names(body: bytes) -> Any:
    """What two answers to one request have in common."""
    return orjson.loads(body) | {"id": "", "created": 0}


def sse(*chunks: dict[str, Any], end: bytes = DONE) -> list[Step]:
    names = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    written = b"".join(event(names | one if "choices" in one else one) for one in chunks)
    return [HEAD, chunk(written + end), b"0\r\n\r\n", CLOSE]


def delta(**changed: Any) -> dict[str, Any]:
    return {"choices": [{"finish_reason": None, "index": 0, "delta": changed}]}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (PATH, chat(max_tokens=40)),
        (PATH, chat(stream=False, stop=["every", "."])),
        (PATH, chat(max_tokens=1, stream_options=None)),
        (PATH, chat(tools=TOOLS)),
        ("/v1/completions", {"model": "fast", "prompt": "hello", "max_tokens": 30}),
    ],
    ids=["chat", "stop", "one token", "tool call", "completion"],
)
async def test_the_answer_is_what_the_server_would_have_sent(
    serve: StartServer, gateway: StartGateway, path: str, fields: dict[str, Any]
) -> None:
    server = await serve(seed=3, wide=True)
    one = await gateway(config(server))
    # The first answer without text is asked for twice: how it is written has to be learnt.
    replies = [await ask(one.port, path, fields) for _ in range(2)]
    direct = await ask(server.port, path, {"temperature": 0.7, "max_tokens": 64, **fields})
    for reply in replies:
        assert (reply.status, without_names(reply.body)) == (200, without_names(direct.body))
        assert reply.headers["content-type"] == direct.headers["content-type"]
        assert int(reply.headers["content-length"]) == len(reply.body)
        assert (reply.headers["x-octoroute-attempts"], reply.headers["server"]) == ("1", "llama.cpp")
    assert streams(server)[-2:] == [True, False]


async def test_a_client_that_leaves_ends_the_work_though_another_streams(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve(tokens_per_second=50, answer_tokens=10_000)
    one = await gateway(config(server))
    async with WireClient(one.port) as other, WireClient(one.port) as client:
        other.post(PATH, chat(stream=True, max_tokens=10_000))
        await other.head()
        client.post(PATH, chat(max_tokens=10_000))
        await server.wait_for(lambda: server.engine.processing == 2)
        client.writer.close()
        await server.wait_for(lambda: server.active == 1)


@pytest.mark.parametrize(
    ("kind", "keys", "fields"),
    [
        ("llama_cpp", {"cancel_plain": False}, {}),
        ("llama_cpp", {"resume_buffer_bytes": 0}, {}),
        ("llama_cpp", {}, {"logprobs": True}),
        ("vllm", {}, {}),
    ],
    ids=["off", "no room", "not exact", "vllm"],
)
async def test_any_other_request_goes_as_it_came(
    serve: StartServer, gateway: StartGateway, kind: str, keys: dict[str, Any], fields: dict[str, Any]
) -> None:
    server = await serve(kind)
    one = await gateway(config(server, recovery=keys))
    assert (await ask(one.port, PATH, chat(**fields))).status == 200
    assert streams(server) == [False]


async def test_a_server_that_was_found_out_to_be_llama_cpp_is_asked_so(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve()
    one = await gateway(fleet_config([server], health={"interval_seconds": 0.2}))
    while not any(streams(server)):
        assert (await ask(one.port, PATH, chat())).status == 200


@pytest.mark.parametrize(
    "begins",
    [
        lambda _: [HEAD, chunk(event(delta(content="a"))), CLOSE],
        lambda _: sse(delta(content="a"), {"error": {"code": 500, "message": "out of memory"}}, end=b""),
        lambda _: sse({"error": {"code": 500, "message": "out of memory"}}, end=b""),
    ],
    ids=["break", "error event", "error event first"],
)
async def test_a_stream_that_fails_is_a_request_that_another_server_answers(
    serve: StartServer, gateway: StartGateway, begins: Any
) -> None:
    first, second = await serve(), await serve(seed=2)
    first.script(begins)
    one = await gateway(config(first, second))
    reply = await ask(one.port, PATH, chat())
    assert (reply.status, reply.headers["x-octoroute-attempts"]) == (200, "2")
    assert streams(second) == [True]


async def alone(serve: StartServer, gateway: StartGateway, code: Any) -> Reply:
    server = await serve()
    error = {"code": code, "message": "it failed at http://10.0.0.1:8080", "type": "a_type"}
    server.script(lambda _: sse(delta(content="a"), {"error": error}, end=b""))
    one = await gateway(config(server, retry={"attempts": 1}))
    return await ask(one.port, PATH, chat())


async def test_what_the_server_said_went_wrong_is_told_where_nobody_else_answers(
    serve: StartServer, gateway: StartGateway
) -> None:
    reply = await alone(serve, gateway, 500)
    assert reply.status == 502
    assert "the server answered 500: it failed at [address]" in reply.error["message"]


async def test_an_error_of_the_client_s_own_comes_as_it_would_have_come(
    serve: StartServer, gateway: StartGateway
) -> None:
    reply = await alone(serve, gateway, 400)
    assert (reply.status, reply.json["error"]["type"]) == (400, "a_type")
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


def scripted(steps: list[Step]) -> Callable[[Request], list[Step]]:
    return lambda _: steps


def doubtful(server: SimulatedServer, *chunks: dict[str, Any], end: bytes = DONE) -> None:
    """Its streams are these, its plain answers its own."""

    def play(request: Request) -> Iterable[Step] | None:
        return sse(*chunks, end=end) if request.json.get("stream") else None

    server.script(lambda request: play(request) or _plain(server, request))


def _plain(server: SimulatedServer, request: Request) -> list[Step]:
    message = {"role": "assistant", "content": f"plain {len(server.completions)}"}
    body = orjson.dumps({"choices": [{"message": message}], "asked": request.json})
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return [head + body]


STOP = {"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}]}


@pytest.mark.parametrize(
    "chunks",
    [
        (delta(content="a"), STOP),
        (delta(content="x" * 3000), STOP),
        (delta(content="a"), {"error": {"code": 500, "message": "Invalid diff: 'a' not found"}}),
    ],
    ids=["no counts", "too long", "error of streams only"],
)
async def test_an_answer_that_is_not_exact_is_asked_for_again_as_it_came(
    serve: StartServer, gateway: StartGateway, chunks: tuple[dict[str, Any], ...]
) -> None:
    server = await serve()
    doubtful(server, *chunks)
    one = await gateway(config(server, recovery={"resume_buffer_bytes": 2000}))
    reply = await ask(one.port, PATH, chat(user="me"))
    assert (reply.status, reply.text, reply.headers["x-octoroute-attempts"]) == (200, "plain 2", "1")
    assert streams(server) == [True, False]
    assert "stream" not in reply.json["asked"]
    # A server that is never exact is not asked so for ever.
    for _ in range(6):
        await ask(one.port, PATH, chat())
    assert streams(server).count(True) == 3


async def test_a_server_that_answers_a_stream_with_a_whole_is_believed(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve()
    one = await gateway(config(server))
    for length in (10, 200_000):
        body = orjson.dumps({"text": "x" * length})
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        server.script(scripted([head + body]))
        assert (await ask(one.port, PATH, chat())).body == body


async def test_the_timeout_is_for_the_whole_of_it(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve(tokens_per_second=20, answer_tokens=10_000)
    one = await gateway(config(server, timeouts={"fast": 1}, retry={"attempts": 1}))
    reply = await ask(one.port, PATH, chat(max_tokens=10_000))
    assert (reply.status, streams(server)) == (504, [True])
    await server.wait_for(lambda: server.active == 0)


async def test_the_legacy_route_can_be_given_up_too(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve(seed=3)
    one = await gateway(config(server))
    reply = await ask(one.port, "/chat", {"message": "hello", "task_type": "casual_chat"})
    assert reply.json["content"] == server.text("user: hello")
    assert streams(server) == [True]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pair(serve_module: StartServer, gateway_module: StartGateway) -> tuple[list[SimulatedServer], int]:
    """The first is always tried first, and never becomes unhealthy, whatever it does."""
    servers = [await serve_module(seed=seed, wide=True) for seed in (1, 2)]
    one = await gateway_module(
        config(
            *servers, server={"request_timeout_seconds": 1}, retry={"budget": 100}, recovery={"resume": False}
        )
    )
    # Proves that it is exact: from here it gets every request as a stream.
    assert (await ask(one.port, PATH, chat())).status == 200
    return servers, one.port


@pytest.mark.parametrize("fault", [*BROKEN_START, *BROKEN_MIDDLE])
async def test_no_fault_of_a_stream_reaches_the_client(
    pair: tuple[list[SimulatedServer], int], fault: str
) -> None:
    (bad, good), port = pair
    bad.set_fault(fault)
    try:
        reply = await ask(port, PATH, chat())
    finally:
        bad.set_fault(None)
    assert (reply.status, reply.text) == (200, good.text("user: hello"))


@pytest.mark.parametrize("fault", [each for each in HARMLESS if each != "slow-body"])
async def test_a_stream_that_is_strange_but_complete_is_an_answer(
    pair: tuple[list[SimulatedServer], int], fault: str
) -> None:
    (bad, good), port = pair
    before = len(good.completions)
    bad.set_fault(fault)
    try:
        reply = await ask(port, PATH, chat())
    finally:
        bad.set_fault(None)
    assert (reply.status, reply.text, len(good.completions)) == (200, bad.text("user: hello"), before)
