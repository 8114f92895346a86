"""The supervisor's signals: noted when they come, and taken when it has time for them."""

import os
import selectors
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from octoroute.supervisor.forking import SIGNALS


class Signals:
    """Those that have come and were not taken yet. One wakes the selector."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._pending: set[int] = set()

    def take(self) -> set[int]:
        pending, self._pending = self._pending, set()
        return pending

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside, they do nothing but that. Closes the selector at the end."""
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(reader, selectors.EVENT_READ, partial(os.read, reader, 4096))
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        # Who started this process may have held some back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            os.close(reader)
            os.close(writer)

    def _note(self, number: int, _frame: object) -> None:
        self._pending.add(number)
