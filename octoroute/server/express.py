"""The short road of ordinary requests: their heads are read by the compiled reader, their bodies gathered
here, and the pipeline is started from within the read. aiohttp's parser, its tasks and its objects for each
request have no part in it.

A request is ordinary if octoroute/_request.pyx says so; every other one takes aiohttp's road
(server/completions.py). Both lead to the same pipeline, and a client can't tell them apart.
"""

import asyncio
from typing import Final

from octoroute._request import Body, RequestHead
from octoroute.errors import InvalidRequest
from octoroute.gatekeeper import Visit
from octoroute.gateway import Gateway
from octoroute.server.auth import let_in
from octoroute.server.body_reader import BodyReader
from octoroute.server.completions import client_side, read_view
from octoroute.server.downstream import Downstream
from octoroute.server.failure import body_writer, failure_of
from octoroute.server.pipeline import ActiveRequest
from octoroute.server.reading import body_too_late, new_id
from octoroute.server.wire import ClientWire

# Of requests that are sent before the one before them is answered: more is left in the socket.
MAX_AHEAD_BYTES: Final = 65_536
# Missing of a body: to read so much into its place pays for the change of protocols.
LARGE_BYTES: Final = 32_768


class Entrance:
    """Makes ordinary requests for one of the `ordinary` paths an Express each."""

    def __init__(self, gateway: Gateway, ordinary: frozenset[str]) -> None:
        self._gateway = gateway
        self._ordinary = ordinary

    def enter(self, wire: ClientWire, head: RequestHead, read: int) -> "Express | None":
        """For a request of which `read` bytes of body have come; None where it can't take the short road."""
        gateway = self._gateway
        server = gateway.snapshot.config.server
        if head.path not in self._ordinary or not read <= head.length <= server.max_body_bytes:
            return None
        if not server.keepalive_seconds:
            # Every answer ends its connection, which aiohttp knows best how to do.
            return None
        visit = None
        keys = gateway.keys
        if keys is not None and head.path not in keys.public:
            visit = let_in(head, keys)
            if visit is None:
                # Whoever has to be turned away is told by aiohttp's road.
                return None
        return Express(wire, head, gateway, visit)


class Express:
    """One ordinary request, from its head to the end of its answer."""

    def __init__(
        self, wire: ClientWire, head: RequestHead, gateway: Gateway, visit: Visit | None = None
    ) -> None:
        self._wire = wire
        self._head = head
        self._gateway = gateway
        # Left by the pipeline; abandoned here where the request does not come so far.
        self._visit = visit
        # While a part of it is missing.
        self._body: Body | None = None
        self._reader: BodyReader | None = None
        self._ahead = b""
        self._active: ActiveRequest | None = None
        self._client: Downstream | None = None
        # Since when a part of the body is missing, on the loop's clock; 0: none is.
        self.since = 0.0

    @property
    def has_next(self) -> bool:
        """Whether more came than this request."""
        return bool(self._ahead)

    def feed(self, data: bytes, at: int = 0) -> None:
        """What came of the body, behind the first `at` bytes, and what came behind the body."""
        if self._active is not None:
            self._ahead += data
            transport = self._wire.transport
            if len(self._ahead) > MAX_AHEAD_BYTES and transport is not None:
                transport.pause_reading()
            return
        body = self._body
        if body is None:
            if len(data) - at == self._head.length:
                self._begin(data[at:])
                return
            body = self._body = Body(self._head.length)
            self.since = asyncio.get_running_loop().time()
        at = body.add(data, at)
        if not body.missing:
            self._ahead = data[at:]
            self._complete(body)
        elif body.missing >= LARGE_BYTES:
            transport = self._wire.transport
            assert transport is not None
            self._reader = BodyReader(self._wire, transport, body, self._complete)

    def refuse_late(self, limit_s: float) -> None:
        """The body has not come within `limit_s`."""
        if self._reader is not None:
            self._reader.leave()
        self._abandon()
        self._wire.express = None
        self._wire.refuse_head(body_too_late(limit_s))

    def client_gone(self) -> None:
        """Nobody waits for an answer any more."""
        if self._active is not None:
            self._active.cancel()
        else:
            self._abandon()

    def _complete(self, body: Body) -> None:
        self._body = self._reader = None
        self.since = 0.0
        self._begin(body.take())

    def _begin(self, body: bytes) -> None:
        head, wire, gateway = self._head, self._wire, self._gateway
        path = head.path
        request_id = head.request_id or new_id()
        try:
            view = read_view(path, request_id, body, head, head.forwarded, gateway)
        except InvalidRequest as error:
            self._abandon()
            self._refuse(error, request_id)
            return
        self._client = client = client_side(path)(wire, request_id, gateway.forwarder.outbox)
        self._active = ActiveRequest(view, client, gateway, self._done, self._visit)
        self._active.start()

    def _done(self, error: BaseException | None) -> None:
        client = self._client
        assert client is not None
        if error is None:
            self._end(client.keep_alive)
        elif isinstance(error, asyncio.CancelledError):
            self._wire.express = self._active = None
        else:
            self._refuse(error, client.request_id)

    def _refuse(self, error: BaseException, request_id: str) -> None:
        self._active = None
        failure = failure_of(error, request_id, self._gateway)
        wire = self._wire
        client = self._client
        if client is not None and client.started:
            # A head is out already, so that nothing can be said any more.
            if wire.transport is not None:
                wire.transport.abort()
            return
        keep = not wire.last
        answer = wire.error_answer(failure, request_id, body_writer(self._head.path), keep=keep)
        if wire.transport is not None:
            if keep:
                # Behind an answer that waits to be written there.
                self._gateway.forwarder.outbox.post(wire.transport, (answer,))
            else:
                wire.transport.write(answer)
        self._end(keep)

    def _abandon(self) -> None:
        if self._visit is not None:
            self._visit.abandon()

    def _end(self, keep: bool) -> None:
        self._active = None
        self._wire.leave_express(self._ahead, keep=keep)
