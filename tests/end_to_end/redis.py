"""A real redis-server for the tests, on a port of its own: started, stopped in the middle, frozen."""

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.ports import free_port

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
START_SECONDS = 60.0
# Of a window: what is owed, and what each second has.
SUM = """
local _, sum, used = unpack(cmsgpack.unpack(redis.call('GET', KEYS[1])))
for _, each in ipairs(used) do sum = sum + each end
return sum
"""

needs_redis = pytest.mark.skipif(
    SERVER is None, reason="there is no redis-server; `apt-get install redis-server` brings it"
)


class RedisServer:
    """Not kept on disk: after a `restart` it is empty."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Returns when it answers."""
        assert SERVER is not None
        self._folder.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork takes a moment
            [
                *(
                    SERVER,
                    "--port",
                    str(self.port),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ),
                *("--dir", str(self._folder), "--enable-debug-command", "yes", *self._options),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """From here it answers nobody, and its connections stay."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    async def do(self, *command: str | int) -> Any:
        """What it answers to a command."""
        from redis.asyncio import Redis

        client: Any = Redis(port=self.port, protocol=2, decode_responses=True)
        async with client:
            return await client.execute_command(*command)

    async def keys(self) -> list[str]:
        found: list[str] = await self.do("KEYS", "*")
        return found

    async def used(self, kind: str) -> int:
        """What all tenants have used of their `requests` or `tokens`, as the script counts it."""
        keys = [key for key in await self.keys() if key.endswith(f":{kind}")]
        return sum([int(await self.do("EVAL", SUM, 1, key)) for key in keys])

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return bool(await reader.readline())
        finally:
            writer.close()
