"""`octoroute demo`: a fleet of simulated model servers, a gateway in front of it, and two requests.

Needs no network, no download and no config. Owns the thread it starts, and ends it. The gateway is the
real command with a temporary config, so what is shown is what a user gets.
"""

import asyncio
import http.client
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from octoroute.commands.child_gateway import HOST, ChildError, free_port, running
from octoroute.demo import SimulatedServer

USUAL_PORT = 3000
ONCE_VARIABLE = "OCTOROUTE_DEMO_ONCE"


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint of the fleet as the config names it."""

    tier: str
    server: SimulatedServer
    weight: float = 1.0
    priority: int = 1
    note: str = ""

    def toml(self) -> str:
        return (
            f"[[models.{self.tier}]]\n"
            f'name = "{self.server.model}"\nbase_url = "{self.server.base_url}"\nmax_tokens = 4096\n'
            f"weight = {self.weight}\npriority = {self.priority}\n"
        )


def fleet() -> list[Member]:
    """Fast: two servers, 70 % and 30 %. Balanced: one. Deep: a primary, and a backup with the same name."""
    return [
        Member("fast", _server("llama_cpp", "qwen3-8b", 60, 1), 70, note="70 %"),
        Member("fast", _server("llama_cpp", "llama3-8b", 45, 2), 30, note="30 %"),
        Member("balanced", _server("vllm", "qwen3-30b", 30, 3)),
        Member("deep", _server("vllm", "gpt-oss-120b", 20, 4), priority=2, note="primary"),
        Member("deep", _server("llama_cpp", "gpt-oss-120b", 15, 4), priority=1, note="backup"),
    ]


def run(port: int | None = None, *, once: bool = False) -> int:
    """Shows two requests, then serves until Ctrl-C or SIGTERM; with `once` it ends after the showing.

    Without a port it takes 3000, or a free one where that is in use. Returns the exit code.
    """
    once = once or os.environ.get(ONCE_VARIABLE, "") not in ("", "0")
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _run(_port(port), once=once)
    except KeyboardInterrupt:
        print("\nEnded.", flush=True)
    except ChildError as error:
        print(f"octoroute demo: {error}", file=sys.stderr)
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _interrupt(*_: object) -> None:
    """The first signal ends the demonstration; later ones must not interrupt its ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(port: int, *, once: bool) -> None:
    members = fleet()
    with _serving(members), tempfile.TemporaryDirectory(prefix="octoroute-demo-") as folder:
        print("Simulated model servers:\n")
        for member in members:
            server = member.server
            speed = f"{server.engine.tokens_per_second:.0f} tokens/s"
            line = f"  {member.tier:<9} {server.model:<13} {server.kind:<10} {speed:<13} {member.note}"
            print(line.rstrip())
        with running(_config(members, port), port, Path(folder)) as process:
            _show(members, port)
            if once:
                return
            print(f"\nThe gateway listens on http://{HOST}:{port}. Try it:\n\n  {_curl(port)}\n")
            print(f"And look at it: http://{HOST}:{port}/dashboard\n")
            print("Ctrl-C ends it.", flush=True)
            code = process.wait()
            raise ChildError(f"the gateway ended by itself, with exit code {code}")


def _show(members: list[Member], port: int) -> None:
    print('\n1. A plain request, model "auto": hello, how are you?')
    answer = _ask(port, {"model": "auto", "messages": [{"role": "user", "content": "hello, how are you?"}]})
    with answer:
        said = orjson.loads(answer.read())["choices"][0]["message"]["content"]
    print(f"   {_who(members)}: {said}")
    print('\n2. A stream, model "deep": compare rivers and roads')
    fields = {"messages": [{"role": "user", "content": "compare rivers and roads"}]}
    with _ask(port, {"model": "deep", "stream": True, **fields}) as stream:
        print(f"   {_who(members)}: ", end="", flush=True)
        for token in _tokens(stream):
            print(token, end="", flush=True)
    print()


def _ask(port: int, fields: dict[str, Any]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    headers = {"content-type": "application/json", "connection": "close"}
    try:
        connection.request("POST", "/v1/chat/completions", orjson.dumps(fields), headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise ChildError(f"the gateway did not answer: {error}") from error
    if answer.status != 200:
        raise ChildError(f"the gateway answered {answer.status}: {answer.read().decode(errors='replace')}")
    return answer


def _tokens(stream: http.client.HTTPResponse) -> Iterator[str]:
    """The text of a stream, as it comes."""
    for line in stream:
        data = line.removeprefix(b"data: ").strip()
        if not line.startswith(b"data: ") or data == b"[DONE]":
            continue
        for choice in orjson.loads(data).get("choices", []):
            yield choice["delta"].get("content") or ""


def _who(members: list[Member]) -> str:
    """Which endpoint was asked last, by the records of the servers themselves."""
    asked = [member for member in members if member.server.completions]
    last = max(asked, key=lambda member: member.server.completions[-1].arrived_at)
    note = f" ({last.note})" if last.note else ""
    return f"{last.tier} tier, {last.server.model}{note}"


def _curl(port: int) -> str:
    body = '{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
    url = f"http://{HOST}:{port}/v1/chat/completions"
    return f"curl -N {url} \\\n    -H 'content-type: application/json' \\\n    -d '{body}'"


@contextmanager
def _serving(members: list[Member]) -> Iterator[None]:
    """The simulated servers, in a thread with a loop of its own: the main thread is left to signals."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="simulated servers", daemon=True)
    thread.start()
    try:
        for member in members:
            asyncio.run_coroutine_threadsafe(member.server.start(), loop).result()
        yield
    finally:
        for member in members:
            asyncio.run_coroutine_threadsafe(member.server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _config(members: list[Member], port: int) -> str:
    return (
        f'[server]\nhost = "{HOST}"\nport = {port}\n\n[routing]\nstrategy = "rule"\n\n'
        + '[observability]\nlog_level = "warn"\n\n'
        + "\n".join(member.toml() for member in members)
    )


def _port(wanted: int | None) -> int:
    """The port asked for, the usual one, or a free one. Raises ChildError if the one asked for is taken."""
    if wanted is not None:
        return free_port(wanted)
    try:
        return free_port(USUAL_PORT)
    except ChildError:
        return free_port()


def _server(kind: str, model: str, tokens_per_second: float, seed: int) -> SimulatedServer:
    return SimulatedServer(
        kind, model, tokens_per_second=tokens_per_second, prefill_seconds=0.1, slots=8, seed=seed
    )
