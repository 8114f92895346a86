"""The sender, between a real socket and a transport that notes what it is given."""

import socket
from collections.abc import Iterator

import pytest

from octoroute._send import Sender


class Transport:
    """As asyncio's, with a buffer that never drains by itself."""

    def __init__(self) -> None:
        self.got = b""
        self.closing = False

    def write(self, data: bytes) -> None:
        self.got += data

    def get_write_buffer_size(self) -> int:
        return len(self.got)

    def is_closing(self) -> bool:
        return self.closing


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


Pair = tuple[socket.socket, socket.socket]


def make(ours: socket.socket) -> tuple[Sender, Transport]:
    transport = Transport()
    return Sender(transport, ours.fileno()), transport  # type: ignore[arg-type]


def test_what_is_written_goes_straight_into_the_socket(pair: Pair) -> None:
    sender, transport = make(pair[0])
    sender(b"one ")
    sender(b"two")
    assert (pair[1].recv(99), transport.got) == (b"one two", b"")


def test_what_finds_no_room_waits_in_the_transport_and_nothing_overtakes_it(pair: Pair) -> None:
    ours, theirs = pair
    sender, transport = make(ours)
    data = bytes(range(256)) * 40_000
    sender(data)
    sender(b"behind")
    theirs.setblocking(False)
    read = b""
    while True:
        try:
            read += theirs.recv(1 << 20)
        except BlockingIOError:
            break
    assert read
    assert read + transport.got == data + b"behind"
    # The transport has got rid of it: straight again.
    transport.got = b""
    sender(b"again")
    assert (theirs.recv(99), transport.got) == (b"again", b"")


def test_what_the_transport_was_given_by_others_goes_first(pair: Pair) -> None:
    sender, transport = make(pair[0])
    sender(b"one")
    transport.write(b"two")
    sender.waiting = True
    sender(b"three")
    assert (pair[1].recv(99), transport.got) == (b"one", b"twothree")


def test_a_forgotten_socket_and_one_that_closes_get_nothing(pair: Pair) -> None:
    ours, theirs = pair
    sender, transport = make(ours)
    transport.closing = True
    sender(b"one")
    transport.closing, transport.got = False, b""
    sender.forget()
    sender(b"two")
    assert transport.got == b"two"
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_an_error_is_left_to_the_transport(pair: Pair) -> None:
    sender, transport = make(pair[0])
    pair[1].close()
    sender(b"one")
    assert transport.got == b"one"
