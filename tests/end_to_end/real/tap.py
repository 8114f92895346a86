"""A TCP relay in front of a real server that writes down what went through, and may stop behind any byte."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from octoroute.upstream.events import EventReader


@dataclass(slots=True)
class Recorded:
    """One request: the bytes of the gateway, and those that it was sent back."""

    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)

    @property
    def is_chat(self) -> bool:
        return self.asked.startswith(b"POST /v1/chat/completions ")

    @property
    def request(self) -> Any:
        """Its body."""
        return orjson.loads(self.asked.rpartition(b"\r\n\r\n")[2])

    @property
    def chunks(self) -> list[Any]:
        """The decoded events of its answer whose HTTP chunk is complete."""
        payload, rest = b"", bytes(self.answered).partition(b"\r\n\r\n")[2]
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size or b"0", 16)
            if not length or len(rest) < length + 2:
                break
            payload, rest = payload + rest[:length], rest[length + 2 :]
        found = [data for _, data in EventReader().feed(payload) if data is not None]
        return [orjson.loads(data) for data in found if data != b"[DONE]"]

    @property
    def text(self) -> str:
        return text_of(self.chunks)


def text_of(chunks: list[Any]) -> str:
    choices = [chunk["choices"][0] for chunk in chunks if chunk.get("choices")]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


class Tap:
    """Listens at `port` and relays to `target`. `cut_behind`: so many bytes of the next chat's answer, and
    then nothing more; `cut` is set when that has happened.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.exchanges: list[Recorded] = []
        self.cut_behind: int | None = None
        self.cut = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def chats(self) -> list[Recorded]:
        return [one for one in self.exchanges if one.is_chat]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchanges: list[Recorded] = []
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection("127.0.0.1", self.target)
            back = asyncio.create_task(self._answer(exchanges, answers, writer))
            self._tasks.add(back)
            back.add_done_callback(self._tasks.discard)
            while data := await reader.read(65_536):
                if not exchanges or exchanges[-1].answered:
                    exchanges.append(Recorded())
                    self.exchanges.append(exchanges[-1])
                exchanges[-1].asked += data
                upstream.write(data)
        except OSError:
            pass
        finally:
            if upstream is not None:
                upstream.close()
            writer.close()

    async def _answer(
        self, exchanges: list[Recorded], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        dead = False
        try:
            while data := await reader.read(65_536):
                if dead:
                    continue
                recorded = exchanges[-1]
                cut_behind = self.cut_behind if recorded.is_chat else None
                if cut_behind is not None:
                    data = data[: cut_behind - len(recorded.answered)]
                recorded.answered += data
                writer.write(data)
                if cut_behind is not None and len(recorded.answered) >= cut_behind:
                    self.cut_behind = None
                    self.cut.set()
                    dead = True
        except OSError:
            pass
        writer.close()
