"""One connection to a model server: sends a request, judges the beginning of the answer, lets the rest flow.

Built on the compiled relay (octoroute._relay), which carries the bytes; here are the turning points only.
What came of an exchange is its verdict; what to do about it is decided in forward.py.
"""

import asyncio
import time
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import orjson

from octoroute._delivered import Delivered
from octoroute._framing import Framing
from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute._sse import first_data_event, names
from octoroute.upstream.events import EventReader

if TYPE_CHECKING:
    from octoroute.upstream.dial import Dial
    from octoroute.upstream.pool import Pool

# Up to here an answer that is no event stream is kept back until it is complete, so that a server that dies
# in the middle of it can be replaced unseen; a larger one flows.
HOLD_BYTES = 65_536
# A stream's head waits so long for the first event behind it: a server that fails at once can then be
# replaced, or its failure told as a status; a client whose prompt takes longer sees that it was heard.
ANNOUNCE_NS = 250_000_000
# A stream silent for so long may be one whose server takes no more connections: it was told to end, and will
# never say more. The next look at the server comes a second later at the earliest.
DOUBT_NS = 2_000_000_000
# A client that waits for a stream hears a comment line after so much silence, as from octoroute 1.0.
PING_NS = 15_000_000_000
CHUNKED = 2
ERROR = b'"error"'
RETRYABLE = frozenset((429, 500, 502, 503, 504))


class Verdict(Enum):
    """What came of an exchange."""

    WHOLE = "whole"  # the complete answer is held; nothing went to the client
    STREAMED = "streamed"  # the complete answer went to the client
    FAILED = "failed"  # no answer, nothing went to the client
    TIMEOUT = "timeout"  # the same: it did not come in time
    BROKEN = "broken"  # a part of an answer went to the client, the rest never came
    GONE = "gone"  # the client left


class ClientSide(Protocol):
    """What a connection needs of the client's side (server/downstream.py)."""

    def start(self, head: Head, relay: Relay) -> None:
        """The answer goes out from here: write the head and let `relay` pass on what it holds and what
        follows.
        """

    def announce(self, head: Head, relay: Relay) -> None:
        """A stream has begun whose first event is slow to come: write the head alone."""

    def ping(self, relay: Relay) -> None:
        """Say something harmless: the client has heard nothing for a while."""

    @property
    def started(self) -> bool:
        """Whether a head has been written."""


class Promise(Protocol):
    """Who is told the verdict: a future, or whoever wants it without one."""

    def done(self) -> bool: ...

    def set_result(self, verdict: Verdict, /) -> None: ...


class Rescue(Protocol):
    """What a connection needs of whoever can have its stream continued elsewhere (resume.py)."""

    @property
    def stall_ns(self) -> int:
        """Silence after which the stream counts as broken if it can be continued; 0: never."""

    def record(self) -> Delivered | None:
        """Where what is delivered has to be kept, if it wants that."""

    def possible(self, connection: "Connection") -> bool:
        """Whether the stream could be continued by another server now."""

    def relieve(self, connection: "Connection") -> object:
        """Much was delivered since it was last asked."""

    def note_break(self, connection: "Connection") -> None:
        """The stream broke, and is to be continued or ended there."""


class Connection(Relay):
    """`ask` starts an exchange; its promise gets the verdict. `reason` says what went wrong, for the log."""

    def __init__(self, pool: "Pool") -> None:
        super().__init__()
        self.pool = pool
        self.dial: Dial | None = None
        self.client: ClientSide | None = None
        self.promise: Promise | None = None
        self.reason = ""
        self.rescue: Rescue | None = None
        self.silence_ns = 0
        self.was_reused = False
        self.carried_stream = False
        self.idle_since = 0.0

    def __repr__(self) -> str:
        return f"<Connection to {self.pool.label} {'closed' if self.closed else 'open'} {self.reason}>"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        dial, self.dial = self.dial, None
        if dial is not None:
            dial.made(self)

    def ask(
        self,
        request: tuple[bytes | memoryview, ...],
        client: ClientSide,
        deadline_ns: int,
        idle_ns: int,
        ping_ns: int,
        promise: Promise,
    ) -> None:
        """Writes the request: pieces of head and body, none where it was sent already. Times are in
        nanoseconds, `deadline_ns` on the monotonic clock.
        """
        self.client = client
        self.reason = ""
        self.promise = promise
        self.deadline_ns = deadline_ns
        self.idle_ns = idle_ns
        self.ping_ns = self.silence_ns = ping_ns
        self.begin()
        if self.closed:
            # Lost between the end of the connecting and now.
            self.on_failure("closed")
        elif request:
            self.pool.outbox.post(self.transport, request)

    async def inquire(
        self, request: bytes, client: ClientSide, deadline_ns: int, idle_ns: int = 0
    ) -> Verdict:
        """The same for a request of the gateway's own, with its verdict waited for."""
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.ask((request,), client, deadline_ns, idle_ns, 0, future)
        return await future

    def settle(self, verdict: Verdict, reason: str = "") -> None:
        """Ends the exchange. The first verdict counts."""
        promise = self.promise
        if promise is None:
            return
        self.promise = None
        self.reason = reason
        self.client = None
        if not self.complete and not self.closed:
            # Who waits for the verdict may hear it a turn of the loop later: nothing may flow until then.
            self.transport.pause_reading()
        if not promise.done():
            promise.set_result(verdict)

    # Turning points, called by the relay.

    def on_head(self) -> None:
        hide_secrets(self)
        if self.silence_ns and self.head.event_stream and self.head.status == 200:
            self.ping_ns = ANNOUNCE_NS

    def on_held(self) -> None:
        head = self.head
        if head.event_stream and head.status == 200:
            self.carried_stream = True
            if self._lives():
                if self.rescue is not None:
                    self.delivered = self.rescue.record()
                self._start()
        elif self.framing.done:
            problem = self._unlikely() if head.status == 200 else ""
            self.settle(Verdict.FAILED if problem else Verdict.WHOLE, problem)
        elif self.held_bytes > HOLD_BYTES:
            if head.status in RETRYABLE:
                self.settle(Verdict.FAILED, f"status {head.status}")
            else:
                self.ping_ns = 0
                self._start()

    def _lives(self) -> bool:
        """Whether the held beginning of an event stream is worth sending: a first data event that is no
        error.
        """
        payload = self.held_payload()
        event = first_data_event(payload)
        if event is None:
            if self.framing.done:
                self.settle(Verdict.FAILED, "malformed: a stream without an event")
                return False
            return self.held_bytes > HOLD_BYTES
        if names(payload, ERROR) and (is_error_event(event) or self._breaks(payload)):
            self.settle(Verdict.FAILED, "error event")
            return False
        return True

    def _unlikely(self) -> str:
        """Why a complete answer of status 200 is not to be believed, if there is a reason."""
        if not self.framing.payload_bytes:
            return "malformed: an empty body"
        if not self.reusable and self.head.keep_alive and not self.closed:
            # Bytes came behind the end: is it the length that is wrong?
            try:
                orjson.loads(self.held_payload())
            except ValueError:
                return "malformed: the body goes on behind its end"
        return ""

    def _start(self) -> None:
        client = self.client
        assert client is not None
        hide_secrets(self)
        client.start(self.head, self)
        if self.complete:
            self.settle(Verdict.STREAMED)

    def _breaks(self, payload: bytes) -> bool:
        """Whether a stream that could be sent again elsewhere holds an error event."""
        return self.rescue is not None and has_error_event(payload)

    def on_end(self) -> None:
        self.settle(Verdict.STREAMED)

    def on_failure(self, reason: str) -> None:
        self.settle(Verdict.BROKEN if self.flowing else Verdict.FAILED, reason)

    def on_overdue(self) -> None:
        if self.flowing:
            self.settle(Verdict.BROKEN, "the client stopped reading" if self.writing_paused else "stalled")
        else:
            self.settle(Verdict.TIMEOUT, "no answer in time")

    def on_quiet(self) -> None:
        if self.client is None:
            return
        if self.ping_ns != self.silence_ns:
            self.ping_ns = self.silence_ns
            if not self.client.started:
                self.client.announce(self.head, self)
        elif self.clean:
            self.client.ping(self)

    def on_silence(self, silence_ns: int) -> None:
        rescue = self.rescue
        if self.promise is None:
            return
        if (
            rescue is not None
            and 0 < rescue.stall_ns <= silence_ns
            and self.flowing
            and rescue.possible(self)
        ):
            self.settle(Verdict.BROKEN, "stalled")
        elif silence_ns >= DOUBT_NS:
            self.pool.doubt(self)

    @property
    def silent(self) -> bool:
        """Whether an answer is awaited whose server has said nothing for long."""
        return self.promise is not None and time.monotonic_ns() - self.last_ns >= DOUBT_NS

    def fail_silent(self) -> None:
        """The silent server takes no new connections."""
        self.on_failure("refused")

    def on_delivered(self) -> None:
        if self.rescue is not None:
            self.rescue.relieve(self)

    def on_error_word(self, data: bytes) -> bool:
        rescue = self.rescue
        if rescue is None or not self.clean:
            return False
        payload = Framing(CHUNKED).feed(data)[2] if self.passes_framing else data
        if not has_error_event(payload) or not rescue.possible(self):
            return False
        self.settle(Verdict.BROKEN, "error event")
        return True

    def on_idle_lost(self) -> None:
        self.pool.lost(self)

    def pause_writing(self) -> None:
        """The server is slow to take a large request. All of it is in memory already: nothing to pause."""

    def resume_writing(self) -> None:
        """See pause_writing."""

    @property
    def unanswered(self) -> bool:
        """Whether the connection ended before any byte of an answer came."""
        return self.closed and self.head is None and not self.heads.unparsed

    def client_gone(self) -> None:
        """The client left: nobody wants the answer, so the server is told at once by closing."""
        self.settle(Verdict.GONE, "client gone")
        self.close()

    def close(self) -> None:
        """Ends the connection now; bytes not yet written are dropped."""
        self.finish()
        if not self.closed:
            self.transport.abort()

    def release(self) -> None:
        """After an exchange: back to the pool if the connection is fit for another, else closed."""
        fit = self.complete and self.reusable and not self.closed
        if self.writing_paused and not self.closed:
            # The client that did not read is no longer this connection's.
            self.transport.resume_reading()
        self.finish()
        self.rescue = self.client = None
        if fit and not self.transport.is_closing():
            self.rest()
            self.pool.give(self)
        else:
            self.close()


def hide_secrets(connection: Connection) -> None:
    """The head that came goes to a client: it must not hold the server's key."""
    for secret in connection.pool.secrets:
        connection.head.hide(secret)


def has_error_event(payload: bytes) -> bool:
    """Whether one of the complete events is an error."""
    return any(is_error_event(event) for event, data in EventReader().feed(payload) if data is not None)


def is_error_event(event: bytes) -> bool:
    """Whether an event's data is an object that is an error and no part of an answer."""
    data = b"".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    try:
        value = orjson.loads(data)
    except ValueError:
        return False
    return isinstance(value, dict) and bool(value.get("error")) and "choices" not in value
