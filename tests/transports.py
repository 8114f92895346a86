"""What the tests of octoroute's own transports share: real sockets on both event loops, and protocols that
note what they are told.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from typing import Any, Final, TypeVar

import pytest
import uvloop

from octoroute._poller import Poller
from octoroute._transport import Receiver, SocketTransport

LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
on_each_loop = pytest.mark.parametrize("loop", list(LOOPS))
PATIENCE_SECONDS: Final = 30.0


class Notes(asyncio.BaseProtocol):
    """The part of a protocol that is the same for all kinds. `on` has what else to do, by the note's name."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.got = bytearray()
        self.lost: list[BaseException | None] = []
        self.on: dict[str, Callable[[], object]] = {}
        self.stays = False
        self.transport: SocketTransport
        self._news = asyncio.Event()

    def note(self, what: str) -> None:
        self.notes.append(what)
        self._news.set()
        if what in self.on:
            self.on[what]()

    async def until(self, true: Callable[[], object]) -> None:
        """Waits until something is `true` after a note."""
        while not true():
            self._news.clear()
            await self._news.wait()

    async def notes_down(self, what: str) -> None:
        await self.until(lambda: what in self.notes)

    async def hears(self, data: bytes) -> None:
        await self.until(lambda: len(self.got) >= len(data))
        assert self.got == data

    async def ends(self) -> BaseException | None:
        """Waits for the end; what it was told."""
        await self.until(lambda: self.lost)
        return self.lost[0]

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.note("made")

    def take(self, data: bytes | memoryview) -> None:
        self.got += data
        self.note("data")

    def eof_received(self) -> bool:
        self.note("eof")
        return self.stays

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.append(exc)
        self.note("lost")


class Plain(Notes, asyncio.Protocol):
    def data_received(self, data: bytes) -> None:
        self.take(data)


class Compiled(Notes, Receiver):
    def data_received(self, data: bytes) -> None:
        self.take(data)


class Buffered(Notes, asyncio.BufferedProtocol):
    """Has room for so many bytes at a time."""

    def __init__(self, room: int = 1000) -> None:
        super().__init__()
        self.room = bytearray(room)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        return self.room

    def buffer_updated(self, nbytes: int) -> None:
        self.take(memoryview(self.room)[:nbytes])


KINDS: Final[list[type[Notes]]] = [Plain, Compiled, Buffered]


P = TypeVar("P", bound=Notes)


class Bench:
    """A poller on the running loop, its sockets, and what the loop's exception handler was told."""

    def __init__(self, stack: ExitStack) -> None:
        self.loop = asyncio.get_running_loop()
        self.poller = Poller()
        self.told: list[dict[str, Any]] = []
        self._stack = stack
        self.started: list[SocketTransport] = []
        self.on_told = asyncio.Event()
        self.loop.set_exception_handler(self._take)
        stack.callback(self.poller.close)

    def _take(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.told.append(context)
        self.on_told.set()

    @property
    def errors(self) -> list[str]:
        """Of what was told."""
        return [str(context["exception"]) for context in self.told]

    def keep(self, sock: socket.socket) -> socket.socket:
        """Closed with the bench, and does not block."""
        sock.setblocking(False)
        return self._stack.enter_context(sock)

    def sockets(self, *, tcp: bool) -> tuple[socket.socket, socket.socket]:
        """Two that are connected."""
        if not tcp:
            ours, theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as server:
                theirs = socket.create_connection(server.getsockname())
                ours, _ = server.accept()
            theirs.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ours.setblocking(False)
        return ours, self.keep(theirs)

    def start(self, protocol: P, *, tcp: bool = False) -> tuple[P, socket.socket]:
        """A protocol with its transport, and the peer's socket."""
        ours, theirs = self.sockets(tcp=tcp)
        SocketTransport(self.poller, ours.detach()).start(protocol)
        self.started.append(protocol.transport)
        return protocol, theirs

    async def end(self) -> None:
        """The scene is over."""
        for transport in self.started:
            transport.abort()
        await self.turns()

    async def read_to_end(self, sock: socket.socket, size: int = 65_536) -> bytes:
        pieces = []
        while piece := await self.loop.sock_recv(sock, size):
            pieces.append(piece)
        return b"".join(pieces)

    async def turns(self) -> None:
        """Whatever is ready by now is served."""
        for _ in range(3):
            await asyncio.sleep(0)


def reset(sock: socket.socket) -> None:
    """Ends a TCP connection as a peer does that has crashed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def fill(size: int, seed: int = 0) -> bytes:
    """Bytes that are not the same when a part is lost, doubled or moved."""
    return b"".join(struct.pack("<II", seed, at) for at in range(size // 8 + 1))[:size]


def run(loop: str, scene: Callable[[Bench], Awaitable[None]]) -> None:
    """Plays a scene on one of LOOPS."""

    async def play() -> None:
        with ExitStack() as stack:
            bench = Bench(stack)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await scene(bench)
            await bench.end()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(play())


def scene(test: Callable[[Bench], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    """Makes a test of a scene: it is played on each loop."""

    def played(loop: str) -> None:
        run(loop, test)

    played.__name__ = test.__name__
    played.__doc__ = test.__doc__
    played.__module__ = test.__module__
    marked: Callable[[str], None] = on_each_loop(played)
    return marked
