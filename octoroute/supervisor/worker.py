"""One worker: an event loop, a gateway, a server on the given sockets; ends when told to, its requests
finished.
"""

import asyncio
import gc
import itertools
import logging
import os
import select
import signal
import socket
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import uvloop

from octoroute import logs
from octoroute._heap import keep_freed
from octoroute._listener import Listener
from octoroute.config import Config
from octoroute.errors import Ending, Internal
from octoroute.gateway import Gateway
from octoroute.observe.recent import Wanted
from octoroute.server.app import Api
from octoroute.server.reading import seed_ids
from octoroute.shared_memory import Shared
from octoroute.supervisor.channel import ENDS, Channel, Kind, Message
from octoroute.supervisor.sockets import BACKLOG

log = logging.getLogger(__name__)

EXIT_FATAL: Final = 70
# How long a client that asked for a reload or an upgrade waits for its outcome at most.
RELOAD_SECONDS: Final = 30.0
UPGRADE_SECONDS: Final = 75.0
# And for recent requests: beyond what the supervisor gives the workers for their answers (gathering.py).
GATHERING_SECONDS: Final = 5.0
MAX_GATHERINGS: Final = 4  # at a time
# How long an idle connection is left open for one more request, whose answer then ends it in order. A client
# that sends one after the other sends the next within milliseconds; and where another process serves, nobody
# is in a hurry.
LAST_REQUEST_SECONDS: Final = 0.5
REPLACED_IDLE_SECONDS: Final = 5.0
YOUNG_OBJECTS: Final = 50_000
# As much as some 30 prompts of 256 KB: with less, each gave its memory back, and the next asked for it again
# page by page, at a fifth of its CPU. Whoever sets one of the variables knows better.
KEPT_BYTES: Final = 8 << 20
HEAP_VARIABLES: Final = frozenset(
    ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES")
)
# And connections that the system took before the sockets closed, for being accepted.
ACCEPT_SECONDS: Final = 0.5
HANDSHAKE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Post:
    """What the supervisor gives to a worker: its column of the shared tables, its sockets, its line back."""

    column: int
    sockets: Sequence[socket.socket]
    tls: ssl.SSLContext | None
    channel: Channel


def run_worker(config: Config, shared: Shared, post: Post) -> int:
    """Serves until SIGTERM, a fatal error or the end of the supervisor; the exit code."""
    seed_ids()
    if HEAP_VARIABLES.isdisjoint(os.environ):
        keep_freed(KEPT_BYTES)
    return uvloop.run(_serve(config, shared, post))


async def _serve(config: Config, shared: Shared, post: Post) -> int:
    return await Worker(config, shared, post).serve()


class Worker:
    """Made inside its event loop. SIGTERM is blocked until it is ready to obey it."""

    def __init__(self, config: Config, shared: Shared, post: Post) -> None:
        self.loop = asyncio.get_running_loop()
        self.post = post
        self.channel = post.channel
        self.gateway = Gateway(config, shared, worker=post.column)
        self.gateway.on_fatal = self.retire
        self.gateway.ask_reload = self.ask_reload
        self.gateway.ask_upgrade = self.ask_upgrade
        self.gateway.ask_recent = self.ask_recent
        self.api = Api(self.gateway)
        self.gateway.housekeeping.append(self.api.sweep)
        self.stop: asyncio.Future[int] = self.loop.create_future()
        self.replaced = False
        self.asks = itertools.count(1)
        self.asking: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.gatherings = asyncio.Semaphore(MAX_GATHERINGS)

    async def serve(self) -> int:
        """From the first request to the last; the exit code."""
        self.loop.add_signal_handler(signal.SIGTERM, self.end, 0)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self.loop.add_reader(self.channel.fileno(), self.listen)
        servers = [await self.accept(sock) for sock in self.post.sockets]
        self.gateway.start()
        # What exists now lives as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        # Requests leave no cycles behind. Looking for some after each 700 new objects cost a twentieth of the
        # CPU of a small request.
        gc.set_threshold(YOUNG_OBJECTS)
        self.channel.send("ready")
        # Ends with the last connection, TLS handshakes included, of which aiohttp does not know yet.
        ended = asyncio.get_running_loop().create_task(_all_closed(servers))
        code = await self.stop
        self.api.begin_drain()
        await self._accept_the_last()
        for server in servers:
            server.close()
        await self.api.drain(
            self.gateway.snapshot.config.server.drain_seconds,
            REPLACED_IDLE_SECONDS if self.replaced else LAST_REQUEST_SECONDS,
            ended,
        )
        ended.cancel()
        await self.gateway.close()
        return code

    async def accept(self, sock: socket.socket) -> asyncio.Server | Listener:
        """Takes clients' connections from here on."""
        if self.post.tls is None:
            return Listener(self.gateway.forwarder.poller, sock, self.api)
        return await self.loop.create_server(
            self.api,
            sock=sock,
            ssl=self.post.tls,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
            # Without it, uvloop would cut that of the socket.
            backlog=BACKLOG,
        )

    def end(self, code: int) -> None:
        """Drains and ends. The first code counts."""
        if not self.stop.done():
            self.stop.set_result(code)

    def retire(self) -> None:
        """This process can't be trusted any more: another one takes its place while it drains."""
        if not self.stop.done():
            self.channel.send("retire")
            self.end(EXIT_FATAL)

    def listen(self) -> None:
        """Does what the supervisor says."""
        while True:
            try:
                message = self.channel.receive()
            except BlockingIOError:
                return
            if message is None:
                # Without a supervisor nobody would ever end this process.
                self.loop.remove_reader(self.channel.fileno())
                if not self.stop.done():
                    log.error("the supervisor is gone: this worker drains and ends")
                self.end(0)
                return
            self._obey(message)

    async def ask_reload(self) -> dict[str, Any]:
        """Has the supervisor reload the config in all workers. What came of it: see reloading.py."""
        return await self._ask("ask_reload", RELOAD_SECONDS, "the reload")

    async def ask_upgrade(self) -> dict[str, Any]:
        """Has the supervisor start the process that replaces it. What came of it: see upgrading.py."""
        return await self._ask("ask_upgrade", UPGRADE_SECONDS, "the upgrade")

    async def ask_recent(self, wanted: Wanted) -> dict[str, Any]:
        """Has the supervisor gather recent requests from all workers: see gathering.py."""
        async with self.gatherings:
            return await self._ask("ask_recent", GATHERING_SECONDS, "gathering them", wanted=asdict(wanted))

    async def _ask(self, kind: Kind, seconds: float, what: str, **fields: Any) -> dict[str, Any]:
        ask = next(self.asks)
        answer: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        self.asking[ask] = answer
        try:
            if not self.channel.send(kind, ask=ask, **fields):
                raise Internal("the supervisor does not answer")
            async with asyncio.timeout(seconds):
                outcome = await answer
        except TimeoutError:
            raise Internal(f"{what} took too long; the log says what came of it") from None
        finally:
            del self.asking[ask]
        if outcome == ENDS:
            raise Ending("this process ends, or another one serves in its place: ask again", retry_after_s=1)
        return outcome

    def _obey(self, message: Message) -> None:
        if message.kind == "apply" and message.config is not None:
            try:
                self.gateway.reload(message.config)
                logs.setup(message.config.observability)
            except Exception:
                # The others have the new config; so has the one that takes this one's place.
                log.exception("a config that was found good can't be used")
                self.retire()
            else:
                self.channel.send("applied", generation=message.fields["generation"])
        elif message.kind == "hand_over":
            self.replaced = True
            self.end(0)
        elif message.kind == "tell_recent":
            told = self.gateway.recent.latest(Wanted(**message.fields["wanted"]))
            self.channel.send("recent", round=message.fields["round"], told=told)
        elif message.kind in ("reloaded", "upgraded", "gathered"):
            answer = self.asking.get(message.fields["ask"])
            if answer is not None and not answer.done():
                answer.set_result(message.fields["outcome"])

    async def _accept_the_last(self) -> None:
        """Until no connection waits to be accepted: those are reset when the sockets close."""
        deadline = self.loop.time() + ACCEPT_SECONDS
        waiting = select.poll()
        for sock in self.post.sockets:
            waiting.register(sock, select.POLLIN)
        while waiting.poll(0) and self.loop.time() < deadline:  # noqa: ASYNC110 - no event tells it
            # uvloop accepts one connection in each turn.
            await asyncio.sleep(0)


async def _all_closed(servers: Iterable[asyncio.Server | Listener]) -> None:
    for server in servers:
        await server.wait_closed()
