"""The probing of endpoints survives its own crashes, and tells of each."""

import asyncio

from octoroute.snapshot import Snapshot
from octoroute.upstream.probe import Prober


async def test_a_crash_of_the_probing_is_told_and_followed_by_a_restart() -> None:
    crashed = asyncio.Event()

    def snapshot() -> Snapshot:
        raise RuntimeError("no snapshot")

    prober = Prober(snapshot, {}, {}, crashed.set)
    prober.on_duty(True)
    task = asyncio.get_running_loop().create_task(prober.run())
    async with asyncio.timeout(5):
        await crashed.wait()
    assert not prober.running
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
