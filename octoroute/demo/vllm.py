"""The wire manners of vLLM's server (uvicorn): heads, events and their chunks, errors, routes.

It keeps the connection after a stream, sends the head of a stream at once even if the request then waits, and
knows its model's name. Makes answers; sends nothing.
"""

import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

import orjson

from octoroute.demo import answers, shapes
from octoroute.demo.answers import Asked
from octoroute.demo.engine import Engine
from octoroute.demo.wire import DONE, Answer, Request, event

NOTICES_GONE_S = 0.03
# A real one has thousands of lines that nobody asks for here, 57 kB and more.
OTHER_METRICS = "".join(
    f'vllm:e2e_request_latency_seconds_bucket{{engine="0",le="{at}",model_name="of another engine"}} {at}.0\n'
    for at in range(900)
)
OPEN_PATHS = ("/health", "/load", "/metrics", "/version")


class Vllm:
    """One server's answers."""

    idle_seconds: float | None = 5.0
    max_requests_per_connection: int | None = None

    def __init__(self, engine: Engine, api_key: str = "") -> None:
        self._engine = engine
        self._api_key = api_key
        self._count = 0

    def notices_client_gone_in(self, request: Request, now: float) -> float:
        """Seconds until it sees that the client has left; 0 or less: now."""
        left_at = request.left_at if request.left_at is not None else now
        return left_at + NOTICES_GONE_S - now

    async def answer(self, request: Request) -> Answer:
        """The answer to any request. For a plain completion this takes as long as the completion takes."""
        path = request.path
        keyless = not self._api_key or path in OPEN_PATHS
        if not keyless and request.header("authorization") != f"Bearer {self._api_key}":
            return _json({"error": "Unauthorized"}, 401)
        routes = {"/v1/chat/completions": "POST", "/v1/completions": "POST", "/v1/embeddings": "POST"}
        routes["/tokenize"] = "POST"
        routes |= {
            "/v1/models": "GET",
            "/health": "GET",
            "/load": "GET",
            "/metrics": "GET",
            "/version": "GET",
        }
        if path not in routes:
            return _json({"detail": "Not Found"}, 404)
        if request.method != routes[path]:
            found = _json({"detail": "Method Not Allowed"}, 405)
            found.headers.append(("allow", routes[path]))
            found.without_body = request.method == "HEAD"
            return found
        return await self._complete(request) if request.method == "POST" else self._look(path)

    def loading(self) -> Answer:
        """vLLM's port is closed while it loads; a proxy in front of it says this."""
        return self.error(503, "Service Unavailable", "ServiceUnavailableError")

    def error(self, status: int, message: str, type_: str, param: str | None = None) -> Answer:
        return _json({"error": {"message": message, "type": type_, "param": param, "code": status}}, status)

    def error_event(self, message: str) -> bytes:
        body = {"message": message, "type": "InternalServerError", "param": None, "code": 500}
        return event({"error": body})

    def _look(self, path: str) -> Answer:
        engine = self._engine
        if path == "/health":
            return Answer(200, _headers(), b"")
        if path == "/version":
            return _json({"version": "0.32.0"})
        if path == "/load":
            return _json({"server_load": engine.processing + engine.deferred})
        if path == "/metrics":
            label = f'{{engine="0",model_name="{engine.model}"}}'
            state = (
                f'{{engine="0",model_name="{engine.model}",sleep_state="awake"}} {int(not engine.asleep)}.0'
            )
            lines = (
                f"vllm:num_requests_running{label} {engine.processing}.0\n"
                f"vllm:num_requests_waiting{label} {engine.deferred}.0\n"
                f"vllm:kv_cache_usage_perc{label} 0.0\n"
                f"vllm:engine_sleep_state{state}\n"
            )
            return Answer(
                200,
                _headers("text/plain; version=0.0.4; charset=utf-8"),
                (OTHER_METRICS + lines).encode(),
            )
        entry = {"id": engine.model, "object": "model", "created": int(time.time()), "owned_by": "vllm"}
        return _json({"object": "list", "data": [entry | {"root": engine.model, "max_model_len": 32768}]})

    async def _complete(self, request: Request) -> Answer:
        if (request.header("content-type") or "").partition(";")[0].strip() != "application/json":
            return self.error(
                400, "Unsupported Media Type: Only 'application/json' is allowed", "BadRequestError"
            )
        try:
            fields = request.json
        except ValueError as error:
            return self.error(400, f"JSON decode error: {error}", "BadRequestError")
        model = fields.get("model")
        if model not in (None, self._engine.model):
            return self.error(404, f"The model `{model}` does not exist.", "NotFoundError", "model")
        if request.path == "/tokenize":
            count = answers.count_tokens(str(fields.get("prompt")))
            return _json({"count": count, "max_model_len": 32768, "tokens": list(range(count))})
        if request.path == "/v1/embeddings":
            return _json(shapes.embeddings(self._engine.model, fields.get("input")))
        chat = request.path == "/v1/chat/completions"
        asked = answers.read(fields, chat=chat, continues=fields.get("continue_final_message") is True)
        self._count += 1
        own_id = f"{self._engine.seed:08x}{self._count:024x}"
        names: dict[str, Any] = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{request.header('x-request-id') or own_id}",
            "created": int(time.time()),
            "model": self._engine.model,
        }
        if asked.stream:
            return Answer(200, _headers("text/event-stream; charset=utf-8"), self._events(asked, names))
        async with self._engine.slot():
            choices = self._engine.choices(asked)
            await self._engine.prefill()
            await self._engine.generate_all(choices)
        return _json(names | shapes.plain(asked, choices))

    async def _events(self, asked: Asked, names: dict[str, Any]) -> AsyncIterator[bytes]:
        """The chunks of the body, an event each. The last token of a choice carries the finish reason."""
        async with self._engine.slot():
            choices = self._engine.choices(asked)
            await self._engine.prefill()
            if asked.chat:
                for index in range(asked.n):
                    yield event(names | shapes.chunk(asked, index, {"role": "assistant", "content": ""}))
            async for index, position, token in self._engine.generate(choices):
                one = choices[index]
                for delta in shapes.deltas(asked, one, position, token):
                    if "role" in delta:
                        continue
                    piece = names | shapes.chunk(asked, index, delta)
                    is_last = position == len(one.tokens) - 1 and "id" not in str(delta.get("tool_calls"))
                    if is_last:
                        piece["choices"][0] |= {"finish_reason": one.finish_reason, "stop_reason": None}
                    yield event(piece)
        for index, one in enumerate(choices):
            if not one.tokens:
                yield event(names | shapes.finish(asked, index, one.finish_reason))
        if asked.include_usage:
            yield event(names | shapes.usage_chunk(asked, choices))
        yield DONE


def _headers(content_type: str = "") -> list[tuple[str, str]]:
    headers = [("date", formatdate(usegmt=True)), ("server", "uvicorn")]
    return [*headers, ("content-type", content_type)] if content_type else headers


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(status, _headers("application/json"), orjson.dumps(value))
