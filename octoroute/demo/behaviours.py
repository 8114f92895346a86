"""What a misbehaving server works with: the exchange it may use, and the steps it plays instead of an answer.

Behaviours are made in refusals.py (no answer), breaks.py (a part of one) and forms.py (a whole one that looks
odd); the names that people choose by are in faults.py.
"""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from octoroute.demo.wire import CLOSE, LAST_CHUNK, Answer, Request, Step, head

JSON = ("Content-Type", "application/json")
SSE = ("Content-Type", "text/event-stream")
CHUNKED = ("Transfer-Encoding", "chunked")
SSE_HEAD = head(200, [SSE, CHUNKED])


class Exchange(Protocol):
    """What a behaviour may use. `answer` makes the ordinary answer and takes the time of one."""

    request: Request

    async def answer(self, instead: Request | None = None) -> Answer: ...

    def loading(self) -> Answer: ...

    def error_event(self, message: str) -> bytes: ...


Behaviour = Callable[[Exchange], AsyncIterator[Step]]


def signal(*steps: Step) -> Behaviour:
    """Nothing of an answer, only these steps."""

    async def behave(_: Exchange) -> AsyncIterator[Step]:
        for step in steps:
            yield step

    return behave


async def end_of(answer: Answer) -> AsyncIterator[Step]:
    """What follows the last piece of an ordinary answer."""
    if not isinstance(answer.body, bytes):
        yield LAST_CHUNK
    if not answer.keeps:
        yield CLOSE


def wants_stream(request: Request) -> bool:
    return request.json.get("stream") is True


def first_wide(data: bytes) -> int:
    """Where the first character of several bytes begins, or -1."""
    return next((at for at, byte in enumerate(data) if byte >= 0xC0), -1)
