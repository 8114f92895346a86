"""A gateway as a real process in front of simulated servers, and the config text that joins them.

Owns starting, waiting for readiness, and an ending that is looked at: exit code 0, no traceback in the log.
"""

import asyncio
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from octoroute.demo import SimulatedServer
from tests.end_to_end.nursery import Child, Nursery
from tests.end_to_end.ports import free_port
from tests.sanitized import PATIENCE

START_SECONDS = 60.0 * PATIENCE
# Less than server.drain_seconds is where a config does not say otherwise.
STOP_SECONDS = 25.0 * PATIENCE
ROOT = Path(__file__).parents[2]


@dataclass(slots=True)
class Endpoint:
    """A server with the keys of its `[[models.<tier>]]` table; a bare server means the defaults."""

    server: SimulatedServer
    keys: dict[str, Any] = field(default_factory=dict)


# None is no server at all, which is fine where a source finds some.
Tier = Iterable[SimulatedServer | Endpoint] | None


def endpoint(server: SimulatedServer, **keys: Any) -> Endpoint:
    return Endpoint(server, keys)


def fleet_config(fast: Tier, balanced: Tier = (), deep: Tier = (), **sections: Mapping[str, Any]) -> str:
    """Config text. A tier left out gets a port where nobody listens. Keywords are sections.

    `timeouts={"connect_seconds": 1.0}` becomes `[timeouts]`; `server` and `routing` are merged with what is
    needed to run.
    """
    own = {"host": "127.0.0.1", "port": 0, **sections.get("server", {})}
    routing = {"strategy": "rule", **sections.get("routing", {})}
    lines = [_table("server", own), _table("routing", routing)]
    lines += [_table(name, keys) for name, keys in sections.items() if name not in ("server", "routing")]
    for tier, members in (("fast", fast), ("balanced", balanced), ("deep", deep)):
        if members is None:
            continue
        entries = [one if isinstance(one, Endpoint) else Endpoint(one) for one in members]
        if not entries:
            nobody = {"name": f"nobody-{tier}", "base_url": "http://127.0.0.1:9/v1", "max_tokens": 64}
            lines.append(_table(f"[models.{tier}]", nobody))
        for entry in entries:
            keys = {"name": entry.server.model, "base_url": entry.server.base_url, "max_tokens": 64}
            lines.append(_table(f"[models.{tier}]", keys | entry.keys))
    return "\n".join(lines)


def _table(name: str, keys: Mapping[str, Any]) -> str:
    return f"[{name}]\n" + "".join(f"{_key(key)} = {toml_value(value)}\n" for key, value in keys.items())


def _key(key: str) -> str:
    return key if key.replace("_", "").isalnum() else f'"{key}"'


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {toml_value(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(one) for one in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


@contextmanager
def full_port() -> Iterator[tuple[socket.socket, socket.socket, str]]:
    """A port where connecting hangs, as at a server that is too busy to accept: its backlog has room for one,
    which the second socket takes until it is closed. And its base URL.
    """
    with socket.socket() as full, socket.socket() as only:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        only.connect(full.getsockname())
        yield full, only, f"http://127.0.0.1:{full.getsockname()[1]}/v1"


class Gateway:
    """A running `python -m octoroute --config ...`, or another command in place of the first three words.
    With a nursery it is forked there instead.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = (sys.executable, "-m", "octoroute"),
        nursery: Nursery | None = None,
    ) -> None:
        self.folder = folder
        self.command = command
        self.nursery = nursery
        self.port = 0
        self.tls: ssl.SSLContext | None = None
        self._process: subprocess.Popen[bytes] | Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def process(self) -> subprocess.Popen[bytes] | Child:
        assert self._process is not None
        return self._process

    async def start(self, config: str) -> None:
        """Starts it on a free port and waits until /health answers. Raises AssertionError with the log."""
        self.port = free_port()
        if "tls_cert" in config:
            self.tls = ssl.create_default_context()
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "config.toml"
        path.write_text(config.replace("port = 0\n", f"port = {self.port}\n", 1))
        # A fork takes a moment, and nothing else runs yet.
        with (self.folder / "log").open("wb") as output:
            if self.nursery is not None:
                self._process = self.nursery.start(["--config", str(path)], output.fileno())
            else:
                self._process = subprocess.Popen(  # noqa: ASYNC220
                    [*self.command, "--config", str(path)],
                    cwd=ROOT,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                )
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._healthy():
                    assert self.process.poll() is None, f"the gateway ended while starting:\n{self.log}"
                    await asyncio.sleep(0.02)  # another process: there is no event to wait for
        except TimeoutError:
            self.kill()
            raise AssertionError(f"the gateway was not ready in {START_SECONDS} s:\n{self.log}") from None

    async def stop(self) -> None:
        """SIGTERM. Raises AssertionError where it doesn't end well."""
        if self._process is None:
            return
        self.process.terminate()
        try:
            code = await asyncio.to_thread(self.process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the gateway did not end on SIGTERM:\n{self.log}") from None
        assert code == 0, f"the gateway ended with {code}:\n{self.log}"
        assert "Traceback" not in self.log, f"a traceback is in the log:\n{self.log}"

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    async def _healthy(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
        except OSError:
            return False
        try:
            writer.write(b"GET /health HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
        finally:
            writer.close()
