"""Rounds survive their own crashes, and tell of each."""

import asyncio

from octoroute.upstream.rounds import Rounds


async def test_a_crash_is_told_and_followed_by_a_restart() -> None:
    crashed = asyncio.Event()

    async def fail() -> None:
        raise RuntimeError("no round")

    rounds = Rounds(fail, lambda: 30.0, crashed.set, "failing")
    rounds.on_duty(True)
    task = asyncio.create_task(rounds.run())
    async with asyncio.timeout(5):
        await crashed.wait()
    assert not rounds.running
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_hurry_begins_the_next_round_at_once_but_only_on_duty() -> None:
    began: asyncio.Queue[None] = asyncio.Queue()

    async def make() -> None:
        began.put_nowait(None)

    rounds = Rounds(make, lambda: 3600.0, lambda: None, "waiting")
    task = asyncio.create_task(rounds.run())
    rounds.hurry()
    await asyncio.sleep(0)
    assert began.empty()
    rounds.on_duty(True)
    async with asyncio.timeout(5):
        await began.get()
        rounds.hurry()
        await began.get()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
