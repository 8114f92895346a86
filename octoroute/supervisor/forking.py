"""How the supervisor makes a process of its own: without its signals' handlers, and with an end that unwinds
nothing of what it was copied from.
"""

import logging
import os
import signal
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

SIGNALS: Final = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGUSR2))
# Ctrl-C and a closed terminal reach the whole group: the supervisor decides what they mean.
IGNORED: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)


def fork(run: Callable[[], int]) -> int:
    """Has a new process run a function and end with the code that it returns; the process id.

    SIGTERM is blocked there until the function unblocks it.
    """
    # The child must not run a handler of this process, nor lose a signal before it has its own.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    pid = os.fork()
    if pid == 0:
        _be_child(run)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return pid


def _be_child(run: Callable[[], int]) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS - {signal.SIGTERM})
        code = run()
    except BaseException:
        log.exception("a process of octoroute failed")
    finally:
        logging.shutdown()
        os._exit(code)
