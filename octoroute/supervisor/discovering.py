"""Discovery as the supervisor does it: a process of its own looks at the sources, and is started again when
it ends; what it finds is kept here.

That process may have an event loop and threads, which the supervisor must not.
"""

import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Final

from octoroute.config.found import Address, Found, Place
from octoroute.config.sources import Discovery
from octoroute.discovery.known import Known
from octoroute.discovery.search import search
from octoroute.observe.registry import Registry
from octoroute.observe.sources import SourceBoard
from octoroute.supervisor.channel import Channel, Message
from octoroute.supervisor.forking import fork

log = logging.getLogger(__name__)

# How long the first workers wait for the first answers: those of a network that works come in milliseconds.
FIRST_ANSWERS_SECONDS: Final = 5.0
BACKOFF: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
STEADY_SECONDS: Final = 60.0
NOBODY_LOOKS: Final = "the process that looks for servers ended"


class Discovering:
    """`follow` says what the sources are; nothing runs where there are none."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        let_go: Callable[[], None],
        board: SourceBoard,
        registry: Registry,
    ) -> None:
        """`let_go` drops, in the new process, what is the supervisor's."""
        self.pid = 0
        self._selector = selector
        self._let_go = let_go
        self._board = board
        self._failures = registry.bound("octoroute_discovery_failures_total")
        self._watches = registry.bound("octoroute_discovery_watches_total")
        self._known = Known()
        self._discovery = Discovery()
        self._channel: Channel | None = None
        self._changed = False
        self._ends_as_told = False
        self._started = 0.0
        self._crashes = 0
        self._due: float | None = None
        self._first_answers_by = 0.0

    @property
    def deadlines(self) -> list[float]:
        """When `look_after` has something to do, or `awaited` ends, on the monotonic clock."""
        awaited = self._first_answers_by if self.awaited else None
        return [at for at in (self._due, self._known.deadline, awaited) if at is not None]

    @property
    def awaited(self) -> bool:
        """Whether the first workers had better wait for what will be found."""
        return not self._known.complete and time.monotonic() < self._first_answers_by

    def follow(self, discovery: Discovery) -> None:
        """From now on these are the sources. What is known of those that stay is kept meanwhile."""
        if discovery == self._discovery:
            return
        first = self._discovery == Discovery()
        self._discovery = discovery
        before = self._known.found
        self._known.follow({(kind, tier): source.keep_seconds for kind, tier, source in discovery.sources()})
        self._board.follow(list(self._known.found))
        # A source that is left out and comes back later must not find what it had.
        self._changed |= before.keys() != self._known.found.keys()
        if first:
            self._first_answers_by = time.monotonic() + FIRST_ANSWERS_SECONDS
        self.stop()
        if not self.pid and any(discovery.sources()):
            self._due = time.monotonic()

    def look_after(self, now: float) -> None:
        """Starts the process when it is due, and gives up what has been out of date for too long."""
        if self._due is not None and now >= self._due:
            self._start(now)
        for place in self._known.expire(now):
            log.error("%s: its last servers are given up", _name(place))
            self._board.note_servers(place, 0)
            self._changed = True

    def take_changes(self) -> Found | None:
        """What there is now, if that is not what there was at the last call."""
        if not self._changed:
            return None
        self._changed = False
        return self._known.found

    def _listen(self) -> None:
        """Takes note of what the process says."""
        while self._channel is not None:
            try:
                message = self._channel.receive()
            except BlockingIOError:
                return
            if message is None:
                # It ends: SIGCHLD tells how.
                self._hang_up()
                return
            self._hear(message)

    def stop(self) -> None:
        """Ends the process; what it said and nobody has heard yet is out of date."""
        self._due = None
        self._hang_up()
        if self.pid:
            self._ends_as_told = True
            os.kill(self.pid, signal.SIGTERM)

    def ended(self, code: int) -> None:
        """The process has ended."""
        self._listen()
        self._hang_up()
        self.pid = 0
        if not any(self._discovery.sources()):
            return
        now = time.monotonic()
        if self._ends_as_told:
            self._due = now
            return
        self._crashes = 0 if now - self._started > STEADY_SECONDS else self._crashes + 1
        pause = BACKOFF[min(self._crashes, len(BACKOFF) - 1)]
        self._due = now + pause
        log.error("%s with status %d; another one starts in %g s", NOBODY_LOOKS, code, pause)
        for kind, tier, _ in self._discovery.sources():
            self._note_lost((kind, tier), "crashed", NOBODY_LOOKS)

    def close(self) -> None:
        """Drops the line to the process, where it is a copy."""
        if self._channel is not None:
            self._channel.close()

    def _start(self, now: float) -> None:
        self._due = None
        self._started = now
        self._ends_as_told = False
        discovery = self._discovery
        ours, theirs = Channel.pair()

        def look() -> int:
            ours.close()
            self._let_go()
            return search(discovery, theirs)

        self.pid = fork(look)
        theirs.close()
        self._channel = ours
        self._selector.register(ours, selectors.EVENT_READ, self._listen)

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._selector.unregister(self._channel)
            self._channel.close()
            self._channel = None

    def _hear(self, message: Message) -> None:
        kind, tier = message.fields["place"]
        place: Place = (kind, tier)
        if message.kind in ("found", "same"):
            self._board.note_success(place, time.time())
        if message.kind == "found":
            addresses = tuple(Address(*parts) for parts in message.fields["addresses"])
            changed, recovered = self._known.note_found(place, addresses)
            self._changed |= changed
            self._board.note_servers(place, len(addresses))
            if recovered:
                log.info("%s: it can be looked at again; servers: %d", _name(place), len(addresses))
        elif message.kind == "lost":
            self._note_lost(place, message.fields["reason"], message.fields["trouble"])
        elif message.kind == "watched":
            self._watches[tier, message.fields["ended"]].inc()

    def _note_lost(self, place: Place, reason: str, trouble: str) -> None:
        self._failures[(*place, reason)].inc()
        self._board.note_failure(place, reason)
        kept = self._known.note_lost(place, trouble, time.monotonic())
        if kept is not None:
            count = len(self._known.found.get(place, ()))
            known = f"its last {count} servers are used for {kept:.0f} s more" if count else "it has none"
            log.warning("%s: %s; %s", _name(place), trouble, known)


def _name(place: Place) -> str:
    return "discovery." + ".".join(place)
