"""The poller with many real sockets: who is told, in whatever order they come and go."""

import asyncio
import os
import socket

from octoroute._poller import Poller
from octoroute._transport import SocketTransport
from tests.transports import Bench, Compiled, Plain, on_each_loop, run, scene

# More than are served between two turns of the loop.
MANY = 150


@scene
async def test_all_hear_theirs_where_more_are_ready_than_are_served_at_once(bench: Bench) -> None:
    both = [bench.start(Compiled()) for _ in range(MANY)]
    for round_ in range(3):
        for at, (_, peer) in enumerate(both):
            peer.send(b"%d " % (at + round_))
    for at, (protocol, _) in enumerate(both):
        await protocol.hears(b"%d %d %d " % (at, at + 1, at + 2))
    for _, peer in both:
        peer.close()
    for protocol, _ in both:
        assert await protocol.ends() is None
    assert bench.told == []


@scene
async def test_what_came_before_it_was_watched_is_told(bench: Bench) -> None:
    ours, peer = bench.sockets(tcp=True)
    peer.send(b"early")
    peer.close()
    protocol = Plain()
    SocketTransport(bench.poller, ours.detach()).start(protocol)
    await protocol.ends()
    assert protocol.got == b"early"


@scene
async def test_who_was_forgotten_hears_nothing_though_its_turn_was_next(bench: Bench) -> None:
    first, one = bench.start(Plain())
    second, other = bench.start(Plain())
    first.on["data"] = lambda: second.transport.abort()
    second.on["data"] = lambda: first.transport.abort()
    one.send(b"x")
    other.send(b"x")
    await first.until(lambda: first.got or first.lost)
    await bench.turns()
    assert first.got + second.got == b"x"
    assert first.lost + second.lost == [None]


@scene
async def test_who_is_begun_while_others_are_served_hears_its_own(bench: Bench) -> None:
    old = [bench.start(Plain()) for _ in range(MANY)]
    new: list[tuple[Compiled, socket.socket]] = []

    def replace() -> None:
        for protocol, _ in old[1:]:
            protocol.transport.abort()
        new.extend(bench.start(Compiled()) for _ in range(10))

    old[0][0].on["data"] = replace
    for _, peer in old:
        peer.send(b"old")
    await old[0][0].until(lambda: new)
    await bench.turns()
    # Their numbers are free by now.
    new.extend(bench.start(Compiled()) for _ in range(10))
    for at, (_, peer) in enumerate(new):
        peer.send(b"new %d" % at)
    for at, (protocol, _) in enumerate(new):
        await protocol.hears(b"new %d" % at)
    assert bench.told == []


@scene
async def test_a_closed_poller_tells_nothing_until_something_is_watched_again(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    before = len(os.listdir("/proc/self/fd"))
    bench.poller.close()
    bench.poller.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    peer.send(b"x")
    await bench.turns()
    assert protocol.notes == ["made"]
    again, peer = bench.start(Plain())
    peer.send(b"y")
    await again.hears(b"y")
    # Who was forgotten can still be ended.
    protocol.transport.write(b"z")
    protocol.transport.close()
    assert await protocol.ends() is None


@scene
async def test_it_may_be_closed_by_whom_it_serves(bench: Bench) -> None:
    both = [bench.start(Plain()) for _ in range(3)]
    for protocol, peer in both:
        protocol.on["data"] = bench.poller.close
        peer.send(b"x")
    await bench.turns()
    assert (sum(len(protocol.got) for protocol, _ in both), bench.told) == (1, [])


@scene
async def test_served_in_vain_it_tells_nothing(bench: Bench) -> None:
    bench.poller.serve()
    protocol, _ = bench.start(Plain())
    bench.poller.serve()
    assert protocol.notes == ["made"]
    assert bench.poller.loop is asyncio.get_running_loop()


@on_each_loop
def test_one_poller_serves_a_second_loop_when_the_first_has_ended(loop: str) -> None:
    poller = Poller()
    assert poller.loop is None
    for _ in range(2):

        async def scene(bench: Bench) -> None:
            bench.poller = poller
            protocol, peer = bench.start(Plain())
            peer.send(b"x")
            await protocol.hears(b"x")
            poller.close()

        run(loop, scene)
