"""The end of a transport between real sockets: who ends it, what is still carried, who is told what."""

import asyncio
import errno
import gc
import os
import resource
import socket
import weakref
from pathlib import Path

import pytest

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
    reset,
    run,
    scene,
)


def number(protocol: Notes) -> int:
    """Its transport's descriptor."""
    return int(repr(protocol.transport).split("fd=")[1].split(">")[0].split()[0])


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@scene
async def test_closing_writes_what_waits_first_and_nothing_more(bench: Bench) -> None:
    protocol, peer = bench.start(Plain())
    transport = protocol.transport
    transport.write(fill(500_000))
    transport.close()
    transport.close()
    transport.write(b"too late")
    transport.writelines([b"too late"])
    transport.write_eof()
    await bench.turns()
    assert transport.is_closing()
    assert protocol.lost == []
    assert await bench.read_to_end(peer) == fill(500_000)
    assert await protocol.ends() is None
    assert protocol.notes == ["made", "pause", "resume", "lost"]


@scene
async def test_aborting_drops_what_waits_even_after_closing(bench: Bench) -> None:
    for closes_before in (False, True):
        protocol, peer = bench.start(Plain())
        protocol.transport.write(fill(5_000_000))
        if closes_before:
            protocol.transport.close()
        protocol.transport.abort()
        protocol.transport.abort()
        protocol.transport.close()
        assert protocol.lost == []
        assert await protocol.ends() is None
        assert protocol.transport.get_write_buffer_size() == 0
        got = await bench.read_to_end(peer)
        assert len(got) < 5_000_000
        assert got == fill(5_000_000)[: len(got)]
        assert len(protocol.lost) == 1


@pytest.mark.parametrize("way", ["close", "abort"])
@pytest.mark.parametrize("kind", KINDS)
@on_each_loop
def test_who_ends_it_from_within_hears_no_more_and_of_the_end_later(
    way: str, kind: type[Notes], loop: str
) -> None:
    async def scene(bench: Bench) -> None:
        for note in ("made", "data", "eof", "pause", "resume"):
            protocol = kind()

            def end(protocol: Notes = protocol) -> None:
                getattr(protocol.transport, way)()
                assert protocol.lost == []

            protocol.on[note] = end
            _, peer = bench.start(protocol)
            if note in ("pause", "resume"):
                protocol.transport.write(fill(900_000))
            else:
                peer.send(b"x" * 5000)
                peer.shutdown(socket.SHUT_WR)
            reading = asyncio.create_task(bench.read_to_end(peer))
            assert await protocol.ends() is None
            after = ["resume"] if note == "pause" and way == "close" else []
            assert protocol.notes[protocol.notes.index(note) + 1 :] == [*after, "lost"]
            try:
                got = await reading
            except ConnectionResetError:
                # Something it had said was not heard.
                assert note in ("made", "data")
            else:
                assert got == fill(900_000)[: len(got)]
        assert bench.told == []

    run(loop, scene)


@pytest.mark.parametrize("kind", KINDS)
@on_each_loop
def test_the_peers_last_words_are_heard_though_it_takes_nothing_more(kind: type[Notes], loop: str) -> None:
    async def scene(bench: Bench) -> None:
        for tcp in (True, False):
            protocol, peer = bench.start(kind(), tcp=tcp)
            peer.send(b"last words " * 1000)
            peer.close()
            while not protocol.lost:
                protocol.transport.write(fill(100_000))
                await asyncio.sleep(0)
            assert protocol.got == b"last words " * 1000
            assert len(protocol.lost) == 1

    run(loop, scene)


@scene
async def test_who_stays_for_writing_is_told_when_nobody_takes_it(bench: Bench) -> None:
    for writes_first in (True, False):
        protocol, peer = bench.start(Plain())
        protocol.stays = True
        peer.send(b"x")
        peer.close()
        if writes_first:
            protocol.transport.write(b"y")
        await protocol.notes_down("eof")
        if not writes_first:
            protocol.transport.write(b"y")
            assert protocol.lost == []
        await protocol.ends()
        assert protocol.notes == ["made", "data", "eof", "lost"]


@scene
async def test_who_is_reset_while_reading_is_told_the_error(bench: Bench) -> None:
    protocol, peer = bench.start(Plain(), tcp=True)
    peer.send(b"x")
    await protocol.hears(b"x")
    reset(peer)
    assert isinstance(await protocol.ends(), ConnectionResetError)
    assert protocol.notes == ["made", "data", "lost"]


@pytest.mark.parametrize("paused", [True, False])
@on_each_loop
def test_who_is_reset_while_bytes_wait_is_told_once(paused: bool, loop: str) -> None:
    async def scene(bench: Bench) -> None:
        protocol, peer = bench.start(Compiled(), tcp=True)
        if paused:
            protocol.transport.pause_reading()
        protocol.transport.write(fill(8_000_000))
        assert protocol.transport.get_write_buffer_size()
        reset(peer)
        error = await protocol.ends()
        assert isinstance(error, OSError) or (error is None and not paused)
        protocol.transport.write(b"x")
        protocol.transport.resume_reading()
        await bench.turns()
        assert len(protocol.lost) == 1
        assert protocol.transport.get_write_buffer_size() == 0

    run(loop, scene)


@scene
async def test_who_is_reset_while_paused_is_told_when_it_reads_or_writes(bench: Bench) -> None:
    for writes in (True, False):
        protocol, peer = bench.start(Plain(), tcp=True)
        protocol.transport.pause_reading()
        reset(peer)
        await bench.turns()
        assert protocol.lost == []
        if writes:
            protocol.transport.write(b"x")
        else:
            protocol.transport.resume_reading()
        assert isinstance(await protocol.ends(), OSError)
        await bench.turns()
        assert len(protocol.lost) == 1


@scene
async def test_closing_with_bytes_that_nobody_takes_ends(bench: Bench) -> None:
    protocol, peer = bench.start(Plain(), tcp=True)
    protocol.transport.write(fill(8_000_000))
    protocol.transport.close()
    await bench.turns()
    assert protocol.lost == []
    reset(peer)
    await protocol.ends()
    assert len(protocol.lost) == 1


@scene
async def test_a_descriptor_is_closed_in_the_end_and_its_number_serves_another(bench: Bench) -> None:
    old, _ = bench.start(Plain())
    descriptor = number(old)
    old.transport.close()
    assert is_open(descriptor)
    await old.ends()
    await bench.turns()
    assert not is_open(descriptor)
    # The lowest free number is taken.
    new, peer = bench.start(Plain())
    while number(new) != descriptor:
        new, peer = bench.start(Plain())
    old.transport.write(b"mixed up")
    old.transport.writelines([b"mixed up"])
    old.transport.pause_reading()
    old.transport.resume_reading()
    old.transport.write_eof()
    old.transport.close()
    old.transport.abort()
    peer.send(b"hello")
    await new.hears(b"hello")
    new.transport.write(b"and back")
    assert await bench.loop.sock_recv(peer, 99) == b"and back"
    assert (old.lost, new.lost) == ([None], [])


@scene
async def test_a_transport_that_ended_keeps_nobody_alive(bench: Bench) -> None:
    gc.collect()
    gc.disable()
    try:
        protocol, _ = bench.start(Buffered())
        protocol.transport.get_extra_info("socket")
        transport = protocol.transport
        protocol.transport.abort()
        await protocol.ends()
        await bench.turns()
        gone = weakref.ref(protocol)
        del protocol
        assert gone() is None
        assert transport.is_closing()
    finally:
        gc.enable()


@scene
async def test_one_that_was_never_started_closes_its_descriptor(bench: Bench) -> None:
    ours, peer = bench.sockets(tcp=False)
    transport = SocketTransport(bench.poller, ours.detach())
    del transport
    assert await bench.read_to_end(peer) == b""


@on_each_loop
def test_one_that_cannot_be_watched_is_told_nothing(loop: str, tmp_path: Path) -> None:
    async def scene(bench: Bench) -> None:
        ended: list[bool] = []
        protocol = Plain()
        file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        transport = SocketTransport(bench.poller, file, lambda: ended.append(True))
        with pytest.raises(PermissionError):
            transport.start(protocol)
        transport.abort()
        await bench.turns()
        assert (protocol.notes, ended, is_open(file), bench.told) == ([], [True], False, [])

    run(loop, scene)


@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, OSError])
@pytest.mark.parametrize("note", ["data", "eof", "pause", "resume"])
@on_each_loop
def test_a_protocol_that_fails_is_cut_and_those_beside_it_hear_theirs(
    note: str, error: type[BaseException], loop: str
) -> None:
    async def scene(bench: Bench) -> None:
        def fail() -> None:
            raise error("cannot go on")

        beside = [bench.start(Compiled()) for _ in range(5)]
        protocol, peer = bench.start(Plain())
        beside += [bench.start(Compiled()) for _ in range(5)]
        protocol.on[note] = fail
        if note == "resume":
            protocol.transport.write(fill(400_000))
            while not protocol.lost:
                await bench.loop.sock_recv(peer, 65_536)
        elif note == "pause":
            protocol.transport.write(fill(400_000))
            assert protocol.lost == []
        # All are ready when the poller looks next.
        for one, theirs in beside:
            theirs.send(b"hello")
            assert one.got == b""
        if note == "data":
            peer.send(b"x")
        elif note == "eof":
            peer.shutdown(socket.SHUT_WR)
        for one, _ in beside:
            await one.hears(b"hello")
        lost = await protocol.ends()
        assert isinstance(lost, OSError) if error is OSError else lost is None
        assert (bench.errors, len(protocol.lost)) == (["cannot go on"], 1)
        assert bench.told[0]["protocol"] is protocol

    run(loop, scene)


@scene
async def test_a_protocol_that_fails_to_hear_of_the_end_does_not_keep_the_descriptor(bench: Bench) -> None:
    def fail() -> None:
        raise RuntimeError("cannot end")

    protocol, peer = bench.start(Plain())
    protocol.on["lost"] = fail
    protocol.transport.close()
    assert await bench.read_to_end(peer) == b""
    assert bench.errors == ["cannot end"]


@scene
async def test_without_a_free_descriptor_it_goes_on_and_does_not_tell_its_ends(bench: Bench) -> None:
    protocol, peer = bench.start(Plain(), tcp=True)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            os.dup(0)
        for name in ("peername", "sockname", "socket"):
            assert protocol.transport.get_extra_info(name, "unknown") == "unknown"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert protocol.transport.get_extra_info("peername") == peer.getsockname()
