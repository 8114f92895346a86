"""The waiting rooms of one worker, one for each tier, and the bell by which other workers wake them."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from functools import partial

from octoroute._bells import Bells
from octoroute.admission.board import WaitingBoard
from octoroute.admission.queue import Bounds
from octoroute.balance.group import Group
from octoroute.exchange import TIERS, Target
from octoroute.observe.registry import Registry
from octoroute.upstream.waiting import WaitingRoom


class WaitingRooms(dict[str, WaitingRoom]):
    """By tier."""

    def __init__(self, registry: Registry, board: WaitingBoard, bells: Bells, worker: int) -> None:
        super().__init__()
        board.clear(worker)
        for queue, tier in enumerate(TIERS):

            def ring_for(waits: bool, queue: int = queue) -> None:
                bells.wait(worker, queue, waits)

            elsewhere = partial(bells.others_wait, worker, queue)
            self[tier] = WaitingRoom(tier, registry, board, worker, ring_for, elsewhere)
        # Where there is one worker, nobody rings.
        self._bell = bells.descriptor(worker)

    def configure(
        self,
        bounds: Bounds,
        importance: str,
        groups: Mapping[Target, Group],
        rows: Mapping[str, int],
        hopes: Mapping[str, float],
    ) -> None:
        """See WaitingRoom.configure; `hopes` by tier."""
        for tier, room in self.items():
            room.configure(bounds, importance, groups, rows, hopes[tier])

    def listen(self) -> None:
        """From here a place that another worker gives back is noticed at once."""
        if self._bell >= 0:
            asyncio.get_running_loop().add_reader(self._bell, self._answer)

    def close(self) -> None:
        if self._bell >= 0:
            asyncio.get_running_loop().remove_reader(self._bell)

    def _answer(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        for room in self.values():
            room.freed()
