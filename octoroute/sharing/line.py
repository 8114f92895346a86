"""One worker's connection to Redis: calls of one script, a batch of them at a time, each with a deadline.

Owns the client. What may go wrong with it comes out as Away, in words that hold no secret.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from octoroute.errors import ConfigError

DEADLINE_SECONDS: Final = 0.1
CONNECT_SECONDS: Final = 1.0
# How often the loop turns before an answer that came while it was busy has been read.
TURNS: Final = 8

Argument = str | int
Answer = list[int]

T = TypeVar("T")


class Call(NamedTuple):
    """One run of the script."""

    keys: Sequence[str]
    arguments: Sequence[Argument]


class Away(Exception):
    """Redis can't be used, and why: in a word for the metrics, and in full for the log."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Line:
    """`open` it, then `run` calls. After Away it has to be opened again."""

    def __init__(self, url: str, script: str) -> None:
        self._redis = make_client(url)
        self._script = script
        self._digest = ""

    async def open(self) -> None:
        """Connects. Raises Away."""
        await self.close()
        self._digest = await _told(CONNECT_SECONDS, self._redis.script_load(self._script))

    async def run(self, calls: Sequence[Call]) -> list[Answer]:
        """What the script answers to each, in one round trip. Raises Away."""
        answers = await self._send(calls)
        # Somebody has emptied its store of scripts: then none has run.
        forgotten = [at for at, answer in enumerate(answers) if _wants_script(answer)]
        if forgotten:
            await _told(DEADLINE_SECONDS, self._redis.script_load(self._script))
            again = await self._send([calls[at] for at in forgotten])
            for at, answer in zip(forgotten, again, strict=True):
                answers[at] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise _away(answer)
        return answers

    async def close(self) -> None:
        with suppress(Away):
            await _told(CONNECT_SECONDS, self._redis.connection_pool.disconnect())

    async def _send(self, calls: Sequence[Call]) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for call in calls:
            pipeline.evalsha(self._digest, len(call.keys), *call.keys, *call.arguments)
        found: list[Any] = await _told(DEADLINE_SECONDS, pipeline.execute(raise_on_error=False))
        return found


def require_client(url: str) -> None:
    """Raises ConfigError where there is a URL, but nothing that can use it."""
    if url:
        make_client(url)


def make_client(url: str) -> Any:
    """A client that has one connection, and neither waits nor tries again on its own. It connects when it is
    used first. Raises ConfigError.
    """
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ModuleNotFoundError:
        raise ConfigError(
            "config",
            ["shared.redis_url needs the extra redis; install it with: pip install 'octoroute[redis]'"],
        ) from None
    try:
        client: Any = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=None,
            max_connections=1,
            protocol=2,
        )
        # What it does not know it says only when it makes a connection.
        client.connection_pool.make_connection()
    except (TypeError, ValueError) as error:
        # The text may have the value, and so a password.
        raise ConfigError(
            "config",
            [f"shared.redis_url has options that the package redis can't use ({type(error).__name__})"],
        ) from None
    return client


async def _told(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    try:
        return await _within(seconds, work)
    except TimeoutError:
        raise Away("timeout", f"no answer within {seconds:g} s") from None
    except Exception as error:
        raise _away(error) from None


async def _within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Raises TimeoutError. Where the loop itself was busy for so long, what has come meanwhile counts."""
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait((task,), timeout=seconds)
        for _ in range(TURNS):
            if task.done():
                break
            await asyncio.sleep(0)
    finally:
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
    if task.cancelled():
        raise TimeoutError
    return task.result()


def _wants_script(answer: object) -> bool:
    if not isinstance(answer, Exception):
        return False
    from redis.exceptions import NoScriptError

    return isinstance(answer, NoScriptError)


def _away(error: Exception) -> Away:
    from redis import exceptions

    if isinstance(error, exceptions.AuthenticationError | exceptions.NoPermissionError):
        return Away("refused", str(error))
    if isinstance(error, exceptions.TimeoutError):
        return Away("timeout", str(error))
    if isinstance(error, exceptions.ConnectionError | OSError):
        return Away("connection", str(error))
    return Away("error", f"{type(error).__name__}: {error}")
