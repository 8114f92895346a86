"""A small question of the gateway's own to a model server: the whole answer, or an error."""

import time
from typing import Final

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.balance.endpoint import Endpoint
from octoroute.errors import UpstreamFailed, UpstreamTimeout
from octoroute.upstream.answer import Answer
from octoroute.upstream.connection import Connection, Verdict
from octoroute.upstream.site import Site

TOO_LONG: Final = "too long"


class Nobody:
    """The client's side of a question: an answer so long that it would flow is none."""

    started = False

    def start(self, head: Head, relay: Relay) -> None:  # noqa: ARG002
        assert isinstance(relay, Connection)
        relay.settle(Verdict.BROKEN, TOO_LONG)

    def announce(self, head: Head, relay: Relay) -> None: ...

    def ping(self, relay: Relay) -> None: ...


async def fetch(
    endpoint: Endpoint, site: Site, active: dict[Connection, Endpoint], request: bytes, timeout_s: float
) -> Answer:
    """The answer of up to HOLD_BYTES, whatever its status. Raises UpstreamFailed, UpstreamTimeout.

    `active`: the exchanges whose deadlines are looked after.
    """
    deadline_ns = time.monotonic_ns() + int(timeout_s * 1e9)
    connection = site.pool.take()
    try:
        while True:
            if connection is None:
                connection = await site.pool.connect()
            active[connection] = endpoint
            verdict = await connection.inquire(request, Nobody(), deadline_ns)
            if verdict is not Verdict.FAILED or not connection.unanswered or not connection.was_reused:
                break
            # The server closed an idle connection just when it was used again.
            active.pop(connection, None)
            connection.close()
            connection = None
        if verdict is Verdict.WHOLE:
            return Answer.held_by(connection)
        if verdict is Verdict.TIMEOUT:
            raise UpstreamTimeout("the server did not answer in time")
        raise UpstreamFailed("the server did not answer", detail=connection.reason)
    finally:
        if connection is not None:
            active.pop(connection, None)
            connection.release()
