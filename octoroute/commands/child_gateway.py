"""A gateway as a process of its own: the real command with a temporary config, for showing and checking it.

Owns the process: it is ready when the block begins, and gone when it ends.
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOST = "127.0.0.1"
START_SECONDS = 20.0
STOP_SECONDS = 10.0


class ChildError(Exception):
    """It can't go on; the message is for the person at the terminal."""


@contextmanager
def running(config: str, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway, ready to answer. `folder` gets its config and its log. Raises ChildError."""
    path = folder / "config.toml"
    path.write_text(config)
    log = folder / "log"
    with log.open("wb") as output:
        # A session of its own: Ctrl-C at the terminal reaches us only, and we end the gateway in order.
        process = subprocess.Popen(
            [sys.executable, "-m", "octoroute", "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _await_health(process, port, log)
        yield process
    finally:
        _end(process)


def _await_health(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection(HOST, port, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
    raise ChildError(f"the gateway did not start. It said:\n{tail or '(nothing)'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """In order, and by force if that takes too long."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port(wanted: int = 0) -> int:
    """A port that can be listened on: the one asked for, or any. Raises ChildError."""
    try:
        with socket.create_server((HOST, wanted)) as probe:
            return int(probe.getsockname()[1])
    except OverflowError:
        raise ChildError(f"port {wanted} is not a port; allowed: 0 to 65535") from None
    except OSError as error:
        problem = os.strerror(error.errno or 0)
        raise ChildError(f"port {wanted} can't be used: {problem}. Choose another with --port") from None
