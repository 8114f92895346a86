"""Token counts of streams whose clients did not ask for any: counted, and not seen."""

import re

import orjson
import pytest

from octoroute.demo import SimulatedServer
from octoroute.demo.wire import CLOSE, head
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import endpoint, fleet_config
from tests.end_to_end.processes import worker_of
from tests.end_to_end.test_observability import scrape_until
from tests.end_to_end.wire_client import Reply, WireClient

FIELDS = {"model": "fast", "stream": True, "messages": [{"role": "user", "content": "count me"}]}
PROMPT = "octoroute_tokens_total{direction=prompt,tier=fast}"
COMPLETION = "octoroute_tokens_total{direction=completion,tier=fast}"
OPTION = b'"stream_options":{"include_usage":true}'


async def stream(port: int, **fields: object) -> Reply:
    async with WireClient(port) as client:
        client.post("/v1/chat/completions", FIELDS | fields)
        return await client.reply()


def asked(server: SimulatedServer) -> list[bytes]:
    return [request.body for request in server.requests if request.method == "POST"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_vllm_is_asked_and_the_client_sees_the_stream_it_asked_for(
    serve: StartServer, gateway: StartGateway, path: str
) -> None:
    server = await serve("vllm", "qwen")
    known = endpoint(server, kind="vllm")
    on = await gateway(fleet_config([known]))
    off = await gateway(fleet_config([known], observability={"stream_usage": False}))
    seen = []
    for one in (on, off):
        async with WireClient(one.port) as client:
            client.post(path, FIELDS | {"prompt": "count me"}, headers={"x-request-id": "same"})
            seen.append((await client.reply()).body)
    created = rb'"created":\d+'
    assert _without(created, seen[0]) == _without(created, seen[1])
    assert b"usage" not in seen[0]
    with_option, without = asked(server)
    assert OPTION in with_option
    assert b"stream_options" not in without
    counts = await scrape_until(on.port, lambda counts: counts[COMPLETION] > 0)
    assert counts[COMPLETION] == 24
    assert counts[PROMPT] > 0


def _without(pattern: bytes, text: bytes) -> bytes:
    return re.sub(pattern, b"", text)


async def test_a_client_that_asks_gets_its_usage(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm", "qwen")
    one = await gateway(fleet_config([server]))
    reply = await stream(one.port, stream_options={"include_usage": True})
    assert b'"usage":{' in reply.body
    reply = await stream(one.port, stream_options={"include_usage": True, "continuous_usage_stats": False})
    assert b'"usage":{' in reply.body
    assert (await scrape_until(one.port, lambda counts: counts[COMPLETION] == 48))[COMPLETION] == 48


async def test_llama_cpp_is_not_asked_because_its_timings_say_it(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("llama_cpp", "qwen")
    one = await gateway(fleet_config([endpoint(server, kind="llama_cpp")]))
    reply = await stream(one.port)
    assert b'"timings":{' in reply.body
    assert OPTION not in asked(server)[0]
    counts = await scrape_until(one.port, lambda counts: counts[COMPLETION] > 0)
    assert counts[COMPLETION] == 24
    assert counts[PROMPT] > 0


async def test_a_server_that_did_not_say_who_it_is_gets_the_clients_request_and_nothing_is_left_out(
    serve: StartServer, gateway: StartGateway
) -> None:
    events = b'data: {"choices":[{"index":0}]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
    answer = head(200, [("Content-Type", "text/event-stream")]) + events
    server = await serve("vllm", "stranger")
    server.script(lambda _: [answer, CLOSE])
    # It is not asked for its list of models, nor for its load.
    unasked = {"path": "/health", "load_interval_seconds": 0}
    one = await gateway(fleet_config([server], health=unasked))
    assert (await stream(one.port)).body == events
    assert b"stream_options" not in asked(server)[0]


async def test_a_server_that_says_it_is_vllm_is_asked(serve: StartServer, gateway: StartGateway) -> None:
    server = await serve("vllm", "qwen")
    one = await gateway(fleet_config([server], health={"interval_seconds": 0.1}))
    await scrape_until(one.port, lambda _: len(server.requests) > 1)
    assert b"usage" not in (await stream(one.port)).body
    assert OPTION in asked(server)[0]


async def test_what_one_worker_has_learnt_of_a_server_all_go_by(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "qwen")
    one = await gateway(fleet_config([server], server={"workers": 2}))
    learnt: set[str] = set()
    # Only one of them probes; the other hears of it within a second.
    while len(learnt) < 2:
        reply = await stream(one.port)
        if OPTION in asked(server)[-1]:
            learnt.add(worker_of(reply))


async def test_a_server_that_refuses_the_option_answers_all_the_same_and_is_not_asked_again(
    serve: StartServer, gateway: StartGateway
) -> None:
    message = orjson.dumps({"error": {"message": "stream_options: extra fields not permitted"}})
    json = ("Content-Type", "application/json")
    refusal = head(400, [json, ("Content-Length", str(len(message)))]) + message
    accepted = head(200, [("Content-Type", "text/event-stream")]) + b"data: [DONE]\n\n"
    server = await serve("vllm", "old")
    server.script(lambda request: [refusal if OPTION in request.body else accepted, CLOSE])
    one = await gateway(fleet_config([endpoint(server, kind="vllm")]))
    for _ in range(2):
        assert (await stream(one.port)).status == 200
    assert [OPTION in body for body in asked(server)] == [True, False, False]
    line = await scrape_until(
        one.port, lambda counts: counts["octoroute_requests_total{strategy=rule,tier=fast}"] == 2
    )
    assert line["octoroute_upstream_requests_total{endpoint=old,outcome=ok,tier=fast}"] == 2


async def test_a_request_that_the_server_refuses_anyway_gets_the_servers_own_words(
    serve: StartServer, gateway: StartGateway
) -> None:
    server = await serve("vllm", "strict")
    one = await gateway(fleet_config([endpoint(server, model="another", kind="vllm")]))
    assert (await stream(one.port)).status == 404
    assert len(asked(server)) == 1
