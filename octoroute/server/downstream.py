"""The write side towards a client: heads, framing, comments, and how an answer ends that can't be completed.

Answers of model servers don't pass through aiohttp: they are written to the client's transport as they come.
"""

from collections.abc import Callable
from typing import Final, Self

from aiohttp import web
from aiohttp.http import HttpVersion11

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.errors import GatewayError, anthropic_body, openai_body
from octoroute.server.handler import CLOSE, KEEP, Written, wire_of
from octoroute.server.wire import ClientWire
from octoroute.upstream.answer import Answer
from octoroute.upstream.connection import CHUNKED, Connection
from octoroute.upstream.outbox import Outbox

OK: Final = b"HTTP/1.1 200 OK\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
PING: Final = b": keep-alive\n\n"
# For an event stream whose head must go out before the server's own came.
STREAM_HEAD: Final = b"Content-Type: text/event-stream\r\nCache-Control: no-cache\r\n"


class Downstream:
    """One request's way back to its client. `why` are header lines that go into the head."""

    def __init__(
        self,
        wire: ClientWire,
        request_id: str,
        outbox: Outbox,
        *,
        http11: bool = True,
        keep_alive: bool = True,
    ) -> None:
        transport = wire.transport
        assert transport is not None
        self._wire = wire
        self._transport = transport
        self._outbox = outbox
        self._http11 = http11
        self._chunked = False
        self._recoded = False
        # The answer is compressed, though nobody asked: words of ours would be no part of it.
        self._encoded = False
        self.request_id = request_id
        self.keep_alive = keep_alive
        self.started = False
        self.why = b""

    @classmethod
    def of(cls, request: web.BaseRequest, request_id: str, outbox: Outbox) -> Self:
        """The way back of a request that came by aiohttp's road."""
        wire = wire_of(request)
        http11 = request.version >= HttpVersion11
        return cls(wire, request_id, outbox, http11=http11, keep_alive=request.keep_alive and http11)

    def written(self) -> Written:
        """For aiohttp, when everything has been written."""
        return KEEP if self.keep_alive else CLOSE

    def attach(self, connection: Connection | None) -> None:
        self._wire.feed = connection
        if connection is not None and self._wire.writing_paused:
            connection.writing_paused = True
            connection.transport.pause_reading()

    def start(self, head: Head, relay: Relay) -> None:
        """Writes the head and lets `relay` pass on what it holds and all that follows.

        Verbatim, framing included, where the server's framing suits the client's connection; else the payload
        alone, framed anew: for HTTP/1.0 clients, for bodies that end with the connection, and for event
        streams that are not chunked, because only between chunks can a comment or an error of ours be put.
        """
        prefix = b"" if self.started else self._head(head.status, head.reason, head.end_to_end, head)
        self._encoded = b"content-encoding:" in head.end_to_end.lower()
        self.started = True
        if self._http11 and (head.framing == CHUNKED or (head.length >= 0 and not head.event_stream)):
            self._chunked = head.framing == CHUNKED
            relay.pass_on(self._wire.write, prefix)
            return
        self._recoded = True
        self._transport.write(prefix)
        relay.recode(self._payload if self._http11 else self._transport.write)

    def _head(self, status: int, reason: bytes, lines: bytes, head: Head | None) -> bytes:
        if head is None or head.event_stream or head.framing == CHUNKED or head.length < 0:
            self._chunked = self._http11
            framing = b"Transfer-Encoding: chunked\r\n" if self._http11 else b""
        else:
            framing = b"Content-Length: %d\r\n" % head.length
        if head is None or head.event_stream:
            # Tells nginx and its like not to gather events (their proxy buffering).
            framing += b"X-Accel-Buffering: no\r\n"
        return self._lines(status, reason, lines, framing)

    def _lines(self, status: int, reason: bytes, lines: bytes, framing: bytes) -> bytes:
        if self._wire.last:
            self.keep_alive = False
        begin = OK if status == 200 and reason == b"OK" else b"HTTP/1.1 %d %b\r\n" % (status, reason)
        # Joining costs a third of what `%` does.
        end = b"\r\n\r\n" if self.keep_alive else b"\r\nConnection: close\r\n\r\n"
        return b"".join((begin, lines, framing, self.why, b"x-request-id: ", self.request_id.encode(), end))

    def _payload(self, payload: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(payload), payload))

    def send_whole(self, answer: Answer) -> None:
        """Writes a complete answer, its length known, in one write."""
        head = answer.head
        self.started = True
        framing = b"Content-Length: %d\r\n" % len(answer.body) if head.status not in (204, 304) else b""
        lines = self._lines(head.status, head.reason, head.end_to_end, framing)
        if self.keep_alive and not self._wire.has_next:
            self._outbox.post(self._transport, (lines + answer.body,))
        else:
            # What follows on this connection (its end, the answer to a pipelined request) must come after.
            self._transport.write(lines + answer.body)

    def announce(self, head: Head, relay: Relay) -> None:
        """Writes the head of a stream whose first event is slow to come."""
        self.started = True
        self._transport.write(self._head(head.status, head.reason, head.end_to_end, head))
        relay.spoke()

    def ping(self, relay: Relay) -> None:
        if self._encoded:
            return
        if not self.started:
            self.started = True
            self._transport.write(self._head(200, b"OK", STREAM_HEAD, None))
        if self._chunked:
            self._payload(PING)
        elif not self._http11:
            self._transport.write(PING)
        else:
            return
        relay.spoke()

    def carry_on(self) -> Callable[[bytes], object]:
        """From here the payload alone is given, framed anew: another server goes on with the answer."""
        self._recoded = True
        return self._payload if self._http11 else self._transport.write

    def end(self) -> None:
        """Everything of a streamed answer was passed on: the end of our own framing is due."""
        if self._recoded and self._http11:
            self._transport.write(LAST_CHUNK)

    def error_event(self, error: GatewayError, message: str) -> bytes:
        return b"data: %b\n\n" % openai_body(error, message)

    def break_off(self, error: GatewayError, *, clean: bool) -> None:
        """Ends a started answer that can't be completed.

        Between two events the client can be told; inside of one, or of a plain body, the only honest end is
        none.
        """
        self.keep_alive = False
        if clean and not self._encoded and (self._chunked or not self._http11):
            message = f"{error.message} (request id: {self.request_id})"
            event = self.error_event(error, message)
            if self._http11:
                self._payload(event)
                self._transport.write(LAST_CHUNK)
            else:
                self._transport.write(event)
            self._transport.close()
        else:
            self._transport.abort()


class MessagesDownstream(Downstream):
    """The way back to a client of /v1/messages, which looks for errors under the event name `error` only."""

    def error_event(self, error: GatewayError, message: str) -> bytes:
        return b"event: error\ndata: %b\n\n" % anthropic_body(error, message)
