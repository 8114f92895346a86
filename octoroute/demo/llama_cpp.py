"""The wire manners of llama.cpp's server: heads, events and their chunks, errors, routes, and when it closes.

It closes after every SSE answer while its head promises keep-alive, and after every error. Its head of a
stream comes when a slot is free, before the first token. Makes answers; sends nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import orjson

from octoroute.demo import answers, shapes
from octoroute.demo.answers import Asked
from octoroute.demo.engine import Engine
from octoroute.demo.wire import DONE, Answer, Request, event

FINGERPRINT = "b11434-simulated"
CONTEXT_TOKENS = 131072
OPEN_PATHS = ("/health", "/v1/health")
KEEP_ALIVE = ("Keep-Alive", "timeout=5, max=100")


class LlamaCpp:
    """One server's answers. Any model name is accepted and answered with the server's own."""

    idle_seconds: float | None = 5.0
    max_requests_per_connection: int | None = 100

    def __init__(self, engine: Engine, api_key: str = "") -> None:
        self._engine = engine
        self._api_key = api_key
        self._count = 0

    def notices_client_gone_in(self, request: Request, now: float) -> float:
        """Seconds until it sees that the client has left; 0 or less: now.

        A stream is looked at every few tokens; a plain request only after 1 s without a result of any task.
        """
        left_at = request.left_at if request.left_at is not None else now
        if b'"stream"' in request.body and _is_stream(request):
            return left_at + 0.03 - now
        return max(left_at, self._engine.last_result_at) + 1.0 - now

    async def answer(self, request: Request) -> Answer:
        """The answer to any request. For a plain completion this takes as long as the completion takes."""
        path = request.path.removeprefix("/v1") or "/"
        keyless = not self._api_key or request.path in OPEN_PATHS
        if not keyless and request.header("authorization") != f"Bearer {self._api_key}":
            return self.error(401, "Invalid API Key", "authentication_error")
        if request.method in ("GET", "HEAD"):
            found = self._look(path, request.target)
            found.without_body = request.method == "HEAD"
            return found
        if request.method == "OPTIONS":
            return Answer(200, [*_headers("text/html"), KEEP_ALIVE], b"")
        if path in ("/chat/completions", "/completions"):
            return await self._complete(request, chat=path == "/chat/completions")
        if path == "/embeddings":
            return _json(shapes.embeddings(self._engine.model, request.json.get("input")))
        if path == "/tokenize":
            return _json({"tokens": list(range(answers.count_tokens(str(request.json.get("content")))))})
        return self.error(404, "File Not Found", "not_found_error")

    def loading(self) -> Answer:
        return self.error(503, "Loading model", "unavailable_error")

    def error(self, status: int, message: str, type_: str, **more: Any) -> Answer:
        body = {"error": {"code": status, "message": message, "type": type_, **more}}
        headers = [("Connection", "close"), *_headers("application/json; charset=utf-8")]
        return Answer(status, headers, orjson.dumps(body), keeps=False)

    def error_event(self, message: str) -> bytes:
        return event({"error": {"code": 500, "message": message, "type": "server_error"}})

    def _look(self, path: str, target: str) -> Answer:
        engine = self._engine
        if path == "/health":
            return _json({"status": "ok"})
        if path == "/models":
            meta = {"n_ctx_train": 8192, "n_params": 134515008}
            entry = {"id": engine.model, "object": "model", "created": int(time.time())}
            entry |= {"owned_by": "llamacpp", "meta": meta}
            return _json({"object": "list", "data": [entry]})
        if path == "/slots":
            engine.last_result_at = asyncio.get_running_loop().time()
            engine.wake()
            if "fail_on_no_slot=1" in target and engine.processing >= engine.slots:
                return self.error(503, "no slot available", "unavailable_error")
            slots = [
                {"id": at, "n_ctx": CONTEXT_TOKENS, "is_processing": at < engine.processing}
                for at in range(engine.slots)
            ]
            return _json(slots)
        if path == "/props":
            settings = {"n_ctx": CONTEXT_TOKENS}
            return _json(
                {
                    "default_generation_settings": settings,
                    "total_slots": engine.slots,
                    "model_alias": engine.model,
                    "is_sleeping": engine.asleep,
                }
            )
        if path == "/metrics":
            engine.last_result_at = asyncio.get_running_loop().time()
            lines = (
                f"llamacpp:requests_processing {engine.processing}\n"
                f"llamacpp:requests_deferred {engine.deferred}\n"
            )
            return Answer(200, [*_headers("text/plain; version=0.0.4"), KEEP_ALIVE], lines.encode())
        return self.error(404, "File Not Found", "not_found_error")

    async def _complete(self, request: Request, *, chat: bool) -> Answer:
        try:
            fields = request.json
        except ValueError as error:
            return self.error(400, f"parse error: {error}", "invalid_request_error")
        asked = answers.read(fields, chat=chat, continues=True)
        if asked.n > self._engine.slots:
            return self.error(400, "n_cmpl must be at most the number of slots", "invalid_request_error")
        if asked.prompt_tokens > CONTEXT_TOKENS:
            sizes = {"n_prompt_tokens": asked.prompt_tokens, "n_ctx": CONTEXT_TOKENS}
            return self.error(
                400, "the request exceeds the context size", "exceed_context_size_error", **sizes
            )
        self._engine.wake()
        self._count += 1
        names = {"created": int(time.time()), "model": self._engine.model, "system_fingerprint": FINGERPRINT}
        names["id"] = f"chatcmpl-{self._engine.seed:08x}{self._count:024x}"
        if not asked.stream:
            async with self._engine.slot():
                choices = self._engine.choices(asked)
                await self._engine.prefill()
                await self._engine.generate_all(choices)
            body = shapes.plain(asked, choices) | names
            for choice in body["choices"]:
                if asked.chat:
                    choice["message"]["content"] = choice["message"]["content"] or ""
            return _json(body | {"timings": shapes.timings(asked, body["usage"]["completion_tokens"])})
        events = self._events(asked, names)
        first = await anext(events)  # b"": the slot is there
        assert first == b""
        return Answer(200, [KEEP_ALIVE, *_headers("text/event-stream")], events, keeps=False)

    async def _events(self, asked: Asked, names: dict[str, Any]) -> AsyncIterator[bytes]:
        """The chunks of the body: the role goes with the first token, the usage with the finish, and the
        timings with the usage if there is one.
        """
        async with self._engine.slot():
            yield b""
            choices = self._engine.choices(asked)
            await self._engine.prefill()
            async for index, position, token in self._engine.generate(choices):
                deltas = shapes.deltas(asked, choices[index], position, token)
                chunks = [shapes.chunk(asked, index, delta) | names for delta in deltas]
                if asked.counts:
                    chunks[-1]["timings"] = shapes.timings(asked, position + 1)
                yield b"".join(map(event, chunks))
        ends = [shapes.finish(asked, index, one.finish_reason) | names for index, one in enumerate(choices)]
        if asked.include_usage and asked.chat:
            ends.append(shapes.usage_chunk(asked, choices) | names)
        elif asked.include_usage:
            ends[-1]["usage"] = shapes.usage(asked, choices)
        ends[-1]["timings"] = shapes.timings(asked, shapes.usage(asked, choices)["completion_tokens"])
        yield b"".join(event(end) for end in ends)
        yield DONE


def _is_stream(request: Request) -> bool:
    try:
        return bool(request.json.get("stream"))
    except (ValueError, AttributeError):
        return False


def _headers(content_type: str) -> list[tuple[str, str]]:
    return [("Server", "llama.cpp"), ("Access-Control-Allow-Origin", ""), ("Content-Type", content_type)]


def _json(value: Any) -> Answer:
    return Answer(200, [KEEP_ALIVE, *_headers("application/json; charset=utf-8")], orjson.dumps(value))
