"""A model server and its only client, in step: the next chunk is sent when the one before has arrived.

So the gateway between them finds exactly one request, one answer or one chunk whenever it looks, however slow
it is, and does the same work in every run. Standard library only; plain blocking sockets.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

# A gateway under callgrind is some fifty times slower than it is.
TIMEOUT_S: Final = 120.0
READ_BYTES: Final = 1 << 20
LAST_CHUNK: Final = b"0\r\n\r\n"
END_OF_HEAD: Final = b"\r\n\r\n"
MODELS: Final = b'{"object":"list","data":[{"id":"m","object":"model"}]}'
ANSWER: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"The answer is forty-two."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":21,"completion_tokens":7,"total_tokens":28}}'
)
STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-cache\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(number: int) -> bytes:
    """One chunk, as a model server sends a token."""
    return chunk(
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
        b'"choices":[{"index":0,"delta":{"content":"token%06d "},"finish_reason":null}]}\n\n' % number
    )


END_OF_STREAM: Final = (
    chunk(
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"m",'
        b'"choices":[],"usage":{"prompt_tokens":21,"completion_tokens":32,"total_tokens":53}}\n\n'
        b"data: [DONE]\n\n"
    )
    + LAST_CHUNK
)


def plain(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


class Model:
    """The model server: GET gets the list of models, POST what `pieces` holds, each after a `step`."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listener.getsockname()[1]
        self.pieces: list[bytes] = []
        self.probes = 0
        self.connections = 0
        self._go = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def step(self) -> None:
        """The next piece may go out."""
        self._go.release()

    def wait_for_probes(self, count: int) -> None:
        """Until so many have been answered, so that none comes while something is measured."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.probes < count:
            assert time.monotonic() < deadline, f"{self.probes} of {count} probes came"
            time.sleep(0.05)

    def _accept(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while (request := _request(connection)) is not None:
                if request.startswith(b"GET"):
                    self.probes += 1
                    connection.sendall(plain(MODELS))
                    continue
                for piece in self.pieces:
                    self._go.acquire()
                    connection.sendall(piece)


class Client:
    """One connection to the gateway."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request: bytes, model: Model, pieces: list[bytes]) -> None:
        """Has the model server answer a request with these pieces in step. Raises AssertionError where
        anything else arrives.
        """
        model.pieces = pieces
        self.sock.sendall(request)
        model.step()
        seen = self._until(b"", END_OF_HEAD)
        head, _, body = seen.partition(END_OF_HEAD)
        assert head.startswith(b"HTTP/1.1 200 "), seen
        expected = pieces[0].partition(END_OF_HEAD)[2]
        for piece in pieces[1:]:
            self._until_length(body, expected)
            body, expected = b"", piece
            model.step()
        self._until_length(body, expected)

    def _until(self, seen: bytes, end: bytes) -> bytes:
        while end not in seen:
            seen += self._more(seen)
        return seen

    def _until_length(self, seen: bytes, expected: bytes) -> None:
        while len(seen) < len(expected):
            seen += self._more(seen)
        assert seen == expected, f"expected {expected[:300]!r}, got {seen[:300]!r}"

    def _more(self, seen: bytes) -> bytes:
        data = self.sock.recv(READ_BYTES)
        assert data, f"the gateway closed the connection after {seen[-300:]!r}"
        return data


@contextmanager
def client(port: int) -> Iterator[Client]:
    made = Client(port)
    try:
        yield made
    finally:
        made.sock.close()


def _request(connection: socket.socket) -> bytes | None:
    """A whole request, None at the end of the connection."""
    data = b""
    while END_OF_HEAD not in data:
        more = connection.recv(READ_BYTES)
        if not more:
            return None
        data += more
    head, _, body = data.partition(END_OF_HEAD)
    missing = _length(head) - len(body)
    while missing > 0:
        more = connection.recv(READ_BYTES)
        if not more:
            return None
        missing -= len(more)
    return head


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
