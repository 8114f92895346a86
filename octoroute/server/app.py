"""The routes, and what happens around each of them: an id, an error object for every failure, one visible
list.

Uses aiohttp's low-level server: a dictionary finds the handler, because a request has no business in a URL
router with so few routes.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web

from octoroute.errors import InvalidRequest, render
from octoroute.gateway import Gateway
from octoroute.server import admin, chat, completions, dashboard, explaining, fleet, recent
from octoroute.server.auth import identify, refuse_other_sites
from octoroute.server.express import Entrance
from octoroute.server.failure import body_writer, failure_of
from octoroute.server.handler import ClientHandler, refuse, wire_of
from octoroute.server.reading import request_id
from octoroute.server.wire import MAX_HEAD_BYTES, ClientWire, header_too_large

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest, str, str, Gateway], Awaitable[web.StreamResponse]]

ROUTES: Final[dict[str, dict[str, Handler]]] = {
    "/v1/chat/completions": {"POST": completions.complete},
    "/v1/completions": {"POST": completions.complete},
    "/v1/embeddings": {"POST": completions.complete},
    "/v1/rerank": {"POST": completions.complete},
    "/v1/responses": {"POST": completions.complete},
    completions.MESSAGES: {"POST": completions.complete},
    "/tokenize": {"POST": completions.complete},
    "/detokenize": {"POST": completions.complete},
    "/v1/models": {"GET": admin.models},
    "/v1/models/{id}": {"GET": admin.model},
    "/chat": {"POST": chat.chat},
    "/models": {"GET": chat.models},
    "/health": {"GET": admin.health},
    "/metrics": {"GET": admin.metrics},
    "/admin/explain": {"POST": explaining.explain},
    "/admin/reload": {"POST": admin.reload},
    "/admin/upgrade": {"POST": admin.upgrade},
    "/admin/status": {"GET": fleet.status},
    "/admin/recent": {"GET": recent.recent},
    fleet.ROUTE + "drain": {"POST": fleet.drain},
    fleet.ROUTE + "undrain": {"POST": fleet.undrain},
    fleet.ROUTE + "weight": {"POST": fleet.weight},
    dashboard.PAGE: {"GET": dashboard.page},
    dashboard.PAGE + "/{file}": {"GET": dashboard.page},
}
# What a model server answers: ordinary requests to these take the short road.
ORDINARY: Final = frozenset(
    path for path, methods in ROUTES.items() if methods.get("POST") is completions.complete
)
# How often the connections of a worker that drains are looked at.
DRAIN_LOOK_SECONDS: Final = 0.05
# Answers to these leave a part of the request unread on the connection.
UNREAD: Final = frozenset((408, 413, 431, 505))
# Answers to these may come before a body that nobody will read.
REFUSED: Final = frozenset((401, 403, 429))


class Api:
    """Clients' connections and their requests. Calling it, as loop.create_server() does, makes a
    connection.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.enter = Entrance(gateway, ORDINARY).enter
        self.wires: set[ClientWire] = set()
        self._loop = asyncio.get_running_loop()
        self._aiohttp = web.Server(self.handle, handler_cancellation=True)

    def __call__(self) -> asyncio.Protocol:
        # It has what event loops ask of a protocol.
        return cast("asyncio.Protocol", ClientWire(self))

    def opened(self, wire: ClientWire) -> None:
        """A client has connected."""
        self.wires.add(wire)
        # Not before: a drain that begins between the making of a connection and now would not find it.
        wire.last = self.gateway.draining

    def closed(self, wire: ClientWire) -> None:
        """A client's connection has ended."""
        self.wires.discard(wire)

    def reader(self, wire: ClientWire) -> ClientHandler:
        """What reads the requests of a connection that are not ordinary."""
        return ClientHandler(wire, self._aiohttp, self.gateway.snapshot.config.server.keepalive_seconds)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serves one request; every failure becomes an error object."""
        given = request_id(request)
        wire = wire_of(request)
        try:
            if wire.large and sum(map(_line_bytes, request.raw_headers)) > MAX_HEAD_BYTES:
                raise header_too_large()
            if request.version.major != 1:
                raise InvalidRequest("only HTTP/1.x is spoken here", status=505, code="bad_request")
            path, handler = find(request)
            keys = self.gateway.keys
            wire.tenant = None
            if keys is None:
                refuse_other_sites(request, path)
            else:
                wire.tenant = identify(request, path, keys)
            response = await handler(request, path, given, self.gateway)
            if wire.last and isinstance(response, web.Response):
                response.force_close()
            return response
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            failure = failure_of(error, given, self.gateway)
            # It holds this frame, which holds the error.
            failure.__traceback__ = None
        finally:
            wire.busy = False
        write_body = body_writer(request.raw_path.partition("?")[0])
        unread = failure.status in UNREAD or failure.code == "invalid_body"
        if unread or (failure.status in REFUSED and not request.content.is_eof()):
            return refuse(wire, failure, given, write_body)
        status, headers, body = render(failure, given, write_body)
        refusal = web.Response(status=status, headers=headers, body=body)
        if wire.last:
            refusal.force_close()
        return refusal

    def begin_drain(self) -> None:
        """From here every answer tells its client that the connection ends with it."""
        self.gateway.draining = True
        for wire in self.wires:
            wire.last = True

    async def drain(self, seconds: float, idle_seconds: float, ended: asyncio.Future[Any]) -> None:
        """Returns when no connection is left, which `ended` tells; what is busy after `seconds` is cut.

        An idle connection gets `idle_seconds`: its client may be about to send the next request.
        """
        deadline = self._loop.time() + seconds
        idle: dict[ClientWire, tuple[int, float]] = {}
        while not ended.done() and (now := self._loop.time()) < deadline:
            for wire in tuple(self.wires):
                # It may have been in its TLS handshake when the drain began.
                wire.last = True
                if wire.active:
                    idle.pop(wire, None)
                    continue
                count, since = idle.get(wire, (-1, now))
                if count != wire.requests:
                    idle[wire] = wire.requests, now
                elif now - since >= idle_seconds and not wire.unread:
                    wire.force_close()
            # aiohttp tells nobody when a connection is idle, and this happens once in the life of a process.
            await asyncio.wait((ended,), timeout=DRAIN_LOOK_SECONDS)
        if self.wires:
            log.warning("%d connections were still busy after %g s and are cut", len(self.wires), seconds)
        # To aiohttp, 0 is no bound at all.
        await self._aiohttp.shutdown(DRAIN_LOOK_SECONDS)
        for wire in tuple(self.wires):
            wire.force_close()
        await asyncio.wait((ended,), timeout=DRAIN_LOOK_SECONDS)

    def sweep(self) -> None:
        """Refuses connections whose request does not get complete in time, and closes those that are idle for
        too long. To be called about once a second.
        """
        server = self.gateway.snapshot.config.server
        limit = server.request_timeout_seconds
        # Where answers end their connections, a first request is still waited for.
        idle = server.keepalive_seconds or limit
        now = self._loop.time()
        for wire in tuple(self.wires):
            express = wire.express
            if express is not None and express.since and now - express.since > limit:
                express.refuse_late(limit)
            elif wire.head_since and now - wire.head_since > limit:
                wire.refuse_head(
                    InvalidRequest(
                        f"the request's head did not come within {limit:g} s",
                        status=408,
                        code="request_timeout",
                    )
                )
            else:
                wire.close_if_idle(now, idle)


def find(request: web.BaseRequest) -> tuple[str, Handler]:
    """The route's path and handler. Raises InvalidRequest: 404, or 405 for another method."""
    path = request.raw_path
    methods = ROUTES.get(path)
    if methods is None:
        # What a proxy would be asked for names the host too (RFC 9112, section 3.2.2).
        if path.startswith(("http://", "https://")):
            path = "/" + path.partition("://")[2].partition("/")[2]
        path = path.partition("?")[0]
        methods = ROUTES.get(path)
    if methods is None and path.startswith(admin.MODEL_PREFIX):
        methods = ROUTES["/v1/models/{id}"]
    if methods is None and path.startswith(fleet.PREFIX):
        methods = ROUTES.get(fleet.route_of(path))
    if methods is None and path in dashboard.FILES:
        methods = ROUTES["/dashboard/{file}"]
    if methods is None:
        raise InvalidRequest(
            f"there is no route {path[:200]!r}; the routes are: {', '.join(ROUTES)}",
            status=404,
            code="unknown_route",
        )
    handler = methods.get(request.method)
    if handler is None and request.method == "HEAD":
        # aiohttp leaves the body out.
        handler = methods.get("GET")
    if handler is None:
        allowed = ", ".join((*methods, "HEAD") if "GET" in methods else methods)
        raise InvalidRequest(
            f"{path} does not take {request.method[:20]!r}; allowed: {allowed}",
            status=405,
            code="method_not_allowed",
            headers={"allow": allowed},
        )
    return path, handler


def _line_bytes(header: tuple[Any, Any]) -> int:
    return len(header[0]) + len(header[1])
