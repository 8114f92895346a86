"""`octoroute demo check`: every fault through a gateway, and a table of what its clients saw.

The gateway is the one that --target names, or one of our own in front of the two servers with the faults.
"""

import asyncio
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from octoroute.commands.child_gateway import HOST, ChildError, free_port, running
from octoroute.demo import SimulatedServer
from octoroute.demo.checking import Check, GatewayMissingError, Row
from octoroute.demo.client import Target
from octoroute.demo.report import bad, heading, line, total

MODEL = "fault-kit"
# Short times, so that a check is over soon. Servers are never taken for unhealthy, which would hide faults.
# The budget lets every request be tried again, since here every one fails.
CONFIG = """\
[server]
host = "{host}"
port = {port}
request_timeout_seconds = 2

[timeouts]
stream_idle_seconds = 2.0

[health]
failures = 1000

[retry]
budget = 1.0

[routing]
strategy = "rule"

[observability]
log_level = "error"
request_log = false
"""
ENDPOINT = """
[[models.{tier}]]
name = "{model}"
base_url = "{base_url}"
max_tokens = 4096
"""
UNUSED = {"balanced": "nobody-balanced", "deep": "nobody-deep"}


@dataclass(frozen=True)
class Options:
    """What to check and how. Without a `target` it is a gateway of our own."""

    names: Sequence[str]
    target: str = ""
    model: str = MODEL
    api_key: str = ""
    addresses: Sequence[tuple[str, int]] = ((HOST, 0), (HOST, 0))
    kind: str = "vllm"
    patience_s: float = 30.0
    settle_s: float = 5.0


def run(options: Options) -> int:
    """Prints the table as it grows. The exit code: 1 where a client was misled or left waiting."""

    def tell(row: Row) -> None:
        print(line(row, options.names), flush=True)

    try:
        rows = asyncio.run(check(options, tell, introduce=True))
    except (ChildError, GatewayMissingError, ValueError) as error:
        print(f"octoroute demo check: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"octoroute demo check: can't listen: {error}", file=sys.stderr)
        return 1
    print(f"\n{total(rows)}")
    problems = bad(rows)
    if problems:
        print("\nBad:\n" + "\n".join(f"  {problem}" for problem in problems))
    return 1 if problems else 0


async def check(options: Options, tell: Callable[[Row], None], *, introduce: bool = False) -> list[Row]:
    """The rows of all faults; `tell` gets each when it is there.

    Raises ChildError, GatewayMissingError, OSError (an address is taken), ValueError (no URL).
    """
    async with AsyncExitStack() as stack:
        servers = []
        for host, port in options.addresses:
            server = SimulatedServer(options.kind, options.model, wide=True, slots=64)
            await server.start(host, port)
            stack.push_async_callback(server.stop)
            servers.append(server)
        target = Target(options.target or await _own(stack, servers), options.model, options.api_key)
        if introduce:
            print(_introduction(target, servers, own=not options.target), flush=True)
        run = Check(servers, target, patience_s=options.patience_s, settle_s=options.settle_s)
        if introduce:
            print(heading(options.names), flush=True)
        rows = []
        async for row in run.run(options.names):
            rows.append(row)
            tell(row)
        return rows


async def _own(stack: AsyncExitStack, servers: Sequence[SimulatedServer]) -> str:
    """Starts a gateway in front of the servers. Its URL."""
    port = free_port()
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="octoroute-check-")))
    config = CONFIG.format(host=HOST, port=port)
    for server in servers:
        config += ENDPOINT.format(tier="fast", model=server.model, base_url=server.base_url)
    for tier, name in UNUSED.items():
        config += ENDPOINT.format(tier=tier, model=name, base_url=f"http://{HOST}:9/v1")
    process = running(config, port, folder)
    # It answers probes of the servers in this loop while it starts.
    await asyncio.to_thread(process.__enter__)
    stack.push_async_callback(asyncio.to_thread, process.__exit__, None, None, None)
    return f"http://{HOST}:{port}"


def _introduction(target: Target, servers: Sequence[SimulatedServer], *, own: bool) -> str:
    if own:
        return f"Checking an octoroute of our own at {target.url}.\n"
    urls = "\n".join(f"  {server.base_url}" for server in servers)
    return (
        f"Checking the gateway at {target.url}. It must be in front of these two servers, for the model "
        f"{target.model!r}:\n\n{urls}\n\nGive it short timeouts: silence counts as a hang after the "
        "patience of --patience seconds. The check is quickest where a server that failed is used again at "
        "once (nginx: max_fails=0); else it waits for that after each case, up to --settle seconds.\n"
    )
