"""What one worker wants to know of all: the supervisor asks each of them, and gives it their answers.

Who does not answer in time is left out, and the answer says how many were asked.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from octoroute.supervisor.channel import Message
from octoroute.supervisor.reloading import Worker

ANSWER_SECONDS: Final = 1.0


@dataclass(eq=False)
class Round:
    """A question under way; `number` is the asker's own."""

    asker: Worker
    number: int
    deadline: float
    waiting: list[Worker]
    asked: int = 0
    parts: list[Any] = field(default_factory=list)


class Gathering:
    """`hear` what workers say; the asker bounds how much it asks at a time."""

    def __init__(self) -> None:
        self._rounds: dict[int, Round] = {}
        # They owe an answer, and are not asked again before: what they don't read would fill their line.
        self._silent: set[Worker] = set()
        self._last = 0

    @property
    def deadline(self) -> float | None:
        """When `look_after` has something to do, on the monotonic clock."""
        return min((one.deadline for one in self._rounds.values()), default=None)

    def hear(self, worker: Worker, message: Message, workers: Iterable[Worker]) -> None:
        """A worker asks (`ask_recent`) or answers (`recent`); `workers` are all that there are."""
        if message.kind == "ask_recent":
            self._begin(worker, message.fields["ask"], message.fields["wanted"], workers)
            return
        self._silent.discard(worker)
        number = message.fields["round"]
        one = self._rounds.get(number)
        if one is not None and worker in one.waiting:
            one.waiting.remove(worker)
            one.parts.append(message.fields["told"])
            self._finish_if_done(number)

    def gone(self, worker: Worker) -> None:
        """A worker has ended: nobody waits for it, nor answers it."""
        self._silent.discard(worker)
        for number, one in list(self._rounds.items()):
            if one.asker is worker:
                del self._rounds[number]
            elif worker in one.waiting:
                one.waiting.remove(worker)
                self._finish_if_done(number)

    def look_after(self, now: float) -> None:
        """Gives up waiting for who has not answered."""
        for number, one in list(self._rounds.items()):
            if now >= one.deadline:
                self._silent.update(one.waiting)
                one.waiting.clear()
                self._finish_if_done(number)

    def _begin(self, asker: Worker, ask: int, wanted: dict[str, Any], workers: Iterable[Worker]) -> None:
        self._last += 1
        one = self._rounds[self._last] = Round(asker, ask, time.monotonic() + ANSWER_SECONDS, [])
        for worker in workers:
            one.asked += 1
            if worker in self._silent:
                continue
            if worker.channel.send("tell_recent", round=self._last, wanted=wanted):
                one.waiting.append(worker)
        self._finish_if_done(self._last)

    def _finish_if_done(self, number: int) -> None:
        one = self._rounds[number]
        if one.waiting:
            return
        del self._rounds[number]
        one.asker.channel.send("gathered", ask=one.number, outcome={"parts": one.parts, "asked": one.asked})
