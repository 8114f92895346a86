"""Rounds are made on duty only, survive their own crashes, and tell of each."""

import asyncio

from octoroute.upstream.rounds import Rounds


class Work:
    def __init__(self, crash: Exception | None = None) -> None:
        self.began: asyncio.Queue[None] = asyncio.Queue()
        self.crash = crash

    def interval_s(self) -> float:
        return 0.01

    async def round(self) -> None:
        self.began.put_nowait(None)
        if self.crash is not None:
            raise self.crash


async def test_a_crash_is_told_and_followed_by_a_restart() -> None:
    crashed = asyncio.Event()
    rounds = Rounds(Work(RuntimeError("no round")), crashed.set, "failing")
    rounds.on_duty(True)
    task = asyncio.create_task(rounds.run())
    async with asyncio.timeout(60):
        await crashed.wait()
    assert not rounds.running
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_rounds_are_made_on_duty_only() -> None:
    work = Work()
    rounds = Rounds(work, lambda: None, "working")
    task = asyncio.create_task(rounds.run())
    await asyncio.sleep(0)
    assert work.began.empty()
    rounds.on_duty(True)
    async with asyncio.timeout(60):
        await work.began.get()
        await work.began.get()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
