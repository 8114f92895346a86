"""A client's connection, on real sockets, with a host that only counts."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest_asyncio

from octoroute._poller import Poller
from octoroute._transport import SocketTransport
from octoroute.server.wire import ClientWire

ALLOWED_S = 5.0


class Host:
    """Whose connection it is."""

    def __init__(self) -> None:
        self.closings: list[ClientWire] = []
        self.news = asyncio.Event()

    def opened(self, wire: ClientWire) -> None: ...

    def closed(self, wire: ClientWire) -> None:
        self.closings.append(wire)
        self.news.set()


class Pair:
    """A connection's two ends."""

    def __init__(self, poller: Poller) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        self.host = Host()
        self.wire = ClientWire(cast(Any, self.host))
        self.transport = SocketTransport(poller, ours.detach())
        self.transport.start(self.wire)

    async def gone(self) -> None:
        async with asyncio.timeout(30):
            await self.host.news.wait()


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    poller = Poller()
    one = Pair(poller)
    with one.theirs:
        yield one
        poller.close()


def look(pair: Pair, *times: float) -> None:
    for now in times:
        pair.wire.close_if_idle(now, ALLOWED_S)


async def test_a_connection_without_a_request_is_closed_when_its_time_is_over(pair: Pair) -> None:
    look(pair, 100.0, 104.9)
    assert not pair.transport.is_closing()
    look(pair, 105.0)
    await pair.gone()
    assert pair.theirs.recv(1) == b""


async def test_a_client_that_does_not_read_the_end_of_its_answer_is_cut_when_its_time_is_over(
    pair: Pair,
) -> None:
    pair.transport.write(b"x" * (8 << 20))
    pair.transport.close()
    look(pair, 100.0, 104.9)
    # It reads a little.
    waiting = pair.transport.get_write_buffer_size()
    async with asyncio.timeout(30):
        pair.theirs.recv(1 << 20)
        while pair.transport.get_write_buffer_size() == waiting:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
    look(pair, 105.0, 109.9)
    assert pair.host.closings == []
    look(pair, 110.0)
    await pair.gone()
    assert pair.host.closings == [pair.wire]


async def test_a_client_that_has_not_sent_its_last_words_is_left_alone(pair: Pair) -> None:
    look(pair, 100.0)
    pair.theirs.send(b"GET")
    look(pair, 105.0)
    assert not pair.transport.is_closing()
