"""What tests do to a gateway's processes: find them, kill them, wait for their end, give them a new config.

A worker is told from another by the ids that it gives to requests: each makes up a beginning of its own.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress

import orjson

from octoroute.demo import Request, SimulatedServer, Step
from tests.end_to_end.fleet import Gateway
from tests.end_to_end.wire_client import Reply, WireClient, ask, chat, fetch

PATH = "/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def workers(gateway: Gateway) -> list[int]:
    """Process ids of the workers that run now, zombies too."""
    return children(gateway.process.pid)


def children(pid: int) -> list[int]:
    """Of a process that has one thread."""
    with open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]


def open_files(pid: int) -> list[str]:
    """What a process has open, as far as it stays open while this looks."""
    files = []
    for file in os.scandir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            files.append(os.readlink(file.path))
    return files


async def until(holds: Callable[[], bool]) -> None:
    """For what another process does, where there is no event to wait for."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def ended(pid: int) -> None:
    """Returns when a process has ended."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(fd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def refuses(port: int) -> None:
    """Returns when nobody listens any more."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            return
        except OSError:
            continue
        writer.close()
        await asyncio.sleep(0.01)


def worker_of(reply: Reply) -> str:
    """Which worker answered."""
    return reply.headers["x-request-id"].split("-")[1]


async def worker_at(port: int) -> str:
    """Which worker a new connection gets."""
    async with WireClient(port) as client:
        client.get("/health")
        return worker_of(await client.reply())


def rewrite(gateway: Gateway, config: str) -> None:
    """Puts another config text where the gateway's file is; `port = 0` is the port that it has."""
    text = config.replace("port = 0\n", f"port = {gateway.port}\n", 1)
    (gateway.folder / "config.toml").write_text(text)


async def reload(gateway: Gateway, config: str) -> Reply:
    """The answer to POST /admin/reload with another config text in the file."""
    rewrite(gateway, config)
    return await ask(gateway.port, "/admin/reload")


async def probed(gateway: Gateway, *names: str) -> None:
    """Returns when these endpoints' first probe has been booked: a success that comes later would heal."""
    while True:
        told = (await fetch(gateway.port, "/admin/status")).json["endpoints"]
        if all(one["last_check_seconds_ago"] is not None for one in told if one["name"] in names):
            return
        await asyncio.sleep(0.01)


class Held:
    """Script of a server whose answers begin at once and end when the test says so."""

    FIRST = b'data: {"choices":[{"index":0,"delta":{"content":"first"}}]}\n\n'
    LAST = b'data: {"choices":[{"index":0,"delta":{"content":" last"}}]}\n\ndata: [DONE]\n\n'

    def __init__(self, server: SimulatedServer) -> None:
        self.go = asyncio.Event()
        server.script(self.play)

    async def play(self, request: Request) -> AsyncIterator[Step]:
        if request.json.get("stream"):
            yield HEAD + _chunk(self.FIRST)
            yield self.go
            yield _chunk(self.LAST) + b"0\r\n\r\n"
            return
        yield self.go
        body = orjson.dumps({"choices": [{"index": 0, "message": {"content": "first last"}}]})
        yield (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Stream:
    """A stream that has begun. `head` says which worker it is on."""

    def __init__(self, client: WireClient, head: Reply, begun: bytes) -> None:
        self.client = client
        self.head = head
        self.begun = begun

    @property
    def worker(self) -> str:
        return worker_of(self.head)

    @classmethod
    async def open(cls, stack: AsyncExitStack, port: int, model: str = "fast") -> "Stream":
        """Returns when the first event is there."""
        client = await stack.enter_async_context(WireClient(port))
        client.post(PATH, chat(model=model, stream=True))
        head = await client.head()
        assert head.status == 200
        return cls(client, head, await client.data_of(len(Held.FIRST)))

    async def rest(self) -> bytes:
        """Everything of it, but for comments while it was held. Raises where it does not end as HTTP says."""
        whole = self.begun
        while data := await self.client.data():
            whole += data
        return whole.replace(b": keep-alive\n\n", b"")
