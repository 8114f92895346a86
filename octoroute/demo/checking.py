"""Runs every fault through a gateway in front of two simulated servers, and judges what the client saw.

The fault sits with one server or with both. One: with the server that is asked first for a request, so that
it shows whatever the gateway prefers; the other server is well. A fault of a whole server (a closed port,
a storm) sits with the first server, and shows in a burst of requests.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count

from octoroute.demo.answers import prompt_of_messages
from octoroute.demo.client import End, Seen, Target, exchange
from octoroute.demo.faults import FAULTS, Fault
from octoroute.demo.judging import Judgement, Verdict, judge
from octoroute.demo.server import SimulatedServer
from octoroute.demo.wire import Request

BURST = 8  # requests at the same time that show the fault of a whole server
TRIES = 5  # to meet a fault that needs luck: a connection that was used before
PAUSE_S = 0.02
# A gateway that was asked before its servers were there may not look for them for a while: nginx for 10 s.
GREETED_WITHIN_S = 12.0


class Place(Enum):
    """Where a fault sits. The text stands in tables."""

    ONE = "one of two"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Case:
    place: Place
    stream: bool

    def __str__(self) -> str:
        return f"{self.place.value}, {'stream' if self.stream else 'plain'}"


CASES = [Case(place, stream) for place in Place for stream in (False, True)]


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one fault; None where it was never met."""

    name: str
    judgements: dict[Case, Judgement | None]


class GatewayMissingError(Exception):
    """The gateway does not answer as one that is in front of these servers; the message is for people."""


class Check:
    """One run. `patience_s` is how long a client waits for an answer, `settle_s` how long the gateway may
    take to trust a server again that has failed.
    """

    def __init__(
        self, servers: Sequence[SimulatedServer], target: Target, *, patience_s: float, settle_s: float
    ) -> None:
        self._servers = servers
        self._target = target
        self._patience_s = patience_s
        self._settle_s = settle_s
        self._numbers = count(1)
        self._fault: str | None = None
        self._place = Place.ONE
        self._marker = b""
        self._first: SimulatedServer | None = None
        self._reaches_both = True
        self._gone = ""  # why the gateway could not be reached the last time
        for server in servers:
            server.choose_faults(lambda request, server=server: self._choose(server, request))  # type: ignore[misc]

    async def run(self, names: Iterable[str] = FAULTS) -> AsyncIterator[Row]:
        """A row for each fault. Raises GatewayMissingError."""
        await self._greet()
        for name in names:
            judgements: dict[Case, Judgement | None] = {}
            for case in CASES:
                found = await self._run_case(name, case)
                after = await self._settle()
                if found is not None and after.verdict in (Verdict.WRONG, Verdict.HANG, Verdict.SILENTLY_CUT):
                    found = Judgement(Verdict.POISONED)
                judgements[case] = found
            yield Row(name, judgements)

    async def _greet(self) -> None:
        """Raises GatewayMissingError unless a request gets an answer of one of the servers."""
        hello = self._target.request("hello", stream=False)
        until = time.monotonic() + GREETED_WITHIN_S
        while True:
            try:
                seen = await exchange(self._target, hello, self._patience_s)
            except OSError as error:
                raise GatewayMissingError(f"nobody answers at {self._target.url}: {error}") from None
            if seen.status < 500 or time.monotonic() > until:
                break
            await asyncio.sleep(PAUSE_S)
        if seen.end is End.SILENCE:
            raise GatewayMissingError(f"no answer from {self._target.url} within {self._patience_s:g} s")
        if judge(seen, self._text("hello"), stream=False).verdict is not Verdict.SAME:
            said = seen.body[:300].decode(errors="replace")
            raise GatewayMissingError(
                f"{self._target.url} did not pass on what the servers said, but {seen.status}: {said}"
            )
        await self._settle()
        self._reaches_both = self._both_asked

    async def _run_case(self, name: str, case: Case) -> Judgement | None:
        fault = FAULTS[name]
        if fault.of_the_server:
            return await self._run_whole_server(name, case)
        for _ in range(TRIES):
            found = await self._ask(name, case, fault)
            if self._met(name):
                return found
            await self._settle()
        return None

    async def _run_whole_server(self, name: str, case: Case) -> Judgement | None:
        bad = self._servers[:1] if case.place is Place.ONE else self._servers
        for server in bad:
            server.set_fault(name)
        try:
            found = await asyncio.gather(*(self._ask(None, case) for _ in range(BURST)))
        finally:
            for server in bad:
                server.set_fault(None)
        # The worst: a client that is told of a failure by a gateway with a good server is one too many.
        return max(found, key=lambda one: one.verdict.rank)

    async def _ask(self, name: str | None, case: Case, fault: Fault | None = None) -> Judgement:
        prompt = f"request {next(self._numbers)} of the check"
        self._marker = prompt.encode()
        self._fault, self._place, self._first = name, case.place, None
        adds = fault.adds if fault is not None else ""
        return await self._judged(prompt, stream=case.stream, adds=adds)

    async def _judged(self, prompt: str, *, stream: bool, adds: str = "") -> Judgement:
        try:
            self._gone = ""
            seen = await exchange(self._target, self._target.request(prompt, stream=stream), self._patience_s)
        except TimeoutError:
            seen = Seen(End.SILENCE)
        except OSError as error:
            self._gone = str(error)
            seen = Seen(End.NO_ANSWER)
        return judge(seen, self._text(prompt), stream=stream, adds=adds)

    async def _settle(self) -> Judgement:
        """Ordinary requests until both servers are asked again. What came of the first one. Raises
        GatewayMissingError where nobody takes them any more.
        """
        self._fault = None
        for server in self._servers:
            server.requests.clear()
        first: Judgement | None = None
        until = time.monotonic() + self._settle_s
        while True:
            found = await self._judged(f"request {next(self._numbers)} of the check", stream=False)
            first = first or found
            fine = found.verdict is Verdict.SAME and (self._both_asked or not self._reaches_both)
            if fine or time.monotonic() > until:
                break
            await asyncio.sleep(PAUSE_S)
        if self._gone:
            raise GatewayMissingError(f"nobody answers at {self._target.url} any more: {self._gone}")
        return first

    @property
    def _both_asked(self) -> bool:
        return all(server.completions for server in self._servers)

    def _met(self, name: str) -> bool:
        return any(request.fault == name for server in self._servers for request in server.completions)

    def _choose(self, server: SimulatedServer, request: Request) -> str | None:
        name = self._fault
        if name is None or self._marker not in request.body or not FAULTS[name].hits(request):
            return None
        if self._first is None:
            self._first = server
        return name if self._place is Place.BOTH or server is self._first else None

    def _text(self, prompt: str) -> str:
        return self._servers[0].text(prompt_of_messages([{"role": "user", "content": prompt}]))
