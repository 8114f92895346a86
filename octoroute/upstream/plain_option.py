"""Whether the plain requests of one endpoint are asked for as streams, and the client's side of one that is.

llama.cpp sees at once that the client of a stream has left, but that of a plain request only after a second
in which no request got a token: so it works on for nobody. Asked for a stream it can be stopped within a
token, and the client gets the plain answer that the stream's chunks are put together to (assembling.py).
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Self

import orjson

from octoroute._http1 import Head, parse_head
from octoroute._relay import Relay
from octoroute.exchange import RequestView
from octoroute.upstream.answer import Answer
from octoroute.upstream.assembling import Assembler, written_for_nothing
from octoroute.upstream.connection import DOUBT_NS, ClientSide, Connection, Verdict
from octoroute.upstream.pool import Pool
from octoroute.upstream.streamable import may_stream

KIND: Final = "llama_cpp"
TYPE_LINE: Final = b"Content-Type: application/json; charset=utf-8\r\n"
REASONS: Final = frozenset(HTTPStatus)
# An error that a plain request does not meet: what was said of a message has changed.
STREAMS_ONLY: Final = "Invalid diff"
# Why an exchange ended: as connection.py says it, and our own.
ERROR_EVENT: Final = "error event"
STALLED: Final = "stalled"
INEXACT: Final = "inexact"
# How many requests may have to be asked for again: one in twenty. A server that needs it more often gets one
# in a hundred as a stream; one that was not exact yet, this many.
CREDIT: Final = 3.0
EARNS: Final = 0.05
RETURNS: Final = 0.01


class PlainOption:
    """One per endpoint and snapshot."""

    __slots__ = ("_credit", "_kind", "_limit", "_pool", "_proven", "nothing")

    def __init__(self, kind: str, pool: Pool, limit: int) -> None:
        """`limit`: bytes of text of one answer."""
        self._kind = kind
        self._pool = pool
        self._limit = limit
        self._credit = CREDIT
        self._proven = False  # whether one was exact
        self.nothing = b""  # how the server writes an answer without text, where that is known

    def gathering(self, view: RequestView) -> "Gathering | None":
        """For an attempt at this request; None: it is asked for as it came."""
        if (
            view.stream
            or (self._pool.kind if self._kind == "auto" else self._kind) != KIND
            or not may_stream(view.path, view.fields)
        ):
            return None
        if self._credit < 1.0:
            self._credit += RETURNS
            return None
        if not self._proven:
            self._credit -= 1.0
        return Gathering(self, Assembler(view.path, self._limit, self.nothing))

    def book(self, exact: bool | None) -> None:
        """What came of one; None: no answer."""
        if exact:
            self._credit = min(CREDIT, self._credit + EARNS) if self._proven else CREDIT
            self._proven = True
        elif (exact is None) != self._proven:
            self._credit += 1.0 if exact is None else -1.0


class Gathering:
    """The client's side of one attempt, `on_behalf_of` the client of a plain request: gets a stream, and has
    the plain answer in the end.

    Nothing has gone to the client before that. `passes`: the answer is no stream, and goes its usual way.
    """

    __slots__ = ("_answer", "_assembler", "_client", "_connection", "_option", "passes")

    def __init__(self, option: PlainOption, assembler: Assembler) -> None:
        self._option = option
        self._assembler = assembler
        self._answer: Answer | None = None
        self.passes = False

    def on_behalf_of(self, client: ClientSide, connection: Connection) -> Self:
        self._client = client
        self._connection = connection
        # A server that was told to end leaves its streams open, and says no more.
        connection.watch_ns = DOUBT_NS
        return self

    def ended(self, verdict: Verdict) -> Verdict | None:
        """What the verdict on the stream is to the plain request; None: it must be asked for as it came."""
        connection, assembler = self._connection, self._assembler
        if self.passes:
            return verdict
        if verdict is Verdict.STREAMED:
            body = assembler.finish()
            if body:
                self._answer = Answer(_plain_head(connection.head, 200, len(body)), body)
                self._option.book(True)
                return Verdict.WHOLE
        elif verdict is Verdict.FAILED and connection.reason == ERROR_EVENT:
            assembler.feed(connection.held_payload())
            assembler.finish()
        elif verdict is Verdict.BROKEN:
            if connection.reason not in (ERROR_EVENT, INEXACT):
                verdict = Verdict.TIMEOUT if connection.reason == STALLED else Verdict.FAILED
                self._option.book(None)
                return verdict
        else:
            self._option.book(None)
            return verdict
        if assembler.error is not None and not _of_streams_only(assembler.error):
            self._answer = _error_answer(connection.head, assembler.error)
            self._option.book(None)
            return Verdict.WHOLE
        self.passes = True
        self._option.book(False)
        return None

    def answer(self) -> Answer:
        """Of a verdict WHOLE."""
        if self._answer is not None:
            return self._answer
        answer = Answer.held_by(self._connection)
        if not self._option.nothing and answer.status == 200:
            self._option.nothing = written_for_nothing(answer.body)
        return answer

    # What a connection needs of the client's side.

    @property
    def started(self) -> bool:
        return self._client.started

    def start(self, head: Head, relay: Relay) -> None:
        if not head.event_stream:
            self.passes = True
        if self.passes:
            self._client.start(head, relay)
        else:
            relay.recode(self._feed)

    def announce(self, head: Head, relay: Relay) -> None: ...

    def ping(self, relay: Relay) -> None: ...

    def _feed(self, payload: bytes) -> None:
        connection, assembler = self._connection, self._assembler
        # The time that an attempt may take is for the whole of a plain answer.
        connection.idle_ns = connection.deadline_ns - connection.last_ns
        assembler.feed(payload)
        if assembler.error is not None:
            connection.settle(Verdict.BROKEN, ERROR_EVENT)
        elif assembler.problem:
            connection.settle(Verdict.BROKEN, INEXACT)


def _of_streams_only(error: Mapping[str, Any]) -> bool:
    message = error["error"].get("message")
    return isinstance(message, str) and message.startswith(STREAMS_ONLY)


def _error_answer(head: Head, error: Mapping[str, Any]) -> Answer:
    """The answer that a plain request would have got."""
    code = error["error"].get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 500
    body = orjson.dumps(error)
    return Answer(_plain_head(head, status, len(body)), body)


def _plain_head(head: Head, status: int, length: int) -> Head:
    """The head of a stream as a plain answer would have had it."""
    lines = b"".join(
        TYPE_LINE if line[:13].lower() == b"content-type:" else line
        for line in head.end_to_end.splitlines(keepends=True)
    )
    reason = HTTPStatus(status).phrase if status in REASONS else ""
    plain, _ = parse_head(
        b"HTTP/1.1 %d %b\r\n%bContent-Length: %d\r\n\r\n" % (status, reason.encode(), lines, length)
    )
    assert plain is not None
    return plain
