"""The connection to a model server, as the event loop sees it."""

import asyncio
from typing import Any, cast

import pytest

from octoroute._poller import Poller
from octoroute.upstream.connection import Connection, Verdict
from octoroute.upstream.outbox import Outbox
from octoroute.upstream.pool import Pool

NEVER_NS = 1 << 62
EMPTY = b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"


class Wire:
    """The transport."""

    reads = True

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None: ...

    def writelines(self, pieces: Any) -> None: ...

    def pause_reading(self) -> None:
        self.reads = False


def test_a_connection_has_all_that_the_event_loop_calls() -> None:
    # Some calls come rarely: pause_writing only when a large request meets a slow reader.
    calls = [name for name in dir(asyncio.Protocol) if not name.startswith("_")]
    assert [name for name in calls if not hasattr(Connection, name)] == []


@pytest.mark.parametrize("answer", [b"", EMPTY])
async def test_a_connection_whose_verdict_is_known_is_read_only_if_its_answer_is_complete(
    answer: bytes,
) -> None:
    # Whoever waits for it may hear it a turn of the loop later.
    pool = Pool("http://h/v1", Outbox(), Poller(), tls_verify=True, connect_s=1.0, clock=lambda: 0.0)
    connection, wire = Connection(pool), Wire()
    connection.connection_made(cast(Any, wire))
    verdict: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    connection.ask((b"GET",), cast(Any, None), NEVER_NS, NEVER_NS, 0, verdict)
    if answer:
        connection.data_received(answer)
    else:
        connection.on_overdue()
    assert await verdict is (Verdict.WHOLE if answer else Verdict.TIMEOUT)
    assert wire.reads is bool(answer)
