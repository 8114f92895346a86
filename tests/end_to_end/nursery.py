"""Starts gateways from a process that has imported all of one already: that is two thirds of what a start
costs, and hundreds of tests start one. Those about starting, upgrading and ending run the command itself.

A gateway is forked twice, and its first parent ends: so it becomes a child of the tests' process, which can
wait for it.
"""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson

PR_SET_CHILD_SUBREAPER: Final = 36
CLOSE_SECONDS: Final = 60.0
MOST_BYTES: Final = 1 << 20
REDIS_SECONDS: Final = 1.0


class Child:
    """As much of `subprocess.Popen` as tests need of a gateway, for a process that was adopted."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises TimeoutExpired."""
        if self.returncode is None:
            end = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(end, select.POLLIN)
                poll.poll(None if timeout is None else timeout * 1000)
            finally:
                os.close(end)
        code = self.poll()
        if code is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired(["octoroute"], timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """A process that forks gateways when it is told to, until it is closed. `root` is where it looks for
    octoroute.
    """

    def __init__(self, root: Path) -> None:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._wishes, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.end_to_end.nursery", str(theirs.fileno())],
                cwd=root,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )

    def start(self, arguments: Sequence[str], output: int) -> Child:
        """`python -m octoroute` with these arguments, which writes to the file `output`."""
        wish = orjson.dumps({"arguments": arguments, "environment": dict(os.environ)})
        socket.send_fds(self._wishes, [wish], [output])
        pid = self._wishes.recv(16)
        assert pid, "the nursery has ended"
        return Child(int(pid))

    def close(self) -> None:
        self._wishes.close()
        self._process.wait(CLOSE_SECONDS)


def _fork_for(wishes: socket.socket) -> int:
    """Until nobody wishes any more; in a gateway, that gateway's exit code."""
    while True:
        wish, files, _, _ = socket.recv_fds(wishes, MOST_BYTES, 1)
        if not wish:
            return 0
        reader, writer = os.pipe()
        parent = os.fork()
        if parent == 0:
            pid = os.fork()
            if pid:
                os.write(writer, b"%d" % pid)
                os._exit(0)
            wishes.close()
            os.close(reader)
            os.close(writer)
            return _be_gateway(files[0], **orjson.loads(wish))
        os.close(writer)
        os.close(files[0])
        os.waitpid(parent, 0)
        wishes.send(os.read(reader, 16))
        os.close(reader)


def _be_gateway(output: int, arguments: list[str], environment: dict[str, str]) -> int:
    from octoroute.cli import main
    from octoroute.sharing import line

    # Where tests keep both cores busy, a Redis that is well is late at times.
    vars(line)["DEADLINE_SECONDS"] = REDIS_SECONDS
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["octoroute", *arguments]
    sys.orig_argv = [sys.executable, "-m", "octoroute", *arguments]
    return main(arguments)


if __name__ == "__main__":
    import octoroute.supervisor.workers  # noqa: F401 - what a gateway imports

    sys.exit(_fork_for(socket.socket(fileno=int(sys.argv[1]))))
