"""Stands in for a client's connection while a large body comes: the loop reads into the body's own bytes, so
that none is copied, and never beyond its end.

All else that happens to the connection is told to the connection.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from octoroute._request import Body
from octoroute.server.wire import ClientWire


class BodyReader(asyncio.BufferedProtocol):
    """`done` is called when nothing is missing; the connection reads by itself again by then."""

    def __init__(
        self, wire: ClientWire, transport: asyncio.Transport, body: Body, done: Callable[[Body], None]
    ) -> None:
        self._wire = wire
        self._transport = transport
        self._body = body
        self._done = done
        transport.set_protocol(self)

    def leave(self) -> None:
        """The connection reads by itself again."""
        self._transport.set_protocol(cast("asyncio.Protocol", self._wire))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._body.place()

    def buffer_updated(self, nbytes: int) -> None:
        body = self._body
        body.grew(nbytes)
        if not body.missing:
            self.leave()
            self._done(body)

    def eof_received(self) -> None:
        self._wire.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wire.connection_lost(exc)

    def pause_writing(self) -> None:
        self._wire.pause_writing()

    def resume_writing(self) -> None:
        self._wire.resume_writing()
