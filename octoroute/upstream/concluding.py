"""What an attempt's verdict means for the client: an answer, its end, or nothing yet."""

import asyncio

from octoroute.exchange import Outcome, RequestView
from octoroute.upstream.answer import Answer
from octoroute.upstream.client import Client
from octoroute.upstream.connection import RETRYABLE, Connection, Verdict
from octoroute.upstream.failure import Failure, broke_off, failed, no_stream, refused, timed_out
from octoroute.upstream.plain_option import Gathering


def conclude(
    verdict: Verdict,
    connection: Connection,
    gathering: Gathering | None,
    view: RequestView,
    client: Client,
    outcome: Outcome,
) -> Failure | None:
    """None if the client got an answer, be it the server's own 4xx. Fills in `outcome`. Raises CancelledError
    where the client left.
    """
    if verdict is Verdict.WHOLE:
        answer = Answer.held_by(connection) if gathering is None else gathering.answer()
        status = answer.status
        if status in RETRYABLE:
            return refused(answer)
        if client.started:
            return no_stream(answer)
        client.send_whole(answer)
        if connection.first_ns:
            came_ns = connection.first_ns if gathering is None else connection.last_ns
            outcome.ttft_s = (came_ns - view.read_ns) * 1e-9
        outcome.bytes_out = len(answer.body)
        outcome.status = status
        outcome.result = "ok" if status < 400 else "error"
        outcome.tail = answer.body
        return None
    if verdict is Verdict.STREAMED:
        client.end()
        outcome.result = "ok" if connection.head.status < 400 else "error"
        return None
    if verdict is Verdict.FAILED:
        return failed(connection.reason)
    if verdict is Verdict.TIMEOUT:
        return timed_out()
    if verdict is Verdict.GONE:
        raise asyncio.CancelledError
    outcome.result = "broken"
    outcome.error = connection.reason
    if connection.rescue is not None and connection.head.event_stream:
        connection.rescue.note_break(connection)
    else:
        client.break_off(broke_off(), clean=connection.clean)
    return None
