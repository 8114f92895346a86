"""An HTTP client that shows what was on the wire: one socket, h11 as parser, nothing pooled or retried."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h11
import orjson

from tests.sanitized import PATIENCE

READ_SIZE = 1 << 16
PATIENCE_S = 40.0 * PATIENCE


@dataclass(slots=True)
class Reply:
    """A whole answer. `ended` is False where the connection ended before the body did."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    ended: bool = True
    interim: list[int] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The OpenAI error object; fails where the body is none."""
        error = self.json["error"]
        assert {"message", "type", "param", "code"} <= set(error), (
            f"not an OpenAI error object: {self.body!r}"
        )
        return dict(error)

    @property
    def events(self) -> list[Any]:
        """The data events of a stream, decoded; `[DONE]` stays text."""
        lines = self.body.replace(b"\r\n", b"\n").split(b"\n")
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        return ["[DONE]" if one == b"[DONE]" else orjson.loads(one) for one in data]

    @property
    def text(self) -> str:
        """What the model said, streamed or not."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            choices = [
                one for event in self.events if isinstance(event, dict) for one in event.get("choices", [])
            ]
            return "".join(choice["delta"].get("content") or "" for choice in choices)
        return str(self.json["choices"][0]["message"]["content"])

    def json_model(self) -> str:
        """The model that the answer names, streamed or not."""
        is_stream = self.headers.get("content-type", "").startswith("text/event-stream")
        return str((self.events[0] if is_stream else self.json)["model"])


class WireClient:
    """One connection to a gateway or server; an async context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._parser = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> "WireClient":
        self._reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    def send_raw(self, data: bytes) -> None:
        """Bytes as they are; answers to them are read with `read_raw`."""
        self.writer.write(data)

    async def read_raw(self, timeout: float = PATIENCE_S) -> bytes:  # noqa: ASYNC109
        """All bytes until the other side ends the connection, or an empty rest where it cuts it."""
        got = b""
        try:
            async with asyncio.timeout(timeout):
                while data := await self._reader.read(READ_SIZE):
                    got += data
        except ConnectionError:
            pass
        return got

    def half_close(self) -> None:
        self.writer.write_eof()

    def post(
        self,
        path: str,
        fields: Any = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Sends a request with a JSON body, or with a body as it is."""
        data = orjson.dumps(fields) if body is None else body
        named = {"host": "gateway", "content-type": "application/json", "content-length": str(len(data))}
        named |= headers or {}
        request = h11.Request(method="POST", target=path, headers=list(named.items()))
        out = self._parser.send(request) or b""
        self.writer.write(out + (self._parser.send(h11.Data(data=data)) or b""))
        self._parser.send(h11.EndOfMessage())

    def get(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> None:
        named = {"host": "gateway"} | dict(headers or {})
        request = h11.Request(method=method, target=path, headers=list(named.items()))
        self.writer.write(self._parser.send(request) or b"")
        self._parser.send(h11.EndOfMessage())

    async def head(self) -> Reply:
        """The head of the answer, as soon as it is there."""
        interim = []
        while True:
            event = await self._next()
            if isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
                continue
            assert isinstance(event, h11.Response), f"no answer but {event!r}"
            headers = {name.decode(): value.decode() for name, value in event.headers}
            return Reply(event.status_code, headers, interim=interim)

    async def data(self) -> bytes:
        """The next bytes of the body as they arrive, without framing; empty at its end."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        assert isinstance(event, h11.EndOfMessage), f"no data but {event!r}"
        return b""

    async def data_of(self, length: int) -> bytes:
        """The next `length` bytes of the body, and no more than have come with them."""
        got = b""
        while len(got) < length:
            data = await self.data()
            assert data, f"the body ended after {got!r}"
            got += data
        return got

    async def reply(self) -> Reply:
        """The whole answer; the connection may be used again if that ended in order."""
        reply = await self.head()
        parts: list[bytes] = []
        try:
            while data := await self.data():
                parts.append(data)
        except (h11.RemoteProtocolError, ConnectionError):
            reply.ended = False
        reply.body = b"".join(parts)
        if self._parser.our_state is h11.DONE and self._parser.their_state is h11.DONE:
            self._parser.start_next_cycle()
        return reply

    async def unasked_reply(self) -> Reply:
        """The whole answer to bytes of `send_raw`: to h11 it looks like one to a request of its own."""
        self._parser.send(h11.Request(method="POST", target="/", headers=[("host", "a")]))
        return await self.reply()

    async def _next(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                self._parser.receive_data(await self._reader.read(READ_SIZE))
        return event


async def ask(port: int, path: str = "/v1/chat/completions", fields: Any = None) -> Reply:
    """One request on a connection of its own."""
    async with WireClient(port) as client:
        client.post(path, fields)
        return await client.reply()


async def fetch(port: int, path: str) -> Reply:
    """One GET on a connection of its own."""
    async with WireClient(port) as client:
        client.get(path)
        return await client.reply()


def chat(text: str = "hello", model: str = "fast", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def converse(port: int, text: str = "hello", model: str = "fast", **more: Any) -> Reply:
    """One chat completion on a connection of its own."""
    return await ask(port, fields=chat(text, model, **more))
