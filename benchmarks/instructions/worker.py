"""One worker of octoroute without a supervisor around it: callgrind can't be talked to in a forked process.

    python -m benchmarks.instructions.worker CONFIG

SIGTERM drains and ends it, as it does every worker.
"""

import sys
from pathlib import Path

from octoroute import logs
from octoroute.config import load
from octoroute.shared_memory import Shared
from octoroute.supervisor.channel import Channel
from octoroute.supervisor.sockets import open_sockets
from octoroute.supervisor.worker import Post, run_worker


def main() -> int:
    config = load(Path(sys.argv[1]))
    logs.setup(config.observability)
    (sockets,) = open_sockets(config.server.host, config.server.port, 1)
    # The worker ends when the other end closes, so it is kept.
    _supervisor, channel = Channel.pair()
    return run_worker(config, Shared(), Post(0, sockets, None, channel))


if __name__ == "__main__":
    sys.exit(main())
