"""The soak's clients and its trouble: what is asked, what goes wrong meanwhile, what the clients saw of it.

At most one server is bad for a request, and at most one server is down at a time: whatever a client sees of
that, a perfect gateway would have hidden. What it could not: the server's own refusal, a [DONE] or a stream
that the server did not give, the end of connections to a worker that was killed. Not judged are errors and
silence where the machine, or this process with its servers, stood still meanwhile.
"""

import asyncio
import random
import re
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Final

from benchmarks.soak.clock import Clock
from octoroute.demo import FAULTS, Request, SimulatedServer
from octoroute.demo.answers import prompt_of_messages
from octoroute.demo.client import End, Seen, Target, exchange
from octoroute.demo.judging import Judgement, Verdict, judge

FAULT_SHARE: Final = 0.25
PATIENCE_S: Final = 60.0
PROBLEMS_KEPT: Final = 20
MARKER: Final = re.compile(rb"soak (\d+):")
# The server's own words, which go to the client as they came.
REFUSALS: Final = frozenset(("status-400", "status-401", "status-404"))
FAULTS_OF_REQUESTS: Final = [name for name, fault in FAULTS.items() if not fault.of_the_server]
FAULTS_OF_SERVERS: Final = [name for name, fault in FAULTS.items() if fault.of_the_server]
# What a server did not say, or not within the length it gave, a gateway does not make up.
AS_SENT: Final = {
    "no-done": Verdict.SAME_NO_DONE,
    "wrong-length-short": Verdict.SAME_NO_DONE,
    "json-for-stream": Verdict.NO_STREAM,
}
# What may come of a standstill. Wrong text or a lost end may not.
OF_STANDSTILLS: Final = (Verdict.ERROR, Verdict.HANG)
# An event of 1 MB is more than is kept of an answer: half of it can't be taken back where its server dies.
TOO_BIG: Final = "big-event"
KILLED: Final = "killed"
CALM_S: Final = (1.0, 4.0)
DOWN_S: Final = (0.5, 2.0)
# The supervisor takes a worker that lives for a minute for a sound one, and starts its successor at once.
WORKER_LIVES_S: Final = (62.0, 80.0)
FIRST_WORKER_LIVES_S: Final = (10.0, 20.0)
# How late a client may notice that its worker was killed, on a busy machine.
NOTICED_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of request. `share` is its weight among all."""

    name: str
    share: float
    stream: bool
    tokens: int
    prompt_chars: int = 100
    leaves: bool = False


SHAPES: Final = (
    Shape("short chat", 0.35, stream=False, tokens=24),
    Shape("short stream", 0.25, stream=True, tokens=24),
    Shape("long stream", 0.12, stream=True, tokens=400),
    Shape("big prompt", 0.08, stream=False, tokens=24, prompt_chars=250_000),
    Shape("big prompt, stream", 0.05, stream=True, tokens=24, prompt_chars=250_000),
    Shape("client that leaves", 0.10, stream=True, tokens=400, leaves=True),
    Shape("plain client that leaves", 0.05, stream=False, tokens=400, leaves=True),
)


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    requests: int = 0
    streams: int = 0
    left: int = 0
    workers_killed: int = 0
    cut_with_worker: int = 0
    beyond_buffer: int = 0
    not_judged: int = 0
    down: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    shown: Counter[str] = field(default_factory=Counter)
    problems: deque[str] = field(default_factory=lambda: deque(maxlen=PROBLEMS_KEPT))


class Load:
    """`run` it for some seconds; `tally` says what came of it."""

    def __init__(
        self,
        servers: Sequence[SimulatedServer],
        target: Target,
        seed: int,
        clock: Clock,
        kill_worker: Callable[[], bool],
    ) -> None:
        """`kill_worker` kills one of several workers of the gateway, and says whether there was one."""
        self.tally = Tally()
        self.clock = clock
        self._kill_worker = kill_worker
        self._killed_s = self._server_killed_s = -inf
        self._servers = servers
        self.target = target
        self._random = random.Random(seed)
        self._numbers = count(1)
        self._faults: dict[int, str] = {}
        self._first: dict[int, SimulatedServer] = {}
        self._over = asyncio.Event()
        for server in servers:
            server.requests = deque(maxlen=10)  # prompts are big, and nobody reads them
            server.choose_faults(lambda request, server=server: self._choose(server, request))  # type: ignore[misc]

    async def run(self, seconds: float, clients: int) -> None:
        """Returns when all clients have their last answer."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._trouble())
            tasks.create_task(self._kill_workers())
            for _ in range(clients):
                tasks.create_task(self._client())
            left_s = seconds
            until_s = self.clock.now() + seconds
            while left_s > 0:
                await asyncio.sleep(left_s)
                left_s = until_s - self.clock.now()
            self._over.set()

    def note(
        self, shape: Shape, number: int, fault: str | None, began_s: float, seen: Seen, found: Judgement
    ) -> None:
        """What came of a request that began at `began_s` of the clock."""
        refused = fault in REFUSALS and number in self._first
        as_sent = AS_SENT.get(fault or "") if number in self._first else None
        fine = found.verdict in (Verdict.SAME, as_sent) or (refused and found.verdict is Verdict.ERROR)
        cut = found.verdict in (Verdict.CUT, Verdict.SAME_THEN_CUT)
        if not fine and cut and self.clock.now() - self._killed_s < NOTICED_S:
            self.tally.cut_with_worker += 1
        elif fault == TOO_BIG and found.verdict is Verdict.ERROR and self._server_killed_s > began_s:
            self.tally.beyond_buffer += 1
        elif not fine and found.verdict in OF_STANDSTILLS and self.clock.stood_still_since(began_s):
            self.tally.not_judged += 1
        elif not fine:
            self.tally.shown[f"{found} ({fault or 'no fault of its own'})"] += 1
            said = seen.header("x-request-id")
            self.tally.problems.append(f"{shape.name}, {fault}: {found} (request {number}, id {said})")

    async def _client(self) -> None:
        weights = [shape.share for shape in SHAPES]
        while not self._over.is_set():
            await self._ask(self._random.choices(SHAPES, weights)[0])
            await asyncio.sleep(self._random.uniform(0, 0.05))

    async def _ask(self, shape: Shape) -> None:
        number = next(self._numbers)
        fault = self._random.choice(FAULTS_OF_REQUESTS) if self._random.random() < FAULT_SHARE else None
        if fault is not None:
            self._faults[number] = fault
        prompt = f"soak {number}: {'words ' * (shape.prompt_chars // 6)}"
        request = self.target.request(prompt, stream=shape.stream, max_tokens=shape.tokens, ignore_eos=True)
        began_s = self.clock.now()
        self.tally.requests += 1
        self.tally.streams += shape.stream
        try:
            if shape.leaves:
                await self._leave(request)
            else:
                wanted = self._servers[0].text(
                    prompt_of_messages([{"role": "user", "content": prompt}]), shape.tokens
                )
                adds = FAULTS[fault].adds if fault is not None else ""
                seen = await self._seen(exchange(self.target, request, PATIENCE_S))
                self.note(
                    shape, number, fault, began_s, seen, judge(seen, wanted, stream=shape.stream, adds=adds)
                )
        finally:
            self._faults.pop(number, None)
            if self._first.pop(number, None) is not None and fault is not None:
                self.tally.met[fault] += 1

    async def _leave(self, request: bytes) -> None:
        """Goes before the first byte, or in the middle."""
        self.tally.left += 1
        patience_s = self._random.uniform(0.001, 0.5)
        bytes_ = self._random.randrange(1, 20_000)
        await self._seen(exchange(self.target, request, patience_s, lambda read: read >= bytes_))

    async def _seen(self, exchanged: Awaitable[Seen]) -> Seen:
        try:
            return await exchanged
        except TimeoutError:
            return Seen(End.SILENCE)
        except OSError:
            return Seen(End.NO_ANSWER)

    def _choose(self, server: SimulatedServer, request: Request) -> str | None:
        found = MARKER.search(request.body)
        fault = self._faults.get(int(found[1])) if found else None
        if found is None or fault is None or not FAULTS[fault].hits(request):
            return None
        return fault if self._first.setdefault(int(found[1]), server) is server else None

    async def _trouble(self) -> None:
        """Now and then one server is down or in a storm."""
        while not await self._wait(CALM_S):
            server = self._random.choice(self._servers)
            name = self._random.choice([KILLED, *FAULTS_OF_SERVERS])
            self.tally.down[name] += 1
            server.set_fault("refuse" if name == KILLED else name)
            if name == KILLED:
                self._server_killed_s = self.clock.now()
                server.abort_connections()
            await self._wait(DOWN_S)
            server.set_fault(None)

    async def _kill_workers(self) -> None:
        lives_s = FIRST_WORKER_LIVES_S
        while not await self._wait(lives_s) and self._kill_worker():
            self.tally.workers_killed += 1
            self._killed_s = self.clock.now()
            lives_s = WORKER_LIVES_S

    async def _wait(self, between_s: tuple[float, float]) -> bool:
        """Whether the soak ended meanwhile."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), self._random.uniform(*between_s))
        return self._over.is_set()
