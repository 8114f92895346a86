"""All endpoints that may answer one target (a tier, or the replicas of one name), and the picks among them.

Owns the alias tables of that target. They are made anew when an endpoint's health, drain flag or weight has
changed, which one load of a shared counter tells. Reads no clock: who has one calls `refresh` while
an endpoint warms up.
"""

from collections.abc import Collection, Iterable
from typing import Literal

from octoroute._select import FatalSelectionError, Selector
from octoroute.balance.endpoint import Endpoint, FleetState, Lease

__all__ = ["FatalSelectionError", "Group", "Lease", "Vacancy"]

Vacancy = Literal["free", "full", "none_healthy", "all_tried"]

SLOW_START_SHARE = 0.1


class Group:
    """The endpoints of one target. The highest priority that has a free one answers, by weight."""

    __slots__ = (
        "_generation",
        "_index",
        "_now",
        "_ramping",
        "_selector",
        "_slots",
        "_state",
        "endpoints",
        "label",
        "slow_start_s",
    )

    def __init__(
        self,
        label: str,
        endpoints: Iterable[Endpoint],
        state: FleetState,
        seed: int | None = None,
        slow_start_s: float = 0.0,
    ) -> None:
        self.label = label
        self.endpoints = tuple(endpoints)
        self.slow_start_s = slow_start_s
        self._state = state
        self._slots = [endpoint.slot for endpoint in self.endpoints]
        self._index = {slot: index for index, slot in enumerate(self._slots)}
        self._selector = Selector(
            label,
            [endpoint.spec.name for endpoint in self.endpoints],
            [endpoint.spec.weight for endpoint in self.endpoints],
            [endpoint.spec.priority for endpoint in self.endpoints],
            state.gates,
            self._slots,
            seed,
        )
        self._generation = -1
        self._now = float("-inf")
        self._ramping = False

    def pick(self, tried: Collection[Endpoint] = ()) -> Lease[Endpoint] | None:
        """A place at a healthy endpoint, not draining, not full nor in `tried`; None: see `vacancy`.

        Raises FatalSelectionError where the weights are not what validation let through.
        """
        state = self._state
        if state.generation != self._generation:
            self._rebuild()
        excluded = self._indices(tried) if tried else None
        while (index := self._selector.draw(excluded)) >= 0:
            endpoint = self.endpoints[index]
            lease = state.lease(endpoint.slot, endpoint)
            if lease is not None:
                return lease
            # Another worker took the last place after the draw; the gate is closed now, so draw again.
        return None

    def vacancy(self, tried: Collection[Endpoint] = ()) -> Vacancy:
        """Why `pick` gave None, or `free` where it would not."""
        if self._state.generation != self._generation:
            self._rebuild()
        untried, free = self._selector.remaining(self._indices(tried))
        if free:
            return "free"
        if untried:
            return "full"
        return "all_tried" if self._selector.remaining()[0] else "none_healthy"

    def refresh(self, now: float) -> bool:
        """Bring the weights of endpoints that warm up to `now`. True while any does: call again soon."""
        self._now = now
        if self._ramping or self._state.generation != self._generation:
            self._rebuild()
        return self._ramping

    def probabilities(self) -> list[float]:
        """Per endpoint, the chance that the next pick takes it, were all of them free."""
        if self._state.generation != self._generation:
            self._rebuild()
        return self._selector.probabilities()

    def _indices(self, tried: Collection[Endpoint]) -> list[int]:
        # By slot, because an endpoint of an earlier snapshot is another object for the same server.
        index = self._index
        return [index[endpoint.slot] for endpoint in tried if endpoint.slot in index]

    def _rebuild(self) -> None:
        # Read before the flags: a change in between is then seen as a new generation by the next pick.
        generation = self._state.generation
        self._ramping = False
        self._selector.rebuild(self._state.available(self._slots), self._effective_weights())
        self._generation = generation

    def _effective_weights(self) -> list[float]:
        weights = [endpoint.weight for endpoint in self.endpoints]
        if self.slow_start_s > 0.0:
            since = [self._state.healthy_since(slot) for slot in self._slots]
            # A pick that finds a recovery has no clock, but it can't be earlier than the recovery.
            now = max([self._now, *since])
            for index, recovered in enumerate(since):
                if now < recovered + self.slow_start_s:
                    done = max(0.0, now - recovered) / self.slow_start_s
                    weights[index] *= SLOW_START_SHARE + (1.0 - SLOW_START_SHARE) * done
                    self._ramping = True
        return weights
