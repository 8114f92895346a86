"""A client whose stream waits for another server hears a comment line after each silence."""

import asyncio
import time
from typing import cast

from octoroute.upstream.client import Carrier
from octoroute.upstream.connection import Connection
from octoroute.upstream.pulse import Pulse

PING_NS = 10_000_000


class Heard:
    """The connection that the client heard, and the client."""

    def __init__(self, ago_ns: int = 0, bytes_out: int = 1) -> None:
        self.out_ns = time.monotonic_ns() - ago_ns
        self.bytes_out = bytes_out
        self.pings = 0
        self.pinged = asyncio.Event()

    def ping(self, relay: object) -> None:
        assert relay is self
        self.pings += 1
        self.pinged.set()


def pulse_of(heard: Heard, ping_ns: int = PING_NS) -> Pulse:
    return Pulse(cast(Carrier, heard), cast(Connection, heard), ping_ns)


async def test_it_beats_again_and_again_until_it_is_stopped() -> None:
    heard = Heard(ago_ns=PING_NS)
    pulse = pulse_of(heard)
    async with asyncio.timeout(60):
        for _ in range(3):
            await heard.pinged.wait()
            heard.pinged.clear()
    pulse.stop()
    pings = heard.pings
    await asyncio.sleep(3 * PING_NS * 1e-9)
    assert heard.pings == pings


async def test_it_goes_by_what_the_client_heard_last() -> None:
    hour_ns = 3_600_000_000_000
    heard = Heard(ago_ns=hour_ns)
    pulse = pulse_of(heard, hour_ns)
    pulse.turn_to(cast(Connection, Heard()))
    pulse.turn_to(None)
    pulse.turn_to(cast(Connection, Heard(bytes_out=0)))
    await asyncio.sleep(PING_NS * 1e-9)
    pulse.stop()
    assert not heard.pings
