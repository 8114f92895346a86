"""A small question of the gateway's own to a model server: the whole answer, or an error."""

import time
from typing import Final

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.balance.endpoint import Endpoint
from octoroute.errors import UpstreamFailed, UpstreamTimeout
from octoroute.upstream.answer import Answer
from octoroute.upstream.connection import HOLD_BYTES, Connection, Verdict
from octoroute.upstream.site import Site

TOO_LONG: Final = "too long"


class Nobody:
    """The client's side of a question. An answer so long that it flows is collected, up to `most_bytes`."""

    started = False

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.body = bytearray()
        self._connection: Connection | None = None

    def start(self, head: Head, relay: Relay) -> None:  # noqa: ARG002
        assert isinstance(relay, Connection)
        self._connection = relay
        relay.recode(self._collect)

    def _collect(self, payload: bytes) -> None:
        assert self._connection is not None
        if len(self.body) + len(payload) > self.most_bytes:
            self._connection.settle(Verdict.BROKEN, TOO_LONG)
        else:
            self.body += payload

    def announce(self, head: Head, relay: Relay) -> None: ...

    def ping(self, relay: Relay) -> None: ...


async def fetch(
    endpoint: Endpoint,
    site: Site,
    active: dict[Connection, Endpoint],
    request: bytes,
    timeout_s: float,
    most_bytes: int = HOLD_BYTES,
) -> Answer:
    """The answer of up to `most_bytes`, whatever its status. Raises UpstreamFailed, UpstreamTimeout.

    `active`: the exchanges whose deadlines are looked after.
    """
    deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
    connection = site.pool.take()
    try:
        while True:
            if connection is None:
                connection = await site.pool.connect(deadline_ns)
            active[connection] = endpoint
            nobody = Nobody(most_bytes)
            verdict = await connection.inquire(request, nobody, deadline_ns)
            if verdict is not Verdict.FAILED or not connection.unanswered or not connection.was_reused:
                break
            # The server closed an idle connection just when it was used again.
            active.pop(connection, None)
            connection.close()
            connection = None
        if verdict is Verdict.WHOLE:
            return Answer.held_by(connection)
        if verdict is Verdict.STREAMED:
            return Answer(connection.head, bytes(nobody.body))
        if verdict is Verdict.TIMEOUT:
            raise UpstreamTimeout("the server did not answer in time")
        raise UpstreamFailed("the server did not answer", detail=connection.reason)
    finally:
        if connection is not None:
            active.pop(connection, None)
            connection.release()
