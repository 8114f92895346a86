"""How evenly tenants share a full server: python -m benchmarks.fairness [--seconds N] [--out FILE].

One tenant has ten times the clients of each of three others; they differ in how long their prompts are. All
ask again as soon as they are answered. Told is Jain's index of the tokens that each tenant was served, which
is 1 where all get the same and 1/4 where one gets all (R. Jain, D. Chiu, W. Hawe, 1984), and how much of what
the server could do was done. With two workers, clients are spread evenly, or one of the small tenants has a
worker without any of the other small ones.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from octoroute.demo import SimulatedServer
from tests.end_to_end.fleet import Gateway, endpoint
from tests.end_to_end.keys import CHAT, bearer, keyed_config
from tests.end_to_end.processes import worker_of
from tests.end_to_end.wire_client import WireClient, chat

SLOTS: Final = 4
TOKENS_PER_SECOND: Final = 400  # of a slot
ANSWER_TOKENS: Final = 24
CLIENTS: Final = {"greedy": 40, "short": 4, "middle": 4, "long": 4}
PROMPT_WORDS: Final = {"greedy": 20, "short": 20, "middle": 60, "long": 120}
ROWS: Final = ((1, "even"), (2, "even"), (2, "apart"))


def jain(shares: Sequence[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


async def client_at(port: int, worker: str | None) -> tuple[WireClient, str]:
    """A connection to that worker, or to any."""
    while True:
        client = await WireClient(port).__aenter__()
        client.get("/health")
        found = worker_of(await client.reply())
        if worker in (None, found):
            return client, found
        await client.__aexit__()


async def workers_of(port: int, count: int) -> list[str]:
    found: set[str] = set()
    while len(found) < count:
        client, worker = await client_at(port, None)
        found.add(worker)
        await client.__aexit__()
    return sorted(found)


async def measure(workers: int, spread: str, seconds: float, folder: Path) -> dict[str, Any]:
    server = SimulatedServer(
        "vllm", "m", tokens_per_second=TOKENS_PER_SECOND, slots=SLOTS, answer_tokens=ANSWER_TOKENS
    )
    await server.start()
    gateway = Gateway(folder)
    # Answers may be 4,096 tokens long, and are much shorter, as usual.
    one = endpoint(server, max_in_flight=SLOTS, max_tokens=4096)
    await gateway.start(
        keyed_config([one], *({"name": name} for name in CLIENTS), server={"workers": workers})
    )
    known = await workers_of(gateway.port, workers)
    served: Counter[str] = Counter()
    answered = 0
    end = 0.0

    async def use(tenant: str, client: WireClient) -> None:
        nonlocal answered
        fields = chat("word " * PROMPT_WORDS[tenant])
        while time.monotonic() < end:
            client.post(CHAT, fields, headers=bearer(f"sk-{tenant}"))
            reply = await client.reply()
            assert reply.status == 200, reply
            if time.monotonic() < end:
                served[tenant] += reply.json["usage"]["total_tokens"]
                answered += reply.json["usage"]["completion_tokens"]

    uses = []
    for tenant, count in CLIENTS.items():
        for number in range(count):
            at = number if spread == "even" or tenant == "greedy" else tenant == "short"
            client, _ = await client_at(gateway.port, known[at % workers])
            uses.append((tenant, client))
    end = time.monotonic() + seconds
    await asyncio.gather(*(use(tenant, client) for tenant, client in uses))
    for _, client in uses:
        await client.__aexit__()
    await gateway.stop()
    await server.stop()
    return {
        "workers": workers,
        "clients": spread,
        "tokens": dict(served),
        "jain": round(jain(list(served.values())), 4),
        "of_what_is_possible": round(answered / (SLOTS * TOKENS_PER_SECOND * seconds), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = []
    for number, (workers, spread) in enumerate(ROWS):
        with tempfile.TemporaryDirectory(prefix="octoroute-fairness-") as folder:
            row = asyncio.run(measure(workers, spread, arguments.seconds, Path(folder) / str(number)))
        figures.append(row)
        print(row, flush=True)
    if arguments.out is not None:
        written = {
            "command": f"python -m benchmarks.fairness --out {arguments.out}",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release()},
            "versions": {"python": sys.version.split()[0]},
            "setup": {
                "slots": SLOTS,
                "tokens_per_second_of_a_slot": TOKENS_PER_SECOND,
                "clients": CLIENTS,
                "words_of_prompts": PROMPT_WORDS,
                "seconds": arguments.seconds,
            },
            "figures": figures,
        }
        arguments.out.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
