"""The simulated servers behave as the real ones were seen to behave. No gateway here: h11 reads them."""

import asyncio

import pytest

from octoroute.demo import CLOSE, FAULTS, Request, SimulatedServer
from octoroute.demo.answers import prompt_of_messages
from tests.end_to_end.conftest import StartServer
from tests.end_to_end.wire_client import WireClient, ask, chat, converse

KINDS = ["llama_cpp", "vllm"]


def _expected(server: SimulatedServer, text: str, length: int | None = None) -> str:
    return server.text(prompt_of_messages([{"role": "user", "content": text}]), length)


@pytest.mark.parametrize("kind", KINDS)
async def test_plain_and_streamed_answers_say_the_same(serve: StartServer, kind: str) -> None:
    server = await serve(kind, wide=True)
    model = server.model
    plain = await converse(server.port, "hello", model)
    stream = await converse(server.port, "hello", model, stream=True)
    assert plain.text == stream.text == _expected(server, "hello")
    assert not plain.text.isascii()
    assert stream.events[-1] == "[DONE]"


@pytest.mark.parametrize("kind", KINDS)
async def test_usage_and_finish_reason_are_exact(serve: StartServer, kind: str) -> None:
    server = await serve(kind)
    more = {"stream": True, "max_tokens": 5, "stream_options": {"include_usage": True}}
    reply = await converse(server.port, "hello", server.model, **more)
    assert reply.text == _expected(server, "hello", 5)
    usage = [event["usage"] for event in reply.events if isinstance(event, dict) and event.get("usage")]
    assert [one["completion_tokens"] for one in usage] == [5]
    finishes = [
        choice["finish_reason"]
        for event in reply.events
        if isinstance(event, dict)
        for choice in event["choices"]
        if choice["finish_reason"]
    ]
    assert finishes == ["length"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_answer_can_be_continued_from_any_cut(serve: StartServer, kind: str) -> None:
    server = await serve(kind, wide=True)
    whole = _expected(server, "hello")
    for cut in (1, 7, len(whole) - 1):
        fields = chat("hello", server.model, continue_final_message=True, add_generation_prompt=False)
        fields["messages"].append({"role": "assistant", "content": whole[:cut]})
        rest = await ask(server.port, fields=fields)
        assert (whole[:cut] + rest.text).startswith(whole)


async def test_llama_cpp_closes_after_a_stream_that_promised_keep_alive(serve: StartServer) -> None:
    server = await serve("llama_cpp")
    async with WireClient(server.port) as client:
        client.post("/v1/chat/completions", chat(stream=True))
        reply = await client.reply()
        assert reply.headers["keep-alive"] == "timeout=5, max=100"
        assert "connection" not in reply.headers
        assert await client.read_raw() == b""


async def test_vllm_keeps_the_connection_after_a_stream(serve: StartServer) -> None:
    server = await serve("vllm")
    async with WireClient(server.port) as client:
        for _ in range(3):
            client.post("/v1/chat/completions", chat(model=server.model, stream=True))
            assert (await client.reply()).events[-1] == "[DONE]"
    assert server.connections.total == 1


async def test_llama_cpp_sends_role_with_the_first_token_and_usage_with_the_finish(
    serve: StartServer,
) -> None:
    server = await serve("llama_cpp", answer_tokens=3)
    async with WireClient(server.port) as client:
        client.post("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
        await client.head()
        chunks = [await client.data() for _ in range(5)]
    assert [chunk.count(b"data: ") for chunk in chunks] == [2, 1, 1, 2, 1]


async def test_both_sides_of_the_model_name_question(serve: StartServer) -> None:
    llama, vllm = await serve("llama_cpp"), await serve("vllm")
    assert (await converse(llama.port, model="anything")).json["model"] == llama.model
    assert (await converse(vllm.port, model="anything")).status == 404


async def test_the_probe_answers_of_both_kinds(serve: StartServer) -> None:
    for kind, of_head in (("llama_cpp", 200), ("vllm", 405)):
        server = await serve(kind)
        async with WireClient(server.port) as client:
            client.get("/v1/models")
            assert (await client.reply()).json["data"][0]["id"] == server.model
            client.get("/v1/models", "HEAD")
            assert (await client.reply()).status == of_head


async def test_an_idle_connection_is_closed_and_a_stall_is_not(serve: StartServer) -> None:
    server = await serve("vllm", idle_seconds=0.05)
    async with WireClient(server.port) as client:
        assert await client.read_raw() == b""
    server.set_fault("stall-before-head")
    async with WireClient(server.port) as client:
        client.post("/v1/chat/completions", chat())
        with pytest.raises(TimeoutError):
            await client.read_raw(timeout=0.2)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_leaves_or_half_closes_frees_the_slot(serve: StartServer, kind: str) -> None:
    server = await serve(kind, prefill_seconds=20.0)
    for half in (False, True):
        async with WireClient(server.port) as client:
            client.post("/v1/chat/completions", chat(model=server.model, stream=True))
            await server.wait_for(lambda: server.engine.processing == 1)
            if half:
                client.half_close()
                await server.wait_for(lambda: server.active == 0)
        await server.wait_for(lambda: server.active == 0 and server.connections.open == 0)
    assert all(request.left_at is not None for request in server.completions)


async def test_more_requests_than_slots_wait_their_turn(serve: StartServer) -> None:
    server = await serve("llama_cpp", slots=1, tokens_per_second=200)
    replies = await asyncio.gather(*(converse(server.port) for _ in range(3)))
    assert [reply.status for reply in replies] == [200, 200, 200]


async def test_a_tool_is_called_when_one_is_given(serve: StartServer) -> None:
    server = await serve("vllm")
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    fields = chat("weather?", server.model, tools=[{"type": "function", "function": tool}])
    plain = (await ask(server.port, fields=fields)).json["choices"][0]
    assert plain["finish_reason"] == "tool_calls"
    stream = await ask(server.port, fields={**fields, "stream": True})
    deltas = [
        call["function"].get("arguments", "")
        for event in stream.events
        if isinstance(event, dict)
        for choice in event["choices"]
        for call in choice["delta"].get("tool_calls", [])
    ]
    assert "".join(deltas) == plain["message"]["tool_calls"][0]["function"]["arguments"] == '{"city":"Oslo"}'


async def test_a_script_is_played_byte_by_byte(serve: StartServer) -> None:
    server = await serve()
    sent = [b"HTTP/1.1 200 OK\r\nContent-Le", b"ngth: 3\r\n\r\n\xf0", b"\x9f", b"!"]
    asked: list[Request] = []

    def script(request: Request) -> list[object]:
        asked.append(request)
        return [*sent, CLOSE]

    server.script(script)  # type: ignore[arg-type]
    async with WireClient(server.port) as client:
        client.send_raw(
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        assert await client.read_raw() == b"".join(sent)
    assert asked[0].body == b"abc"


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "refuse" and not name.startswith("st")])
async def test_a_fault_is_counted_and_then_over(serve: StartServer, fault: str) -> None:
    server = await serve("vllm", fault=None)
    server.set_fault(fault, once=True)
    for _ in range(2):
        async with WireClient(server.port) as client:
            client.post("/v1/chat/completions", chat(model=server.model, stream=True))
            await server.wait_for(lambda: len(server.completions) > 0)
    met = fault not in ("closes-idle", "half-open")  # these need a connection that was used before
    assert server.completions[0].fault == (fault if met else None)
    server.set_fault(None)
    assert (await converse(server.port, model=server.model)).status == 200


async def test_a_refusing_port_opens_again(serve: StartServer) -> None:
    server = await serve()
    server.set_fault("refuse")
    with pytest.raises(ConnectionRefusedError):
        await converse(server.port)
    server.set_fault(None)
    assert (await converse(server.port)).status == 200
