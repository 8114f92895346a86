"""How the supervisor asks all workers for one of them."""

import time
from typing import Any

import pytest

from octoroute.supervisor.channel import Channel, Message
from octoroute.supervisor.gathering import ANSWER_SECONDS, Gathering

WANTED = {"limit": 5}


class Worker:
    """Both ends of a worker's line."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.channel, self.theirs = Channel.pair()

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()

    def heard(self) -> Message:
        message = self.theirs.receive()
        assert message is not None
        return message

    def hears_nothing(self) -> bool:
        try:
            self.theirs.receive()
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def workers() -> Any:
    both = [Worker(1), Worker(2)]
    yield both
    for worker in both:
        worker.close()


def asked(gathering: Gathering, workers: list[Worker]) -> list[int]:
    """The first asks; which rounds all of them are asked for."""
    gathering.hear(workers[0], Message("ask_recent", {"ask": 7, "wanted": WANTED}), workers)
    messages = [worker.heard() for worker in workers]
    assert {(message.kind, str(message.fields["wanted"])) for message in messages} == {
        ("tell_recent", str(WANTED))
    }
    return [message.fields["round"] for message in messages]


def answer(number: int, text: str) -> Message:
    return Message("recent", {"round": number, "told": [[1.0, text]]})


def test_the_asker_gets_what_all_have_answered(workers: list[Worker]) -> None:
    gathering = Gathering()
    [number, _] = asked(gathering, workers)
    gathering.hear(workers[1], answer(number, "b"), workers)
    assert workers[0].hears_nothing()
    gathering.hear(workers[0], answer(number, "a"), workers)
    told = workers[0].heard()
    assert (told.kind, told.fields["ask"]) == ("gathered", 7)
    assert told.fields["outcome"] == {"parts": [[[1.0, "b"]], [[1.0, "a"]]], "asked": 2}
    assert gathering.deadline is None


def test_who_does_not_answer_in_time_is_left_out_and_who_answers_too_late_is_not_heard(
    workers: list[Worker],
) -> None:
    gathering = Gathering()
    [number, _] = asked(gathering, workers)
    gathering.hear(workers[0], answer(number, "a"), workers)
    assert gathering.deadline is not None
    gathering.look_after(gathering.deadline - ANSWER_SECONDS / 2)
    assert workers[0].hears_nothing()
    gathering.look_after(time.monotonic() + ANSWER_SECONDS)
    assert workers[0].heard().fields["outcome"] == {"parts": [[[1.0, "a"]]], "asked": 2}
    # Before it has answered, it is not asked again: its line would fill.
    gathering.hear(workers[0], Message("ask_recent", {"ask": 8, "wanted": WANTED}), workers)
    again = workers[0].heard().fields["round"]
    assert workers[1].hears_nothing()
    gathering.hear(workers[0], answer(again, "a"), workers)
    assert workers[0].heard().fields["outcome"] == {"parts": [[[1.0, "a"]]], "asked": 2}
    gathering.hear(workers[1], answer(number, "b"), workers)
    assert workers[0].hears_nothing()
    assert len(asked(gathering, workers)) == 2


def test_nobody_waits_for_a_worker_that_has_ended_nor_answers_it(workers: list[Worker]) -> None:
    gathering = Gathering()
    [number, _] = asked(gathering, workers)
    gathering.hear(workers[0], answer(number, "a"), workers)
    gathering.gone(workers[1])
    assert workers[0].heard().fields["outcome"]["parts"] == [[[1.0, "a"]]]
    asked(gathering, workers)
    gathering.gone(workers[0])
    assert gathering.deadline is None


def test_no_worker_answers_twice(workers: list[Worker]) -> None:
    gathering = Gathering()
    [number, _] = asked(gathering, workers)
    for _ in range(2):
        gathering.hear(workers[1], answer(number, "b"), workers)
    gathering.hear(workers[0], answer(number, "a"), workers)
    assert len(workers[0].heard().fields["outcome"]["parts"]) == 2
