"""The listener: connections of real clients, each with a protocol of its own, until the last has ended."""

import asyncio
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from octoroute._listener import Listener
from tests.transports import Bench, Compiled, Notes, Plain, fill, on_each_loop, run, scene


class Site:
    """A listener, and the protocols of its connections."""

    def __init__(self, bench: Bench, sock: socket.socket | None = None) -> None:
        self.bench = bench
        self.made: list[Notes] = []
        self.failing: Exception | None = None
        self.kind: Callable[[], Notes] = Compiled
        self.on_made: Callable[[Notes], object] = lambda _: None
        self.news = asyncio.Event()
        sock = sock or socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = sock.getsockname()
        self.family = sock.family
        self.listener = Listener(bench.poller, bench.keep(sock), self)

    def __call__(self) -> Notes:
        if self.failing is not None:
            self.news.set()
            raise self.failing
        protocol = self.kind()
        protocol.on["made"] = lambda: self.note_made(protocol)
        self.made.append(protocol)
        self.news.set()
        return protocol

    def note_made(self, protocol: Notes) -> None:
        self.bench.started.append(protocol.transport)
        self.on_made(protocol)

    def call(self) -> socket.socket:
        """A client: the system takes it, whether anybody accepts it or not."""
        client = self.bench.keep(socket.socket(self.family))
        client.settimeout(5.0)
        client.connect(self.address)
        client.setblocking(False)
        return client

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            self.news.clear()
            await self.news.wait()


@scene
async def test_many_clients_at_once_are_all_served(bench: Bench) -> None:
    site = Site(bench)
    clients = [site.call() for _ in range(200)]
    for at, client in enumerate(clients):
        client.send(b"%d" % at)
    await site.until(lambda: len(site.made) == len(clients))
    # In the order in which they came.
    for at, protocol in enumerate(site.made):
        await protocol.hears(b"%d" % at)
        protocol.transport.write(b"to %d" % at)
    for at, client in enumerate(clients):
        assert await bench.loop.sock_recv(client, 99) == b"to %d" % at
        client.close()
    for protocol in site.made:
        assert await protocol.ends() is None
    assert bench.told == []


@scene
async def test_what_is_accepted_does_not_wait_to_send_small_pieces_and_is_not_inherited(bench: Bench) -> None:
    site = Site(bench)
    site.call()
    await site.until(lambda: site.made)
    sock = site.made[0].transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    descriptor = int(repr(site.made[0].transport).split("fd=")[1].rstrip(">"))
    assert not os.get_inheritable(descriptor)
    assert not os.get_blocking(descriptor)


@on_each_loop
def test_clients_of_a_unix_socket_are_served(loop: str, tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(tmp_path / "socket"))
        sock.listen(100)
        site = Site(bench, sock)
        client = site.call()
        await bench.loop.sock_sendall(client, fill(300_000))
        await site.until(lambda: site.made)
        await site.made[0].hears(fill(300_000))
        assert site.made[0].transport.get_extra_info("sockname") == str(tmp_path / "socket")
        site.made[0].transport.write(fill(300_000))
        site.made[0].transport.close()
        assert await bench.read_to_end(client) == fill(300_000)

    run(loop, scene)


@scene
async def test_closed_it_takes_nobody_more_and_is_over_with_its_last_connection(bench: Bench) -> None:
    site = Site(bench)
    clients = [site.call() for _ in range(3)]
    await site.until(lambda: len(site.made) == 3)
    waits = asyncio.ensure_future(site.listener.wait_closed())
    gives_up = asyncio.ensure_future(site.listener.wait_closed())
    await bench.turns()
    site.listener.close()
    site.listener.close()
    gives_up.cancel()
    with pytest.raises(ConnectionRefusedError):
        site.call()
    for client, protocol in zip(clients, site.made, strict=True):
        client.send(b"still here")
        await protocol.hears(b"still here")
        assert not waits.done()
        client.close()
        await protocol.ends()
    await waits
    await site.listener.wait_closed()
    assert (len(site.made), bench.told) == (3, [])


@scene
async def test_closed_without_connections_it_is_over_at_once(bench: Bench) -> None:
    site = Site(bench)
    site.listener.close()
    await site.listener.wait_closed()


@scene
async def test_it_may_be_closed_while_it_accepts(bench: Bench) -> None:
    site = Site(bench)
    site.on_made = lambda _: site.listener.close()
    for _ in range(5):
        site.call()
    await site.until(lambda: site.made)
    await bench.turns()
    assert len(site.made) == 1
    site.made[0].transport.abort()
    await site.listener.wait_closed()
    assert bench.told == []


@scene
async def test_a_factory_that_fails_loses_one_connection_and_is_told_of_once(bench: Bench) -> None:
    site = Site(bench)
    site.failing = RuntimeError("no protocol")
    client = site.call()
    assert await bench.read_to_end(client) == b""
    assert bench.errors == ["no protocol"]
    site.failing = None
    client = site.call()
    await site.until(lambda: site.made)
    site.listener.close()
    site.made[0].transport.close()
    await site.listener.wait_closed()
    assert len(bench.told) == 1


@scene
async def test_a_protocol_that_fails_to_begin_is_cut_and_hears_of_the_end(bench: Bench) -> None:
    def fail(_: Notes) -> None:
        raise RuntimeError("cannot begin")

    site = Site(bench)
    site.kind = Plain
    site.on_made = fail
    client = site.call()
    assert await bench.read_to_end(client) == b""
    assert bench.errors == ["cannot begin"]
    assert site.made[0].notes == ["made", "lost"]
    site.listener.close()
    await site.listener.wait_closed()


@scene
async def test_a_client_that_left_before_it_was_accepted_harms_nobody(bench: Bench) -> None:
    site = Site(bench)
    site.call().close()
    client = site.call()
    client.send(b"hello")
    await site.until(lambda: len(site.made) == 2)
    assert await site.made[0].ends() is None
    await site.made[1].hears(b"hello")


@pytest.mark.parametrize("closes", [False, True])
@on_each_loop
def test_without_a_free_descriptor_a_client_waits_and_is_served_when_there_is_one(
    closes: bool, loop: str
) -> None:
    async def scene(bench: Bench) -> None:
        site = Site(bench)
        clients = [site.call() for _ in range(3)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        # Room for one.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
        try:
            await bench.on_told.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert len(site.made) == 1
        assert all("Too many open files" in error for error in bench.errors)
        if closes:
            site.listener.close()
            site.made[0].transport.abort()
            await site.listener.wait_closed()
            # Its timer comes later, and finds it closed.
            site.listener.go_on()
            return
        clients[2].send(b"served")
        await site.until(lambda: len(site.made) == 3)
        await site.made[2].hears(b"served")

    run(loop, scene)
