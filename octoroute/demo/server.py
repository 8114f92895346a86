"""A simulated model server: listens, records what came, answers as its kind, a fault or a script says.

Tests ask it what happened and wait for it with `wait_for`, never by sleeping.
"""

import asyncio
import math
import socket
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import NamedTuple

from octoroute.demo import answers
from octoroute.demo.connection import Connection
from octoroute.demo.engine import Engine
from octoroute.demo.faults import FAULTS
from octoroute.demo.llama_cpp import LlamaCpp
from octoroute.demo.vllm import Vllm
from octoroute.demo.wire import Answer, Request, Step

KINDS: dict[str, type[LlamaCpp] | type[Vllm]] = {"llama_cpp": LlamaCpp, "vllm": Vllm}
REQUESTS_KEPT = 10_000
Script = Callable[[Request], Iterable[Step] | AsyncIterable[Step]]
Choice = Callable[[Request], str | None]
Aside = Callable[[Request], Answer | None]


class Connections(NamedTuple):
    """Connections open now, and accepted since the start."""

    open: int
    total: int


class SimulatedServer:
    """One server. `tokens_per_second` is per request; `wide` puts Chinese, accents and emoji into the text.

    `idle_seconds` and `answer_tokens` override what the kind does: None for the kind's own.
    """

    def __init__(
        self,
        kind: str = "llama_cpp",
        model: str = "qwen3-8b",
        *,
        tokens_per_second: float = math.inf,
        prefill_seconds: float = 0.0,
        slots: int = 4,
        fault: str | None = None,
        seed: int = 0,
        wide: bool = False,
        answer_tokens: int = answers.ANSWER_TOKENS,
        api_key: str = "",
        idle_seconds: float | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
        self.kind = kind
        self.model = model
        self.engine = Engine(model, tokens_per_second, prefill_seconds, slots, seed, wide, answer_tokens)
        self.manners = KINDS[kind](self.engine, api_key)
        self.idle_seconds = self.manners.idle_seconds if idle_seconds is None else idle_seconds
        self.requests: deque[Request] = deque(maxlen=REQUESTS_KEPT)
        self.host, self.port = "127.0.0.1", 0
        self._open: dict[int, Connection] = {}
        self._total = 0
        self._listener: asyncio.Server | None = None
        self._reserved: socket.socket | None = None  # while the port refuses
        self._opening: asyncio.Task[None] | None = None
        self._running: set[int] = set()
        self._news = asyncio.Event()
        self.engine.changed = self._tell
        self._script: Script | None = None
        self._choose: Choice | None = None
        self._aside: Aside | None = None
        self._fault: str | None = None
        self._fault_left = math.inf
        if fault is not None:
            self.set_fault(fault)

    def __repr__(self) -> str:
        fault = f", fault {self._fault}" if self._fault else ""
        return f"<SimulatedServer {self.kind} {self.model} port {self.port}, {self.active} active{fault}>"

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}/v1"

    @property
    def connections(self) -> Connections:
        return Connections(len(self._open), self._total)

    @property
    def active(self) -> int:
        """Requests in work or waiting; one whose client left counts until that is noticed."""
        return len(self._running)

    @property
    def completions(self) -> list[Request]:
        """The requests for a completion, in order of arrival: `requests` without probes."""
        return [request for request in list(self.requests) if request.method == "POST"]

    def text(self, prompt: str, length: int | None = None, *, index: int = 0) -> str:
        """The first `length` tokens that this server answers to a prompt: what a test compares with.

        The prompt of a chat is `answers.prompt_of_messages(messages)`.
        """
        engine = self.engine
        tokens = engine.answer_tokens if length is None else length
        return answers.text(prompt, tokens, index=index, seed=engine.seed, wide=engine.wide)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Begins to listen. Returns the port. Raises OSError where it is taken."""
        self.host, self.port = host, port
        if self._fault == "refuse":
            self._reserve()
            return self.port
        await self._listen()
        return self.port

    async def stop(self) -> None:
        """Closes everything. Doing it twice is fine."""
        if self._opening is not None:
            await self._opening
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._give_up_reserved()
        await asyncio.gather(*(connection.stop() for connection in list(self._open.values())))
        while self._open:
            await self._next_news()

    def set_fault(self, name: str | None, *, once: bool = False, count: int | None = None) -> None:
        """From now on, for every request, one, or `count` of those that the fault is about."""
        if name is not None and name not in FAULTS:
            raise ValueError(f"fault is {name!r}; allowed: {', '.join(FAULTS)}")
        refuses = name is not None and FAULTS[name].behave is None
        if refuses and (once or count is not None):
            raise ValueError(f"{name} can't be counted: no request arrives")
        was_refusing = self._fault is not None and FAULTS[self._fault].behave is None
        self._fault = name
        self._fault_left = 1 if once else math.inf if count is None else count
        if refuses and self._listener is not None:
            self._listener.close()
            self._listener = None
            self._reserve()
            for connection in list(self._open.values()):
                if connection.request is None:
                    connection.close()
        elif was_refusing and not refuses and self.port:
            # Bound and listening at once; only accepting needs the loop.
            listening = _bound(self.host, self.port)
            self._give_up_reserved()
            self._opening = asyncio.get_running_loop().create_task(self._listen(listening))

    def script(self, script: Script | None) -> None:
        """Answers every POST with exactly these steps; None goes back to ordinary answers."""
        self._script = script

    def choose_faults(self, choose: Choice | None) -> None:
        """`choose` names the fault of a request, or None for what `set_fault` says."""
        self._choose = choose

    def answer_aside(self, aside: Aside | None) -> None:
        """`aside` is asked first, and answers what is no business of a model server; else None."""
        self._aside = aside

    def abort_connections(self) -> None:
        """RST on every open connection, as when the process is killed."""
        for connection in list(self._open.values()):
            connection.abort()

    async def wait_for(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:  # noqa: ASYNC109
        """Until the condition holds, looked at whenever something happens here. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout):
                while not condition():
                    await self._next_news()
        except TimeoutError:
            seen = [(request.method, request.target, request.fault) for request in self.requests][-5:]
            raise TimeoutError(f"not within {timeout} s: {self!r}, {self.connections}, last {seen}") from None

    def _reserve(self) -> None:
        """Nobody listens on the port, but it stays this server's: another one could get it, and answer."""
        self._reserved = _bound(self.host, self.port, listens=False)
        self.port = self._reserved.getsockname()[1]

    def _give_up_reserved(self) -> None:
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    async def _listen(self, sock: socket.socket | None = None) -> None:
        sock = sock or _bound(self.host, self.port)
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(lambda: Connection(self), sock=sock)
        self.port = sock.getsockname()[1]

    async def _next_news(self) -> None:
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # What connections tell.

    def opened(self, connection: Connection) -> int:
        self._total += 1
        self._open[id(connection)] = connection
        self._tell()
        return self._total

    def closed(self, connection: Connection) -> None:
        self._open.pop(id(connection), None)
        self._tell()

    def arrived(self, request: Request) -> None:
        self.requests.append(request)
        self._running.add(id(request))
        self._tell()

    def left(self, request: Request) -> None:  # noqa: ARG002
        self._tell()

    def finished(self, request: Request) -> None:
        self._running.discard(id(request))
        self._tell()

    def notices_client_gone_in(self, request: Request, now: float) -> float:
        return self.manners.notices_client_gone_in(request, now)

    async def reply(self, request: Request) -> AsyncGenerator[Step]:
        """The steps of the answer to a request."""
        exchange = _Exchange(self, request)
        try:
            aside = self._aside(request) if self._aside is not None else None
            if aside is not None:
                async for step in aside.steps():
                    yield step
                return
            if self._script is not None and request.method == "POST":
                scripted = self._script(request)
                if isinstance(scripted, AsyncIterable):
                    async for step in scripted:
                        yield step
                else:
                    for step in scripted:
                        yield step
                return
            behave = self._take_fault(request)
            if behave is not None:
                async for step in behave(exchange):
                    yield step
                return
            async for step in (await exchange.answer()).steps():
                yield step
        finally:
            await exchange.end()

    def _take_fault(self, request: Request) -> Callable[["_Exchange"], AsyncIterator[Step]] | None:
        chosen = self._choose(request) if self._choose is not None else None
        if chosen is not None:
            return self._chosen_fault(chosen, request)
        if self._fault is None:
            return None
        fault = FAULTS[self._fault]
        if fault.behave is None or not fault.hits(request):
            return None
        request.fault = self._fault
        self._fault_left -= 1
        if self._fault_left <= 0:
            self._fault = None
        return fault.behave

    def _chosen_fault(
        self, name: str, request: Request
    ) -> Callable[["_Exchange"], AsyncIterator[Step]] | None:
        fault = FAULTS[name]
        if fault.behave is None or not fault.hits(request):
            return None
        request.fault = name
        return fault.behave


class _Exchange:
    """One request with access to the ordinary answer; `end` gives its slot back whatever became of it."""

    def __init__(self, server: SimulatedServer, request: Request) -> None:
        self.request = request
        self._manners = server.manners
        self._answers: list[Answer] = []

    async def answer(self, instead: Request | None = None) -> Answer:
        request = instead or self.request
        answer = await self._manners.answer(request)
        self._answers.append(answer)
        limit = self._manners.max_requests_per_connection
        if limit is not None and request.nth >= limit:
            answer.keeps = False
        return answer

    def loading(self) -> Answer:
        return self._manners.loading()

    def error_event(self, message: str) -> bytes:
        return self._manners.error_event(message)

    async def end(self) -> None:
        for answer in self._answers:
            close = getattr(answer.body, "aclose", None)
            if close is not None:
                await close()


def _bound(host: str, port: int, *, listens: bool = True) -> socket.socket:
    """A listening socket: who connects before the loop accepts waits and isn't refused."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol said: asyncio sets TCP_NODELAY only on connections whose socket names it.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        if listens:
            sock.listen(1024)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
