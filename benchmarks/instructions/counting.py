"""A gateway under callgrind, and the instructions that it executes between two moments."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.processes import free_port

START_S: Final = 120.0
TOTALS: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)
CONFIG: Final = """
[server]
host = "127.0.0.1"
port = {port}
request_timeout_seconds = 3600
[routing]
strategy = "rule"
[timeouts]
connect_seconds = 60.0
stream_idle_seconds = 3600.0
[health]
interval_seconds = 3600.0
timeout_seconds = 300.0
[[models.balanced]]
name = "m-balanced"
base_url = "http://127.0.0.1:{upstream}/v1"
max_tokens = 4096
[[models.deep]]
name = "m-deep"
base_url = "http://127.0.0.1:{upstream}/v1"
max_tokens = 4096
"""
# One endpoint gets practically every draw: its connection is reused, whatever the generator says.
FAST: Final = """
[[models.fast]]
name = "m-{number}"
base_url = "http://127.0.0.1:{upstream}/v1"
max_tokens = 4096
weight = {weight}
"""


class Counted:
    """A gateway process that counts nothing until `count`."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path, port: int) -> None:
        self.process = process
        self.folder = folder
        self.port = port

    def count(self, work: Callable[[], None]) -> int:
        """Instructions in user space while `work` runs, all of the process's."""
        before = set(self.folder.glob("counted.*"))
        self._tell("instrumentation", "on")
        work()
        self._tell("dump")
        self._tell("instrumentation", "off")
        dumps = set(self.folder.glob("counted.*")) - before
        totals = [TOTALS.search(dump.read_text()) for dump in dumps]
        if not any(totals):
            raise RuntimeError(f"callgrind has written no totals into {self.folder}")
        return sum(int(found[1]) for found in totals if found)

    def _tell(self, *command: str) -> None:
        subprocess.run(
            ["vgdb", f"--pid={self.process.pid}", *command],
            check=True,
            timeout=60,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def counted_gateway(folder: Path, upstream: int, endpoints: int) -> Iterator[Counted]:
    """One worker in front of the model server on port `upstream`, with so many endpoints in tier fast."""
    port = free_port()
    config = CONFIG.format(port=port, upstream=upstream)
    for number in range(endpoints):
        config += FAST.format(number=number, upstream=upstream, weight=1.0 if number else 1e12)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config)
    command = [
        "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/counted",
        sys.executable, "-m", "benchmarks.instructions.worker", f"{folder}/config.toml",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        # Hashes of str decide how dicts collide, so they must be the same in each run.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        _wait_until_serving(process, port, folder / "log")
        yield Counted(process, folder, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_serving(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the gateway does not serve:\n{log.read_text()}")
