"""The transport between real sockets: what it carries, and when it asks for patience."""

import array
import asyncio
import fcntl
import socket
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from octoroute._relay import Relay
from octoroute._transport import SocketTransport
from tests.transports import (
    KINDS,
    Bench,
    Buffered,
    Compiled,
    Notes,
    Plain,
    fill,
    on_each_loop,
    run,
    scene,
)

HIGH_WATER = 65_536
LOW_WATER = 16_384
READ_BYTES = 65_536
# Of <linux/sockios.h>: what the socket has not sent yet.
SIOCOUTQNSD = 0x894B

sizes = st.one_of(
    st.integers(0, 3000), st.integers(0, 300_000), st.sampled_from([READ_BYTES, 4 * READ_BYTES])
)
steps = st.one_of(
    st.tuples(st.just("write"), sizes),
    st.tuples(st.just("lines"), st.lists(sizes, max_size=5)),
    st.tuples(st.just("hear"), sizes),
    st.tuples(st.sampled_from(["pause", "go on", "turn"]), st.none()),
)


async def play(
    bench: Bench, kind: type[Notes], tcp: bool, size: int, script: Sequence[tuple[str, Any]]
) -> None:
    """Does what the script says, with a peer that reads `size` bytes at a time."""
    protocol, peer = bench.start(kind(), tcp=tcp)
    protocol.stays = True
    transport = protocol.transport
    # Much has to wait. (With less room for TCP, the system itself waits for its timers.)
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200_000 if tcp else 8192)
    to_peer = [b""]
    to_us = [fill(what, at) for at, (kind_of, what) in enumerate(script) if kind_of == "hear"]
    reader = asyncio.create_task(bench.read_to_end(peer, size))
    writer = asyncio.create_task(bench.loop.sock_sendall(peer, b"".join(to_us)))
    for at, (step, what) in enumerate(script):
        if step == "write":
            to_peer.append(fill(what, at))
            transport.write(to_peer[-1])
        elif step == "lines":
            to_peer += [fill(one, at) for one in what]
            transport.writelines(to_peer[len(to_peer) - len(what) :])
        elif step == "pause":
            transport.pause_reading()
        elif step == "go on":
            transport.resume_reading()
        else:
            await asyncio.sleep(0)
    transport.resume_reading()
    await writer
    peer.shutdown(socket.SHUT_WR)
    await protocol.notes_down("eof")
    assert protocol.got == b"".join(to_us)
    transport.write_eof()
    assert await reader == b"".join(to_peer)
    transport.close()
    assert await protocol.ends() is None
    assert [note for note in protocol.notes if note in ("pause", "resume")] == ["pause", "resume"] * (
        protocol.notes.count("pause")
    )
    assert (protocol.notes.count("eof"), len(protocol.lost), bench.told) == (1, 1, [])


@on_each_loop
@given(
    st.sampled_from(KINDS),
    st.booleans(),
    st.sampled_from([100_000, 2000]),
    st.lists(steps, max_size=12),
)
@example(Compiled, True, 2000, [("pause", None), ("hear", 5 * READ_BYTES), ("write", 300_000)])
@settings(max_examples=60)
def test_all_bytes_arrive_in_order_whatever_is_done_when(
    loop: str, kind: type[Notes], tcp: bool, size: int, script: list[tuple[str, Any]]
) -> None:
    run(loop, lambda bench: play(bench, kind, tcp, size, script))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tcp", [True, False])
@on_each_loop
def test_what_came_while_reading_was_paused_is_told_afterwards_and_the_end_too(
    kind: type[Notes], tcp: bool, loop: str
) -> None:
    async def scene(bench: Bench) -> None:
        protocol, peer = bench.start(kind(), tcp=tcp)
        protocol.transport.pause_reading()
        protocol.transport.pause_reading()
        sending = asyncio.ensure_future(bench.loop.sock_sendall(peer, fill(5 * READ_BYTES)))
        await bench.turns()
        assert protocol.notes == ["made"]
        protocol.transport.resume_reading()
        await sending
        protocol.transport.pause_reading()
        heard = len(protocol.got)
        peer.close()
        await bench.turns()
        assert len(protocol.got) == heard
        protocol.transport.resume_reading()
        assert await protocol.ends() is None
        assert protocol.got == fill(5 * READ_BYTES)
        assert protocol.notes[-2:] == ["eof", "lost"]

    run(loop, scene)


@scene
async def test_a_protocol_that_pauses_with_each_chunk_hears_all(bench: Bench) -> None:
    protocol, peer = bench.start(Compiled())

    def rest() -> None:
        protocol.transport.pause_reading()
        bench.loop.call_soon(protocol.transport.resume_reading)

    protocol.on["data"] = rest
    await bench.loop.sock_sendall(peer, fill(9 * READ_BYTES))
    peer.close()
    await protocol.ends()
    assert protocol.got == fill(9 * READ_BYTES)


@scene
async def test_the_protocol_is_asked_to_pause_and_to_go_on_once_each_at_the_marks(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    transport = protocol.transport
    waits: list[int] = []
    protocol.on["resume"] = lambda: waits.append(transport.get_write_buffer_size())
    written = 0
    while transport.get_write_buffer_size() <= HIGH_WATER:
        assert protocol.notes == ["made"]
        transport.write(fill(5000, written))
        written += 1
    for _ in range(5):
        transport.write(fill(5000, written))
        written += 1
    assert protocol.notes == ["made", "pause"]
    left = written * 5000
    while left:
        left -= len(await bench.loop.sock_recv(peer, 5000))
    await protocol.until(lambda: waits)
    await bench.turns()
    assert protocol.notes == ["made", "pause", "resume"]
    assert waits[0] <= LOW_WATER
    assert transport.get_write_buffer_size() == 0


@scene
async def test_who_writes_much_when_it_may_go_on_is_asked_to_pause_again(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    more = [fill(400_000, 1), fill(400_000, 2)]

    def go_on() -> None:
        if more:
            protocol.transport.write(more.pop(0))
        else:
            protocol.transport.close()

    protocol.on["resume"] = go_on
    protocol.transport.write(fill(400_000))
    assert await bench.read_to_end(peer) == fill(400_000) + fill(400_000, 1) + fill(400_000, 2)
    assert await protocol.ends() is None
    assert protocol.notes == ["made", *["pause", "resume"] * 3, "lost"]


@scene
async def test_what_was_given_to_be_written_may_change_or_go_away_at_once(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    transport = protocol.transport
    size = 400_000
    changing = bytearray(fill(size, 1))
    transport.write(changing)
    changing[:] = bytes(size)
    changing.clear()
    changing += fill(size, 2)
    transport.write(memoryview(changing))
    changing[:] = bytes(size)
    changing[:] = fill(size, 3)
    transport.write(memoryview(changing).toreadonly())
    changing[:] = bytes(size)
    with memoryview(fill(size, 4)) as view:
        transport.write(view)
    transport.close()
    assert await bench.read_to_end(peer) == b"".join(fill(size, at) for at in (1, 2, 3, 4))


@scene
async def test_memory_that_is_no_row_of_bytes_is_written_as_its_bytes(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    transport = protocol.transport
    whole = fill(480_000)
    transport.write(memoryview(whole).cast("I"))
    transport.write(memoryview(whole).cast("B", (2, 240_000)))
    not_declared: Any = array.array("I", whole)
    transport.write(not_declared)
    waiting = transport.get_write_buffer_size()
    transport.close()
    got = await bench.read_to_end(peer)
    assert got == whole * 3
    assert waiting <= len(got)


@scene
async def test_pieces_from_an_iterator_are_written_few_or_many(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    for size in (10, 10_000):
        protocol.transport.writelines(fill(size, at) for at in range(9))
    protocol.transport.close()
    wanted = b"".join(fill(size, at) for size in (10, 10_000) for at in range(9))
    assert await bench.read_to_end(peer) == wanted


@scene
async def test_pieces_that_are_memoryviews_or_empty_go_out_at_once(bench: Bench) -> None:
    protocol, _ = bench.start(Plain(), tcp=True)
    sock = protocol.transport.get_extra_info("socket")
    some: list[list[Any]] = [[fill(20_000), b""], [memoryview(fill(20_000)), bytearray(5), b""], [b""], []]
    for pieces in some:
        protocol.transport.writelines(pieces)
        unsent = fcntl.ioctl(sock, SIOCOUTQNSD, bytes(4))
        assert struct.unpack("i", unsent) == (0,)


@scene
async def test_pieces_of_which_one_is_none_keep_nothing_back_afterwards(bench: Bench) -> None:
    protocol, _ = bench.start(Plain(), tcp=True)
    not_bytes: Any = ["no bytes"]
    with pytest.raises(TypeError):
        protocol.transport.writelines([fill(20_000), *not_bytes, b"x"])
    protocol.transport.write(b"y")
    unsent = fcntl.ioctl(protocol.transport.get_extra_info("socket"), SIOCOUTQNSD, bytes(4))
    assert struct.unpack("i", unsent) == (0,)


@scene
async def test_our_end_follows_what_waits_and_reading_goes_on(bench: Bench) -> None:
    protocol, peer = bench.start(Plain(), tcp=True)
    transport = protocol.transport
    assert transport.can_write_eof()
    transport(fill(4_000_000))
    transport.write_eof()
    transport.write_eof()
    transport.write(b"too late")
    assert await bench.read_to_end(peer) == fill(4_000_000)
    await bench.loop.sock_sendall(peer, b"still heard")
    await protocol.hears(b"still heard")
    assert not transport.is_closing()


@scene
async def test_the_peers_end_is_told_once_though_reading_is_paused_and_resumed(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    protocol.stays = True
    peer.shutdown(socket.SHUT_WR)
    await protocol.notes_down("eof")
    for _ in range(2):
        protocol.transport.pause_reading()
        protocol.transport.resume_reading()
        await bench.turns()
    protocol.transport.write(b"answer")
    protocol.transport.close()
    assert await bench.read_to_end(peer) == b"answer"
    await protocol.ends()
    assert protocol.notes == ["made", "eof", "lost"]


@scene
async def test_a_buffer_that_is_filled_exactly_hands_the_rest_to_the_next_protocol(bench: Bench) -> None:
    first, peer = bench.start(Buffered(70_000))
    following = Compiled()

    def hand_over() -> None:
        if len(first.got) == 70_000:
            first.transport.set_protocol(following)

    def take_back() -> None:
        following.got.clear()
        first.got.clear()
        first.transport.set_protocol(first)

    first.on["data"] = hand_over
    await bench.loop.sock_sendall(peer, fill(70_000) + b"the next")
    await following.hears(b"the next")
    assert first.got == fill(70_000)
    take_back()
    await bench.loop.sock_sendall(peer, fill(70_000))
    await first.hears(fill(70_000))
    peer.close()
    assert await following.ends() is None
    assert (first.lost, following.notes) == ([], ["data", "eof", "lost"])


@scene
async def test_a_buffer_without_room_is_an_error_and_no_end(bench: Bench) -> None:
    protocol, peer = bench.start(Buffered(0))
    peer.send(b"x")
    await protocol.ends()
    assert (protocol.notes, len(bench.told)) == (["made", "lost"], 1)


@scene
async def test_a_relay_may_be_replaced_from_within_what_it_hears(bench: Bench) -> None:
    after = Plain()

    class Leaving(Relay):
        def on_head(self) -> None:
            self.transport.set_protocol(after)

    ours, peer = bench.sockets(tcp=False)
    transport = SocketTransport(bench.poller, ours.detach())
    relay = Leaving()
    relay.begin()
    transport.start(relay)
    del relay
    peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
    await bench.turns()
    peer.send(b"12345")
    await after.hears(b"12345")


@scene
async def test_it_tells_who_is_at_both_ends(bench: Bench) -> None:
    protocol, peer = bench.start(Plain(), tcp=True)
    transport = protocol.transport
    assert transport.get_extra_info("peername") == peer.getsockname()
    assert transport.get_extra_info("sockname") == peer.getpeername()
    assert transport.get_extra_info("socket").getpeername() == peer.getsockname()
    assert transport.get_extra_info("sslcontext") is None
    assert transport.get_extra_info("cipher", 5) == 5
    sock = transport.get_extra_info("socket")
    transport.abort()
    await protocol.ends()
    assert transport.get_extra_info("peername", "nobody") == "nobody"
    assert sock.fileno() == -1
    assert await bench.read_to_end(peer) == b""
