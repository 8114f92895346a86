"""A stream whose server dies in the middle goes on elsewhere, and its client can't tell.

The simulated servers' text is a function of prompt and position, so the answer must equal the unbroken one,
wherever the break falls.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import pytest_asyncio

from octoroute.demo import CLOSE, Request, SimulatedServer, Step
from octoroute.demo.answers import prompt_of_messages
from octoroute.demo.wire import LAST_CHUNK, chunk, event
from tests.end_to_end.conftest import StartGateway, StartServer
from tests.end_to_end.fleet import Gateway, endpoint, fleet_config
from tests.end_to_end.processes import until
from tests.end_to_end.test_queue import waiting
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat

PATH = "/v1/chat/completions"
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
AT_ONCE = 4
TOKENS = 2
SSE_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# No server becomes unhealthy, whatever it does.
PATIENT = {"failures": 1000, "interval_seconds": 0.2}


def plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


class Pair:
    """Two servers of one model behind a gateway; `first` is always tried first."""

    def __init__(self, first: SimulatedServer, second: SimulatedServer, port: int) -> None:
        self.first, self.second, self.port = first, second, port

    async def record(self, path: str, fields: dict[str, Any]) -> bytes:
        """What `first` writes when it is asked directly; from now on it stops in the middle of that, behind
        the byte that the request's `user` says.
        """
        self.first.script(None)
        body = orjson.dumps({**fields, "model": self.first.model})
        reader, writer = await asyncio.open_connection("127.0.0.1", self.first.port)
        writer.write(
            b"POST %b HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (path.encode(), len(body), body)
        )
        whole = await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.close()
        self.first.script(lambda request: [whole[: int(request.json["user"])], CLOSE])
        return whole

    async def cut(self, path: str, fields: dict[str, Any], at: int) -> Reply:
        """The answer to a stream whose first server ends behind so many bytes."""
        return await ask(self.port, path, {**fields, "user": str(at)})


def scripted(steps: list[bytes]) -> Callable[[Request], list[Step]]:
    return lambda _: [*steps]


def summary(reply: Reply) -> tuple[Any, ...]:
    """What a client makes of a stream."""
    events = [event for event in reply.events if event != "[DONE]"]
    choices = [event["choices"][0] for event in events if event.get("choices")]
    return (
        reply.status,
        reply.ended,
        reply.events.count("[DONE]"),
        reply.events[-1],
        len({(event["id"], event["created"], event["model"]) for event in events}),
        "".join(one.get("text") or one.get("delta", {}).get("content") or "" for one in choices),
        sum("role" in one.get("delta", {}) for one in choices),
        [one["finish_reason"] for one in choices if one["finish_reason"]],
        [event["usage"] for event in events if event.get("usage")],
    )


class Fleet:
    """Two or three servers of one model, and a gateway."""

    def __init__(self, servers: list[SimulatedServer], gateway: Gateway) -> None:
        self.servers = servers
        self.gateway = gateway

    def text(self, prompt: str = "hello") -> str:
        return self.servers[0].text(prompt_of_messages([{"role": "user", "content": prompt}]))

    async def ask(self, **more: Any) -> Reply:
        return await ask(self.gateway.port, PATH, chat("hello", **{"stream": True, "max_tokens": 64, **more}))

    async def recoveries(self) -> dict[str, float]:
        async with WireClient(self.gateway.port) as client:
            client.get("/metrics")
            lines = (await client.reply()).body.decode().splitlines()
        found = [line for line in lines if line.startswith("octoroute_stream_recoveries_total{")]
        return {line.split('outcome="')[1].split('"')[0]: float(line.split()[-1]) for line in found}


@pytest_asyncio.fixture(loop_scope="session")
async def fleet(serve: StartServer, gateway: StartGateway) -> Callable[..., Awaitable[Fleet]]:
    """Servers that are tried in order. Keywords are sections of the config."""

    async def start(*kinds: str, **sections: Any) -> Fleet:
        servers = [await serve(kind, seed=7, wide=True) for kind in kinds]
        members = [endpoint(server, priority=9 - at) for at, server in enumerate(servers)]
        return Fleet(servers, await gateway(fleet_config(members, health=PATIENT, **sections)))

    return start


StartFleet = Callable[..., Awaitable[Fleet]]


async def test_a_stream_survives_several_breaks(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "vllm")
    for server in one.servers:
        server.set_fault("close-mid-stream", count=4)
    reply = await one.ask(**USAGE)
    assert (reply.text, reply.events[-1], reply.ended) == (one.text(), "[DONE]", True)
    assert len({event["id"] for event in reply.events[:-1]}) == 1
    assert reply.events[-2]["usage"]["completion_tokens"] == 24
    assert (await one.recoveries())["resumed"] >= 3
    await until(lambda: "result=" in one.gateway.log)
    line = next(line for line in one.gateway.log.splitlines() if "result=" in line)
    assert "result=ok" in line
    assert int(line.rpartition("resumed=")[2]) >= 3


async def test_an_error_event_in_a_stream_counts_as_a_break_and_is_not_shown(fleet: StartFleet) -> None:
    one = await fleet("vllm", "vllm")
    first, second = one.servers
    whole = await Pair(first, second, one.gateway.port).record(PATH, chat("hello", stream=True))
    events = whole.partition(b"\r\n\r\n")[2].split(b"\n\n\r\n")[:4]
    error = chunk(b'data: {"error": {"message": "the model crashed", "code": 500}}\n\n')
    apart = [SSE_HEAD, *(part + b"\n\n\r\n" for part in events), error + b"0\r\n\r\n"]
    for steps in (apart, [SSE_HEAD, b"".join(apart[1:])]):
        first.script(scripted(steps))
        reply = await one.ask()
        assert (reply.text, reply.events[-1], reply.ended) == (one.text(), "[DONE]", True)
        assert b"crashed" not in reply.body


async def test_an_error_event_that_nobody_can_make_good_is_shown_as_it_came(fleet: StartFleet) -> None:
    one = await fleet("vllm")
    error = b'data: {"error": {"message": "the model crashed", "code": 500}}\n\n'
    said = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    one.servers[0].script(lambda _: [SSE_HEAD, chunk(said), chunk(error), b"0\r\n\r\n"])
    reply = await one.ask()
    assert (reply.body, reply.ended) == (said + error, True)


async def test_a_stalled_stream_is_resumed(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "vllm", recovery={"stall_seconds": 0.3})
    one.servers[0].set_fault("stall-mid-stream")
    reply = await one.ask()
    assert (reply.text, reply.events[-1]) == (one.text(), "[DONE]")
    await one.servers[0].wait_for(lambda: one.servers[0].active == 0)


async def test_a_silent_stream_whose_server_refuses_connections_is_resumed(fleet: StartFleet) -> None:
    """As after SIGTERM: the port is closed, streams stay open and say nothing more."""
    one = await fleet("llama_cpp", "vllm")
    one.servers[0].set_fault("stall-mid-stream", once=True)
    async with WireClient(one.gateway.port) as client:
        client.post(PATH, chat("hello", stream=True))
        head = await client.head()
        begun = await client.data()
        one.servers[0].set_fault("refuse")
        body = begun
        while data := await client.data():
            body += data
    reply = Reply(head.status, head.headers, body)
    assert (reply.text, reply.events[-1]) == (one.text(), "[DONE]")


async def test_a_repetition_of_the_text_never_reaches_the_client(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "vllm", "vllm")
    first, second, third = one.servers
    whole = await Pair(second, third, one.gateway.port).record(PATH, chat("hello", stream=True))
    first.set_fault("close-mid-stream")
    second.script(lambda _: [whole])
    reply = await one.ask()
    assert (reply.text, reply.events[-1]) == (one.text(), "[DONE]")
    assert len(third.completions) >= 1
    third.script(lambda _: [whole])
    reply = await one.ask()
    assert one.text().startswith(reply.text)
    assert "error" in reply.events[-1]
    assert await one.recoveries() == {"resumed": 1, "failed": 1}


async def test_an_error_of_the_second_server_is_not_shown_and_a_third_is_asked(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "vllm", "llama_cpp")
    one.servers[0].set_fault("close-mid-stream")
    one.servers[1].set_fault("status-400")
    reply = await one.ask()
    assert (reply.text, reply.events[-1]) == (one.text(), "[DONE]")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"grammar": "root ::= [a-z]+"},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": CITY}}]},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_what_would_not_be_exact_ends_with_an_error_that_names_the_request(
    refusing: Fleet, fields: dict[str, Any]
) -> None:
    reply = await refusing.ask(**fields)
    assert len(refusing.servers[1].completions) == 0
    assert b"[DONE]" not in reply.body
    assert b'"finish_reason":"' not in reply.body
    assert reply.headers["x-request-id"] in reply.events[-1]["error"]["message"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def refusing(serve_module: StartServer, gateway_module: StartGateway) -> Fleet:
    """The first of two servers breaks off every stream."""
    servers = [await serve_module("vllm", seed=7) for _ in range(2)]
    servers[0].set_fault("close-mid-stream")
    config = fleet_config([endpoint(servers[0], priority=2), servers[1]], health=PATIENT)
    return Fleet(servers, await gateway_module(config))


@pytest.mark.parametrize(
    "sections",
    [{"recovery": {"resume": False}}, {"recovery": {"resume_buffer_bytes": 3}}],
    ids=["off", "too long"],
)
async def test_what_the_config_does_not_allow_is_not_resumed(
    fleet: StartFleet, sections: dict[str, Any]
) -> None:
    one = await fleet("llama_cpp", "vllm", **sections)
    one.servers[0].set_fault("close-mid-stream")
    reply = await one.ask()
    assert "error" in reply.events[-1]
    assert len(one.servers[1].completions) == 0


async def test_max_tokens_are_counted_over_the_break(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "vllm")
    for limit in (2, 3, 4, 6):
        one.servers[0].set_fault(None)
        expected = summary(await one.ask(max_tokens=limit, **USAGE))
        one.servers[0].set_fault("close-mid-stream")
        assert summary(await one.ask(max_tokens=limit, **USAGE))[5:] == expected[5:]


async def test_a_client_of_http_1_0_gets_it_too(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "vllm")
    one.servers[0].set_fault("close-mid-stream")
    body = orjson.dumps(chat("hello", stream=True))
    async with WireClient(one.gateway.port) as client:
        client.send_raw(
            b"POST %b HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (PATH.encode(), len(body), body)
        )
        head, _, answer = (await client.read_raw()).partition(b"\r\n\r\n")
    assert Reply(200, {"content-type": "text/event-stream"}, answer).text == one.text()
    assert answer.endswith(b"data: [DONE]\n\n")
    assert b"chunked" not in head.lower()


async def test_a_client_that_leaves_ends_the_second_servers_work_too(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "vllm")
    first, second = one.servers
    first.set_fault("close-mid-stream")
    second.engine.tokens_per_second = 5.0
    async with WireClient(one.gateway.port) as client:
        client.post(PATH, chat("hello", stream=True))
        await client.head()
        await second.wait_for(lambda: second.engine.processing == 1)
    await second.wait_for(lambda: second.active == 0)
    assert second.completions[-1].left_at is not None


async def test_thousands_of_events_in_one_write_are_told_apart_where_they_break(fleet: StartFleet) -> None:
    one = await fleet("vllm", "vllm")
    words = [f"{number} " for number in range(3000)]

    def said(words: list[str]) -> bytes:
        deltas = [{"index": 0, "delta": {"content": word}} for word in words]
        return SSE_HEAD + b"".join(chunk(event({"choices": [delta]})) for delta in deltas)

    def play(request: Request) -> list[Step]:
        if not request.json.get("continue_final_message"):
            return [said(words[:2000]), 0.05, CLOSE]
        begun = len(request.json["messages"][-1]["content"].split())
        finish = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        return [said(words[begun:]) + chunk(finish + b"data: [DONE]\n\n") + LAST_CHUNK]

    for server in one.servers:
        server.script(play)
    reply = await one.ask(max_tokens=5000)
    assert (reply.text, reply.events[-1], reply.ended) == ("".join(words), "[DONE]", True)


async def test_a_broken_stream_waits_for_a_place_before_those_that_came_later(
    serve: StartServer, gateway: StartGateway
) -> None:
    first, second = [await serve("vllm", "one", seed=7) for _ in range(2)]
    full = {"max_in_flight": 1, "model": "one"}
    members = [endpoint(first, priority=2, **full), endpoint(second, name="other", **full)]
    one = Fleet([first, second], await gateway(fleet_config(members, health=PATIENT)))
    breaks, ends = asyncio.Event(), asyncio.Event()
    begun = event({"choices": [{"index": 0, "delta": {"content": one.text()[:10]}}]})
    first.script(lambda _: [SSE_HEAD, chunk(begun), breaks, CLOSE])
    second.script(lambda _: [SSE_HEAD, chunk(begun), ends, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"])
    broken = asyncio.create_task(one.ask())
    await first.wait_for(lambda: len(first.completions) == 1)
    async with WireClient(one.gateway.port) as running:
        running.post(PATH, chat("hello", stream=True))
        await running.head()
        await running.data()
        second.script(None)
        newcomer = asyncio.create_task(ask(one.gateway.port, PATH, chat("new", model="other")))
        await waiting(one.gateway.port, 1)
        breaks.set()
        await waiting(one.gateway.port, 2)
        assert len(second.completions) == 1
        ends.set()
        assert ((await broken).text, (await newcomer).status) == (one.text(), 200)
    asked = [request.json["messages"][0]["content"] for request in second.completions if request.path == PATH]
    assert asked == ["hello", "hello", "new"]


async def test_a_broken_stream_for_which_no_place_comes_free_in_time_is_told_so(
    serve: StartServer, gateway: StartGateway
) -> None:
    first, second = [await serve("vllm", "one", seed=7) for _ in range(2)]
    members = [endpoint(first, priority=2), endpoint(second, max_in_flight=1)]
    config = fleet_config(members, health=PATIENT, queue={"max_wait_seconds": 0.2})
    one = Fleet([first, second], await gateway(config))
    first.set_fault("refuse")
    never = asyncio.Event()
    second.script(lambda _: [SSE_HEAD, never])
    async with WireClient(one.gateway.port) as client:
        client.post(PATH, chat("hello", stream=True))
        await second.wait_for(lambda: len(second.completions) == 1)
        first.set_fault("close-mid-stream")
        reply = await one.ask()
    assert "error" in reply.events[-1]
    assert len(second.completions) == 1


async def test_thoughts_go_on_where_the_server_can_be_given_them(fleet: StartFleet) -> None:
    one = await fleet("llama_cpp", "llama_cpp")
    first, second = one.servers

    def events(*deltas: dict[str, str], finish: str | None = None) -> bytes:
        choices: list[Any] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices += [{"index": 0, "delta": {}, "finish_reason": finish}] if finish else []
        return chunk(b"".join(event({"choices": [choice]}) for choice in choices))

    def rest(request: Request) -> list[Step]:
        if request.path == "/tokenize":
            return [plain(b'{"tokens":[1,2]}')]
        written = events({"reasoning_content": " see."}, {"content": "Yes."}, finish="stop")
        return [SSE_HEAD, written, chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n", CLOSE]

    first.script(lambda _: [SSE_HEAD, events({"role": "assistant"}, {"reasoning_content": "Let me"}), CLOSE])
    second.script(rest)
    reply = await one.ask()
    thoughts = [
        event["choices"][0]["delta"].get("reasoning_content") for event in reply.events if event != "[DONE]"
    ]
    assert (thoughts, reply.text) == ([None, "Let me", " see.", None, None], "Yes.")
    asked = second.completions[-1].json["messages"][-1]
    assert asked == {"role": "assistant", "content": "", "reasoning_content": "Let me"}


async def test_thoughts_that_nobody_can_be_given_end_with_an_error(fleet: StartFleet) -> None:
    one = await fleet("vllm", "vllm")
    first, second = one.servers
    begun = chunk(event({"choices": [{"index": 0, "delta": {"reasoning": "Let me"}}]}))
    first.script(lambda _: [SSE_HEAD, begun, CLOSE])
    reply = await one.ask()
    assert "error" in reply.events[-1]
    assert [request.path for request in second.completions] in ([], ["/tokenize"])
    assert await one.recoveries() == {"refused": 1}
