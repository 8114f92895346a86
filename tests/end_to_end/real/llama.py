"""A real llama.cpp server with a small real model, as tests see it: where it listens, which slots work.

It must not install anything: `make test-real` does that first, through install.py.
"""

import json
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Self

from tests.end_to_end.ports import free_port
from tests.end_to_end.real.install import model_file, server_binary

CONTEXT_TOKENS_PER_SLOT = 8192  # what SmolLM2 was trained for
STARTED_WITHIN_S = 60.0


class LlamaServer:
    """A running llama.cpp. `model` is the name that its answers carry. Leaving its `with` block kills it."""

    def __init__(self, model: str, slots: int, log: Path, template: Path | None = None) -> None:
        """Starts it and waits until it is healthy. Raises AssertionError with the end of its log. `template`:
        for chats, in place of the model's own.
        """
        port = free_port()
        self.model = model
        self.url = f"http://127.0.0.1:{port}"
        self.base_url = f"{self.url}/v1"
        self.log = log
        command = [str(server_binary()), "--model", str(model_file()), "--alias", model]
        command += ["--metrics", "--offline"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--parallel", str(slots)]
        command += ["--ctx-size", str(CONTEXT_TOKENS_PER_SLOT * slots), "--threads", "1"]
        if template is not None:
            # `off`: it thinks where the request says so.
            command += ["--chat-template-file", str(template), "--reasoning", "off"]
        with log.open("wb") as out:
            # setpriv makes the kernel kill the server when pytest dies, however it dies.
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid
        try:
            self._wait_until_healthy()
        except BaseException:
            self.kill()
            raise

    def _wait_until_healthy(self) -> None:
        give_up = time.monotonic() + STARTED_WITHIN_S
        while time.monotonic() < give_up and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)  # another process: there is no event to wait for
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        state = f"status {self._process.poll()}"
        raise AssertionError(
            f"llama-server at {self.url} is not healthy ({state}); the end of its log:\n{tail}"
        )

    def kill(self) -> None:
        # Not SIGTERM: after it the server leaves open streams silent for 20 s and more.
        self._process.kill()
        self._process.wait()

    def busy_slots(self) -> int:
        """How many slots work now.

        To be asked at most once a second: each question puts off the server's look for clients that left.
        """
        with urllib.request.urlopen(f"{self.url}/slots", timeout=10) as answer:
            return sum(slot["is_processing"] for slot in json.load(answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
