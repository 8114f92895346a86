"""The API of octoroute 1.0 besides OpenAI's: POST /chat and GET /models.

/chat is a chat completion in other words: its message goes through the same pipeline, so that retry, health,
metrics and log are the same, and the model's answer is kept whole and said again in 1.0's words.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

import orjson
from aiohttp import web

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.errors import GatewayError, InvalidRequest, UpstreamFailed
from octoroute.exchange import IMPORTANCES, TASK_TYPES, RequestView
from octoroute.gateway import Gateway
from octoroute.server.admin import json_response
from octoroute.server.auth import enter
from octoroute.server.completions import CHAT, IMPORTANCE, SESSION, TASK_TYPE, check_content_type, override
from octoroute.server.downstream import Downstream
from octoroute.server.fleet import numbered
from octoroute.server.openai import json_type, parse_body
from octoroute.server.pipeline import serve
from octoroute.server.reading import forwarded_headers, read_body
from octoroute.upstream.answer import Answer
from octoroute.upstream.connection import Connection, Verdict

MAX_MESSAGE_CHARACTERS: Final = 100_000
MAX_ANSWER_BYTES: Final = 64 << 20
# What 1.0 took a message for that does not say: it did not look at the text on this route.
USUAL_TASK_TYPE: Final = "question_answer"
CUT_OFF: Final = "the answer was cut off: it reached max_tokens"


@dataclass(frozen=True, slots=True)
class Message:
    """The body of POST /chat. `importance` None is the config's default."""

    text: str
    importance: str | None
    task_type: str


class Collector:
    """The client's side of a request whose answer is kept. Nothing goes out, so it is never `started`.

    An answer that makes no sense raises while the pipeline still listens, and is recorded as the failure it
    is.
    """

    started = False

    def __init__(self, downstream: Downstream) -> None:
        self.why = b""
        self.answer: Answer | None = None
        self.content = ""
        self.cut_off = False
        self._downstream = downstream
        self._head: Head | None = None
        self._relay: Relay | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def attach(self, connection: Connection | None) -> None:
        # So that a client that leaves ends the model's work here too.
        self._downstream.attach(connection)

    def announce(self, head: Head, relay: Relay) -> None: ...

    def start(self, head: Head, relay: Relay) -> None:
        self._head = head
        self._relay = relay
        relay.recode(self._keep)

    def _keep(self, payload: bytes) -> None:
        self._size += len(payload)
        if self._size <= MAX_ANSWER_BYTES:
            self._pieces.append(payload)
        elif isinstance(self._relay, Connection):
            self._relay.settle(Verdict.BROKEN, "too long")

    def ping(self, relay: Relay) -> None: ...

    def send_whole(self, answer: Answer) -> None:
        if answer.status == 200:
            self.content, self.cut_off = read_completion(answer.body)
        self.answer = answer

    def carry_on(self) -> Callable[[bytes], object]:
        return self._keep

    def end(self) -> None:
        assert self._head is not None
        self.send_whole(Answer(self._head, b"".join(self._pieces)))

    def break_off(self, error: GatewayError, *, clean: bool) -> None:  # noqa: ARG002
        raise error


async def chat(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.StreamResponse:  # noqa: ARG001
    """POST /chat. What a model server refuses (4xx) goes to the client as it came."""
    visit = enter(request, gateway)
    downstream = Downstream.of(request, request_id, gateway.forwarder.outbox)
    client = Collector(downstream)
    try:
        view = await read_request(request, request_id, gateway)
    except BaseException:
        if visit is not None:
            visit.abandon()
        raise
    active = await serve(view, client, gateway, visit)
    plan, outcome, answer = active.plan, active.outcome, client.answer
    assert plan is not None
    assert answer is not None
    if answer.status != 200:
        downstream.why = client.why
        downstream.send_whole(answer)
        return downstream.written()
    body: dict[str, Any] = {
        "content": client.content,
        "model_tier": plan.target.tier,
        "model_name": outcome.endpoint,
        "routing_strategy": plan.strategy,
    }
    warnings = [*plan.warnings, *([CUT_OFF] if client.cut_off else ())]
    if warnings:
        body["warnings"] = warnings
    response = json_response(orjson.dumps(body), request_id)
    for line in client.why.decode().splitlines():
        name, _, value = line.partition(": ")
        response.headers[name] = value
    return response


async def read_request(request: web.BaseRequest, request_id: str, gateway: Gateway) -> RequestView:
    """The chat completion that a request to /chat stands for. The headers override the body's values.
    Raises InvalidRequest.
    """
    server = gateway.snapshot.config.server
    check_content_type(request)
    body = await read_body(request, server.max_body_bytes, server.request_timeout_seconds)
    message = check_message(parse_body(body))
    fields = {"model": "auto", "messages": [{"role": "user", "content": message.text}]}
    return RequestView(
        request_id=request_id,
        path=CHAT,
        body=orjson.dumps(fields),
        fields=fields,
        model="auto",
        stream=False,
        importance=override(request.headers, IMPORTANCE, IMPORTANCES) or message.importance,
        task_type=override(request.headers, TASK_TYPE, TASK_TYPES) or message.task_type,
        headers=b"%bX-Request-Id: %b\r\n" % (forwarded_headers(request), request_id.encode()),
        read_ns=time.monotonic_ns(),
        session=request.headers.get(SESSION),
    )


def check_message(fields: dict[str, Any]) -> Message:
    """The message, checked. `null` means absent. Raises InvalidRequest with `param`."""
    text = fields.get("message")
    if text is None:
        raise InvalidRequest("message is missing", param="message", code="missing_required_parameter")
    if not isinstance(text, str):
        raise InvalidRequest(f"message must be a string, not {json_type(text)}", param="message")
    if not text.strip():
        raise InvalidRequest("message must not be blank", param="message")
    if len(text) > MAX_MESSAGE_CHARACTERS:
        raise InvalidRequest(
            f"message has {len(text)} characters; at most {MAX_MESSAGE_CHARACTERS} are allowed",
            param="message",
        )
    return Message(
        text,
        _one_of(fields, "importance", IMPORTANCES),
        _one_of(fields, "task_type", TASK_TYPES) or USUAL_TASK_TYPE,
    )


def _one_of(fields: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if value not in allowed:
        raise InvalidRequest(f"{name} must be one of: {', '.join(allowed)}", param=name)
    return str(value)


def read_completion(body: bytes) -> tuple[str, bool]:
    """The text of a chat completion, and whether it ends because of max_tokens. Raises UpstreamFailed."""
    try:
        choice = orjson.loads(body)["choices"][0]
        content = choice["message"].get("content") or ""
        if not isinstance(content, str):
            raise TypeError
        return content, choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UpstreamFailed("the server's answer is not a chat completion") from None


async def models(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /models: every endpoint and its health.

    `endpoint` was the server's base URL in 1.0. Clients must not see the network behind the gateway, so it is
    the endpoint's name, with `#2`, `#3` behind it for replicas: still text, still one value for each server.
    """
    now = time.monotonic()
    entries = []
    for endpoint, replica in numbered(gateway.snapshot.endpoints):
        name = endpoint.spec.name
        # As 1.0: a server that was not checked yet was checked when the gateway started.
        checked = endpoint.seen["last_check"]
        entries.append(
            {
                "name": name,
                "tier": endpoint.spec.tier,
                "endpoint": name if replica == 1 else f"{name}#{replica}",
                "healthy": endpoint.healthy,
                "last_check_seconds_ago": int(now - (checked if isfinite(checked) else gateway.started_s)),
                "consecutive_failures": endpoint.consecutive_failures,
            }
        )
    return json_response(orjson.dumps({"models": entries}), request_id)
