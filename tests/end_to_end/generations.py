"""A gateway that is upgraded while a test runs, and streams that would show a gap."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from octoroute import __version__
from octoroute.demo import Request, Step
from tests.end_to_end.fleet import Gateway
from tests.end_to_end.processes import HEAD, PATH, children, ended, until
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat
from tests.sanitized import PATIENCE

END_S = 30.0 * PATIENCE


class Generations:
    """A gateway whose process changes; `pid` is that of the one that serves."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.pids = [gateway.process.pid]

    @property
    def pid(self) -> int:
        return self.pids[-1]

    async def upgrade(self) -> Reply:
        """The answer to POST /admin/upgrade."""
        reply = await ask(self.gateway.port, "/admin/upgrade")
        while reply.status == 503:
            # The process that was replaced just before took the connection.
            assert reply.json["error"]["code"] == "gateway_ends"
            reply = await ask(self.gateway.port, "/admin/upgrade")
        if reply.status == 200:
            assert reply.json["before"] == {"pid": self.pid, "version": __version__}
            self.pids.append(reply.json["now"]["pid"])
        return reply

    async def signalled(self) -> None:
        """The same, asked for by SIGUSR2, which every process of the service gets."""
        before = self.gateway.log.count("serves from here")
        for pid in (self.pid, *children(self.pid)):
            os.kill(pid, signal.SIGUSR2)
        await until(lambda: self.gateway.log.count("serves from here") > before)
        self.pids.append(int(self.gateway.log.rpartition("upgrade: process ")[2].split()[0]))

    async def end(self) -> None:
        """SIGTERM; the log of all of them is looked at."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        await asyncio.gather(*map(ended, self.pids))
        assert self.gateway.process.wait() == 0
        assert "Traceback" not in self.gateway.log, self.gateway.log


@asynccontextmanager
async def generations(gateway: Gateway, config: str) -> AsyncIterator[Generations]:
    await gateway.start(config)
    one = Generations(gateway)
    try:
        yield one
        # A test that failed leaves streams behind, for which a process would wait.
        async with asyncio.timeout(END_S):
            await one.end()
    finally:
        # Those that have ended leave no worker; those of a test that failed may.
        for pid in one.pids[1:]:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        gateway.kill()


class Start:
    """Starts a gateway that will be upgraded."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder

    async def __call__(self, config: str, *program: str) -> Generations:
        gateway = Gateway(self.folder / "gateway", program) if program else Gateway(self.folder / "gateway")
        return await self.stack.enter_async_context(generations(gateway, config))


class Ticking:
    """Script of a server whose streams count to max_tokens, or until the test says stop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()

    async def play(self, request: Request) -> AsyncIterator[Step]:
        if not request.json.get("stream"):
            yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            return
        yield HEAD
        for tick in itertools.count():
            last = tick >= request.json["max_tokens"] or self.stop.is_set()
            data = b"data: %d\n\n" % tick + (b"data: [DONE]\n\n" if last else b"")
            yield b"%x\r\n%b\r\n" % (len(data), data)
            if last:
                break
            await asyncio.sleep(0.02)
        yield b"0\r\n\r\n"


async def counted(port: int, begun: asyncio.Event, ticks_at_most: int = 1_000_000) -> int:
    """Reads a ticking stream to its end; how many ticks it had."""
    async with WireClient(port) as client:
        client.post(PATH, chat(stream=True, max_tokens=ticks_at_most))
        assert (await client.head()).status == 200
        text = b""
        while data := await client.data():
            begun.set()
            text += data
    *ticks, done, rest = text.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert ticks == [b"data: %d" % at for at in range(len(ticks))]
    return len(ticks)
