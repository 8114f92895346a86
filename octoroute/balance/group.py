"""All endpoints that may answer one target (a tier, or the replicas of one name), and the picks among them.

Owns the tables of that target. They are made anew when an endpoint's health, sleep, drain flag or weight has
changed, which one load of a shared counter tells. Who is chosen of those that may be, policies.py says.
Reads no clock: who has one calls `refresh` about once a second.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from octoroute._pick import Loads
from octoroute._prefix import PrefixIndex
from octoroute._select import FatalSelectionError, Selector
from octoroute.balance.endpoint import Endpoint, FleetState, Lease
from octoroute.balance.policies import POLICIES
from octoroute.exchange import RequestView

__all__ = ["WHYS", "FatalSelectionError", "Group", "Lease", "PrefixIndex", "Vacancy"]

Vacancy = Literal["free", "full", "none_healthy", "all_tried"]

SLOW_START_SHARE = 0.1
# How many endpoints are passed over for a steady one.
LOOKS = 3
# Of choices by affinity, in the order of Loads.take_tally.
WHYS = ("holder", "ring", "least_loaded")


class Group:
    """The endpoints of one target. The highest priority that has a free one answers, by `policy`.

    `prefixes` is what the workers share for policies with affinity; what a server said of its load counts for
    `trust_s` seconds.
    """

    def __init__(
        self,
        label: str,
        endpoints: Iterable[Endpoint],
        state: FleetState,
        seed: int | None = None,
        slow_start_s: float = 0.0,
        policy: str = "weighted",
        prefixes: PrefixIndex | None = None,
        trust_s: float = 6.0,
    ) -> None:
        self.label = label
        self.endpoints = tuple(endpoints)
        self.slow_start_s = slow_start_s
        self.trust_s = trust_s
        # Where there is nothing to choose, nothing is weighed.
        self.policy = policy if len(self.endpoints) > 1 else "weighted"
        # Models that two endpoints serve: what one has begun, another can go on with.
        models = Counter(endpoint.spec.model for endpoint in self.endpoints)
        self.replicated = frozenset(model for model, count in models.items() if count > 1)
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
            [state.server_gate(slot) for slot in self._slots],
        )
        made = POLICIES[self.policy]
        if made.needs_loads:
            priorities = [endpoint.spec.priority for endpoint in self.endpoints]
            self._loads = Loads(state, self._slots, priorities, prefixes or PrefixIndex())
        else:
            self._loads = Loads(state, (), ())
        chooser = made(self._selector, self._loads)
        # What the policy goes by in a request; None where that is nothing. To be given to its every pick.
        self.facts: Callable[[RequestView], bytes | None] = chooser.facts
        self._choose = chooser.choose
        self._generation = -1
        self._now = float("-inf")
        self._ramping = False
        self._ring_weights: list[float] = []

    def pick(self, tried: Collection[Endpoint] = (), facts: bytes | None = None) -> Lease[Endpoint] | None:
        """A place at a healthy endpoint, not draining, not full nor in `tried`; None: see `vacancy`.

        Raises FatalSelectionError where the weights are not what validation let through.
        """
        state = self._state
        if state.generation != self._generation:
            self._rebuild()
        excluded = self._indices(tried) if tried else ()
        while (index := self._choose(excluded, facts)) >= 0:
            endpoint = self.endpoints[index]
            lease = Lease.take(state, endpoint.slot, endpoint)
            if lease is not None:
                if facts is not None:
                    self._loads.note(facts, index)
                return lease
            # Another worker took the last place after the draw; the gate is closed now, so draw again.
        return None

    def pick_steady(
        self, tried: Collection[Endpoint] = (), facts: bytes | None = None
    ) -> Lease[Endpoint] | None:
        """The same for a request that has failed elsewhere: of the highest priority that has a free endpoint,
        one whose last request or probe did not fail, if some draws find any.
        """
        first = self.pick(tried, facts)
        if first is None or not first.endpoint.consecutive_failures:
            return first
        passed = [*tried, first.endpoint]
        for _ in range(LOOKS):
            other = self.pick(passed, facts)
            if other is None:
                break
            found = other.endpoint
            if found.spec.priority == first.endpoint.spec.priority and not found.consecutive_failures:
                first.release()
                return other
            other.release()
            passed.append(found)
        return first

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
        """Bring to `now` the weights of endpoints that warm up, and the trust in loads.

        True while any endpoint warms up.
        """
        self._now = now
        self._loads.trust_since(now - self.trust_s)
        if self._ramping or self._state.generation != self._generation:
            self._rebuild()
        return self._ramping

    def probabilities(self) -> list[float]:
        """Per endpoint, the chance that the next pick takes it, were all of them free."""
        if self._state.generation != self._generation:
            self._rebuild()
        return self._selector.probabilities()

    def take_tally(self) -> dict[str, int]:
        """How many choices by affinity went where, since this was last asked: see WHYS."""
        return dict(zip(WHYS, self._loads.take_tally(), strict=True))

    def _indices(self, tried: Collection[Endpoint]) -> list[int]:
        # By slot, because an endpoint of an earlier snapshot is another object for the same server.
        index = self._index
        return [index[endpoint.slot] for endpoint in tried if endpoint.slot in index]

    def _rebuild(self) -> None:
        # Read before the flags: a change in between is then seen as a new generation by the next pick.
        generation = self._state.generation
        self._ramping = False
        available = self._state.available(self._slots)
        configured = [endpoint.weight for endpoint in self.endpoints]
        weights = self._effective_weights(configured.copy())
        self._selector.rebuild(available, weights)
        if POLICIES[self.policy].needs_loads:
            self._loads.rebuild(available, weights)
            if configured != self._ring_weights:
                self._loads.make_ring(configured)
                self._ring_weights = configured
        self._generation = generation

    def _effective_weights(self, weights: list[float]) -> list[float]:
        if self.slow_start_s > 0.0:
            since = [self._state.healthy_since(slot) for slot in self._slots]
            # A pick that finds a recovery has no clock, but it can't be earlier than the recovery.
            moments = [self._now, *since]
            now = max(moments)
            for index, recovered in enumerate(since):
                if now < recovered + self.slow_start_s:
                    done = max(0.0, now - recovered) / self.slow_start_s
                    share = SLOW_START_SHARE + (1.0 - SLOW_START_SHARE) * done
                    # Of the smallest number that there is, a tenth is 0, which no weight may be.
                    weights[index] = weights[index] * share or weights[index]
                    self._ramping = True
        return weights
