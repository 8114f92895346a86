"""The pretended machine behind a simulated server: slots, a queue, prefill time and a pace of tokens.

Owns what a load balancer would like to know (processing, deferred). Knows requests as `Asked`, not HTTP.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from octoroute.demo import answers
from octoroute.demo.answers import Asked, Choice


@dataclass(slots=True)
class Engine:
    """`tokens_per_second` is per request and may be infinite; `slots` requests run at once."""

    model: str
    tokens_per_second: float = math.inf
    prefill_seconds: float = 0.0
    slots: int = 4
    seed: int = 0
    wide: bool = False
    answer_tokens: int = answers.ANSWER_TOKENS
    processing: int = 0
    deferred: int = 0
    changed: Callable[[], None] = lambda: None
    last_result_at: float = 0.0
    _free: asyncio.Semaphore = field(init=False)
    _awake: asyncio.Event = field(init=False)

    def __post_init__(self) -> None:
        self._free = asyncio.Semaphore(self.slots)
        self._awake = asyncio.Event()
        self._awake.set()

    @property
    def asleep(self) -> bool:
        return not self._awake.is_set()

    def sleep(self) -> None:
        """Take requests and let them hang, as vLLM does, until `wake`."""
        self._awake.clear()

    def wake(self) -> None:
        self._awake.set()
        self.changed()

    def choices(self, asked: Asked) -> list[Choice]:
        return [
            answers.choice(asked, index, length=self.answer_tokens, seed=self.seed, wide=self.wide)
            for index in range(asked.n)
        ]

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A slot for as long as the block runs; first come, first served."""
        await self._awake.wait()
        self.deferred += 1
        try:
            await self._free.acquire()
        finally:
            self.deferred -= 1
        self.processing += 1
        self.changed()
        try:
            yield
        finally:
            self.processing -= 1
            self._free.release()
            self.changed()

    async def prefill(self) -> None:
        if self.prefill_seconds > 0:
            await asyncio.sleep(self.prefill_seconds)

    async def generate(self, choices: list[Choice]) -> AsyncIterator[tuple[int, int, str]]:
        """(choice, position, token) at the engine's pace, choices interleaved, the last choice first."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        for position in range(max(len(one.tokens) for one in choices)):
            due = started + position / self.tokens_per_second
            await asyncio.sleep(max(0.0, due - loop.time()))
            for index in reversed(range(len(choices))):
                if position < len(choices[index].tokens):
                    self.last_result_at = loop.time()
                    yield index, position, choices[index].tokens[position]

    async def generate_all(self, choices: list[Choice]) -> None:
        """The time that a plain answer takes."""
        length = max(len(one.tokens) for one in choices)
        await asyncio.sleep(length / self.tokens_per_second)
        self.last_result_at = asyncio.get_running_loop().time()
