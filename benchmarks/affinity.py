"""Policies on real llama.cpp servers with multi-turn chats: python -m benchmarks.affinity [--out FILE].

Two servers with two slots each, started anew for each policy, and a gateway in front. Conversations begin
with a text of their own, wait a moment between turns, and are the same for every policy. What counts are
the prompt tokens that had to be computed although some server had computed them before (llama.cpp's
`timings.prompt_n`, less what was new in the turn), and the time to the first token of turns 2 and later.

The rows `+ id_slot` are clients that name the slot of their conversation, as a gateway could that knew it.
Compile and fetch first: python -m tests.end_to_end.real.install
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.end_to_end.fleet import Gateway
from tests.end_to_end.real.llama import LlamaServer

SERVERS, SLOTS = 2, 2
CONVERSATIONS, TURNS = 6, 5
ANSWER_TOKENS = 16
OPENING_WORDS = 260
PAUSE_S = (0.2, 1.2)
POLICIES = ("weighted", "least_loaded", "prefix_affinity", "session_affinity")
ROWS = (*POLICIES, "prefix_affinity + id_slot", "session_affinity + id_slot")

SYSTEM = "You are a helpful assistant. Answer in one short sentence. " * 4
WORDS = ("river", "road", "city", "night", "tree", "stone", "light", "water", "bridge", "music")
CONFIG = """
[server]
host = "127.0.0.1"
port = 0
request_timeout_seconds = 300

[routing]
strategy = "rule"

[tiers.fast]
policy = "{policy}"
"""
ENDPOINT = """
[[models.{tier}]]
name = "{name}"
base_url = "{url}"
max_tokens = 64
kind = "llama_cpp"
"""


@dataclass
class Turn:
    """What a turn cost. `prompt` and `computed` are tokens."""

    number: int
    ttft_s: float
    prompt: int
    computed: int
    server: str


@dataclass
class Run:
    turns: list[Turn] = field(default_factory=list)
    again: int = 0
    moves: int = 0


async def converse(
    session: aiohttp.ClientSession, url: str, number: int, run: Run, slots: dict[str, int] | None
) -> None:
    chance = random.Random(number)
    words = [chance.choice(WORDS) for _ in range(OPENING_WORDS)]
    messages: list[dict[str, str]] = [{"role": "system", "content": SYSTEM}]
    slot: int | None = None
    before = 0
    server = ""
    for turn in range(TURNS):
        asked = (
            f"Text {number}: {' '.join(words)}. What is it about?"
            if turn == 0
            else f"And what of {chance.choice(words)}?"
        )
        messages.append({"role": "user", "content": asked})
        body: dict[str, Any] = {
            "model": "fast",
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": ANSWER_TOKENS,
            "temperature": 0,
            "user": f"user-{number}",
        }
        if slot is not None:
            body["id_slot"] = slot
        began = time.monotonic()
        ttft = 0.0
        text = ""
        last: dict[str, Any] = {}
        async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            where = answer.headers["x-octoroute-endpoint"]
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                for choice in event["choices"]:
                    if choice["delta"].get("content"):
                        ttft = ttft or time.monotonic() - began
                        text += choice["delta"]["content"]
                last |= {key: event[key] for key in ("usage", "timings") if event.get(key)}
        prompt, computed = last["usage"]["prompt_tokens"], last["timings"]["prompt_n"]
        run.turns.append(Turn(turn, ttft, prompt, computed, where))
        if turn > 0:
            run.again += max(0, computed - (prompt - before))
            run.moves += where != server
        before, server = prompt, where
        if slots is not None and slot is None:
            slot = slots[where] % SLOTS
            slots[where] += 1
        messages.append({"role": "assistant", "content": text})
        await asyncio.sleep(chance.uniform(*PAUSE_S))


async def measure(row: str, folder: Path) -> Run:
    policy, _, pinned = row.partition(" + ")
    run = Run()
    with ExitStack() as stack:
        servers = [
            stack.enter_context(LlamaServer(f"smol-{at}", SLOTS, folder / f"llama-{at}.log"))
            for at in range(SERVERS)
        ]
        config = CONFIG.format(policy=policy) + "".join(
            ENDPOINT.format(tier="fast", name=server.model, url=server.base_url) for server in servers
        )
        config += "".join(
            ENDPOINT.format(tier=tier, name=f"nobody-{tier}", url="http://127.0.0.1:9/v1")
            for tier in ("balanced", "deep")
        )
        gateway = Gateway(folder / "gateway")
        await gateway.start(config)
        try:
            slots = {server.model: 0 for server in servers} if pinned else None
            timeout = aiohttp.ClientTimeout(total=600)
            async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as tasks:
                for number in range(CONVERSATIONS):
                    tasks.create_task(converse(session, gateway.url, number, run, slots))
                    await asyncio.sleep(0.3)
        finally:
            await gateway.stop()
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description="policies on real llama.cpp servers")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    figures: dict[str, list[dict[str, Any]]] = {row: [] for row in ROWS}
    print(
        f"{'policy':28}{'computed':>9}{'again':>8}{'moves':>7}{'p50 TTFT':>10}{'p95 TTFT':>10}{'seconds':>9}"
    )
    for _ in range(arguments.rounds):
        for row in ROWS:
            began = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                run = asyncio.run(measure(row, Path(folder)))
            later = sorted(turn.ttft_s for turn in run.turns if turn.number > 0)
            result = {
                "prompt_tokens": sum(turn.prompt for turn in run.turns),
                "computed_tokens": sum(turn.computed for turn in run.turns),
                "computed_again": run.again,
                "moves": run.moves,
                "ttft_p50_s": round(statistics.median(later), 4),
                "ttft_p95_s": round(later[int(0.95 * (len(later) - 1) + 0.5)], 4),
                "seconds": round(time.monotonic() - began, 1),
                "load_average": os.getloadavg()[0],
            }
            figures[row].append(result)
            print(
                f"{row:28}{result['computed_tokens']:>9}{result['computed_again']:>8}{result['moves']:>7}"
                f"{result['ttft_p50_s']:>9.3f}s{result['ttft_p95_s']:>9.3f}s{result['seconds']:>9}",
                flush=True,
            )
    if arguments.out is not None:
        written = {
            "command": "python -m benchmarks.affinity --out " + str(arguments.out),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {"processor": _processor(), "cpus": os.cpu_count(), "kernel": platform.release()},
            "versions": {
                "python": sys.version.split()[0],
                "llama.cpp": "b11434",
                "model": "SmolLM2-135M-Instruct",
            },
            "setup": {
                "servers": SERVERS,
                "slots": SLOTS,
                "conversations": CONVERSATIONS,
                "turns": TURNS,
                "ttft": "of turns 2 and later",
            },
            "figures": figures,
        }
        arguments.out.write_text(json.dumps(written, indent=1) + "\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    main()
