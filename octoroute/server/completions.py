"""The routes that a model server answers: what is read of a request, and checked."""

import time
from typing import Any, Final, Protocol

from aiohttp import web

from octoroute._abridge import abridge
from octoroute.errors import InvalidRequest
from octoroute.exchange import IMPORTANCES, TASK_TYPES, RequestView
from octoroute.gateway import Gateway
from octoroute.server.auth import enter
from octoroute.server.downstream import Downstream, MessagesDownstream
from octoroute.server.openai import check_chat, check_numbers, check_prompt, parse_body
from octoroute.server.pipeline import serve
from octoroute.server.reading import forwarded_headers, read_body

CHAT: Final = "/v1/chat/completions"
COMPLETIONS: Final = "/v1/completions"
MESSAGES: Final = "/v1/messages"
IMPORTANCE: Final = "X-Octoroute-Importance"
TASK_TYPE: Final = "X-Octoroute-Task-Type"
SESSION: Final = "X-Octoroute-Session"
# Below, a parser is done sooner than long strings are looked for.
LARGE_BYTES: Final = 65_536


class Headers(Protocol):
    """A request's headers; the case of their names does not matter."""

    def get(self, name: str, /) -> str | None: ...


async def complete(
    request: web.BaseRequest, path: str, request_id: str, gateway: Gateway
) -> web.StreamResponse:
    """Serves one request: the server's own answer goes to the client as it came."""
    visit = enter(request, gateway)
    try:
        check_content_type(request)
        server = gateway.snapshot.config.server
        body = await read_body(request, server.max_body_bytes, server.request_timeout_seconds)
        view = read_view(path, request_id, body, request.headers, forwarded_headers(request), gateway)
    except BaseException:
        if visit is not None:
            visit.abandon()
        raise
    client = client_side(path).of(request, request_id, gateway.forwarder.outbox)
    await serve(view, client, gateway, visit)
    return client.written()


def client_side(path: str) -> type[Downstream]:
    """How answers of a route go back."""
    return Downstream if path != MESSAGES else MessagesDownstream


def read_view(
    path: str, request_id: str, body: bytes, headers: Headers, forwarded: bytes, gateway: Gateway
) -> RequestView:
    """The request, checked. `forwarded`: the header lines for the server. Raises InvalidRequest."""
    if len(body) >= LARGE_BYTES:
        abridged = abridge(body)
        if abridged is not None:
            try:
                return _view(
                    path, request_id, body, parse_body(abridged[0]), headers, forwarded, gateway, abridged[1]
                )
            except InvalidRequest:
                # Why it is refused is told of what the client sent.
                pass
    return _view(path, request_id, body, parse_body(body), headers, forwarded, gateway, ())


def _view(
    path: str,
    request_id: str,
    body: bytes,
    fields: dict[str, Any],
    headers: Headers,
    forwarded: bytes,
    gateway: Gateway,
    lengths: tuple[int, ...],
) -> RequestView:
    if path == CHAT:
        server = gateway.snapshot.config.server
        check_chat(fields, server.max_messages, server.max_content_chars, lengths)
    else:
        if path == COMPLETIONS:
            check_prompt(fields)
        check_numbers(fields)
    model = fields.get("model")
    return RequestView(
        request_id,
        path,
        body,
        fields,
        model if isinstance(model, str) else "",
        fields.get("stream") is True,
        override(headers, IMPORTANCE, IMPORTANCES),
        override(headers, TASK_TYPE, TASK_TYPES),
        "",
        b"".join((forwarded, b"X-Request-Id: ", request_id.encode(), b"\r\n")),
        time.monotonic_ns(),
        session=headers.get(SESSION),
        lengths=lengths,
    )


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


def override(headers: Headers, name: str, allowed: tuple[str, ...]) -> str | None:
    """The value of a header that overrides what the gateway would judge by itself. Raises InvalidRequest."""
    value = headers.get(name)
    if value is not None and value not in allowed:
        raise InvalidRequest(f"the header {name} must be one of: {', '.join(allowed)}", param=name)
    return value
