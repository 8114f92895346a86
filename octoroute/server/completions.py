"""The pipeline of every route that a model server answers: read, decide, forward, record. One function,
`serve`, top to bottom.
"""

import asyncio
import time
from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from octoroute.errors import GatewayError, InvalidRequest
from octoroute.exchange import IMPORTANCES, TASK_TYPES, Outcome, Plan, RequestView
from octoroute.gateway import Gateway
from octoroute.server.downstream import Downstream, MessagesDownstream
from octoroute.server.openai import check_chat, check_numbers, check_prompt, parse_body
from octoroute.server.reading import forwarded_headers, read_body
from octoroute.upstream.forward import Client

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
MESSAGES: Final = "/v1/messages"
# For the log only: nobody is left to be told. nginx's number for it.
CLIENT_GONE: Final = 499


async def read_request(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> RequestView:
    """The request, checked. Raises InvalidRequest."""
    server = gateway.snapshot.config.server
    check_content_type(request)
    body = await read_body(request, server.max_body_bytes, server.request_timeout_seconds)
    fields = parse_body(body)
    if path == CHAT:
        check_chat(fields, server.max_messages, server.max_content_chars)
    else:
        if path == COMPLETIONS:
            check_prompt(fields)
        check_numbers(fields)
    model = fields.get("model")
    return RequestView(
        request_id=request_id,
        path=path,
        body=body,
        fields=fields,
        model=model if isinstance(model, str) else "",
        stream=fields.get("stream") is True,
        importance=override(request, "X-Octoroute-Importance", IMPORTANCES),
        task_type=override(request, "X-Octoroute-Task-Type", TASK_TYPES),
        headers=forwarded_headers(request, request_id),
        read_ns=time.monotonic_ns(),
    )


async def complete(
    request: web.BaseRequest, path: str, request_id: str, gateway: Gateway
) -> web.StreamResponse:
    """Serves one request: the server's own answer goes to the client as it came."""
    make = Downstream if path != MESSAGES else MessagesDownstream
    client = make(request, request_id, gateway.forwarder.outbox, keep=not gateway.draining)
    await serve(read_request(request, path, request_id, gateway), client, gateway)
    return client.written()


async def serve(reading: Awaitable[RequestView], client: Client, gateway: Gateway) -> tuple[Plan, Outcome]:
    """The pipeline. Errors that can still be told as a status are raised."""
    outcome = Outcome()
    view: RequestView | None = None
    plan: Plan | None = None
    snapshot = gateway.snapshot
    try:
        view = await reading
        plan = await gateway.decide(view, snapshot)
        await gateway.forward(view, plan, snapshot, client, outcome)
    except asyncio.CancelledError:
        outcome.result = "client_gone"
        outcome.status = outcome.status or CLIENT_GONE
        raise
    except GatewayError as error:
        outcome.error = str(error) if not error.detail else f"{error}: {error.detail}"
        if not client.started:
            outcome.status = error.status
            raise
        outcome.status = 200
        client.break_off(error, clean=True)
    finally:
        if view is not None:
            outcome.duration_s = (time.monotonic_ns() - view.read_ns) * 1e-9
            gateway.record(view, plan, outcome)
    assert plan is not None
    return plan, outcome


def check_content_type(request: web.BaseRequest) -> None:
    """Raises InvalidRequest (415) unless the body is declared to be JSON."""
    declared = request.headers.get("Content-Type", "")
    if declared == "application/json":
        return
    kind = declared.partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise InvalidRequest(
            "the Content-Type must be application/json", status=415, code="unsupported_media_type"
        )


def override(request: web.BaseRequest, name: str, allowed: tuple[str, ...]) -> str | None:
    """The value of a header that overrides what the gateway would judge by itself. Raises InvalidRequest."""
    value = request.headers.get(name)
    if value is not None and value not in allowed:
        raise InvalidRequest(f"the header {name} must be one of: {', '.join(allowed)}", param=name)
    return value
