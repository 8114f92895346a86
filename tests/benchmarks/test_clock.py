"""The soak's clock leaves out the time in which the machine or its own process stood still."""

import os
import signal
import subprocess
import sys
import time

from benchmarks.soak.clock import AFTERMATH_S, Clock, Standstill

# Says "ready" once it is being watched, and after a line on its stdin what it noticed.
CHILD = """
import asyncio
from benchmarks.soak.clock import Clock

async def main():
    clock = Clock(still_s=1.0)
    watching = asyncio.create_task(clock.watch())
    print("ready", flush=True)
    await asyncio.to_thread(input)
    print(clock.now(), *(still.seconds for still in clock.standstills))

asyncio.run(main())
"""


class Hands:
    """Two clocks that are set by hand."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.wall = 5000.0

    def clock(self) -> Clock:
        return Clock(2.0, monotonic=lambda: self.monotonic, wall=lambda: self.wall)

    def go(self, seconds: float, wall: float | None = None) -> None:
        self.monotonic += seconds
        self.wall += seconds if wall is None else wall


def test_short_steps_are_time_that_passes() -> None:
    hands = Hands()
    clock = hands.clock()
    for _ in range(10):
        hands.go(1.5)
        clock.now()
    assert clock.now() == 15.0
    assert clock.standstills == []
    assert not clock.stood_still_since(0.0)


def test_a_long_step_is_a_standstill_and_is_not_counted() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.go(1.0)
    clock.now()
    hands.go(60.0)
    assert clock.now() == 1.0
    hands.go(1.0)
    assert clock.now() == 2.0
    hands.go(10.0)
    assert clock.now() == 2.0
    assert clock.standstills == [Standstill(1.0, 60.0), Standstill(2.0, 10.0)]


def test_a_machine_whose_monotonic_clock_rested_too_stood_still() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.go(0.1, wall=45.0)
    assert clock.now() == 0.0
    assert clock.standstills == [Standstill(0.0, 45.0)]


def test_what_began_before_a_standstill_or_soon_after_it_overlaps_it() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.go(1.0)
    before_s = clock.now()
    hands.go(30.0)
    assert clock.stood_still_since(before_s)
    assert clock.stood_still_since(clock.now())
    for _ in range(2):
        hands.go(AFTERMATH_S / 2)
        clock.now()
    assert not clock.stood_still_since(clock.now())
    assert clock.stood_still_since(before_s)


def test_a_process_that_is_stopped_notices_it_when_it_goes_on() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        stopped = time.monotonic()
        time.sleep(1.5)  # this is what the child is to notice
        lasted = time.monotonic() - stopped
        child.send_signal(signal.SIGCONT)
        told, _ = child.communicate("\n", timeout=60)
    _, *stood = map(float, told.split())
    assert max(stood) >= lasted
