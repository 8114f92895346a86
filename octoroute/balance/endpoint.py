"""An endpoint: what the config says of one model server, and its live state, which all workers share.

Owns an endpoint's identity and its claim on a slot of the shared table. Decides nothing: breaker.py judges
health, group.py selects.
"""

import os
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from octoroute._lease import Lease
from octoroute._state import FleetState

if TYPE_CHECKING:
    from octoroute._state import Seen

__all__ = ["Endpoint", "EndpointSpec", "FleetState", "Lease", "claim_endpoints"]


@dataclass(frozen=True)
class EndpointSpec:
    """One endpoint as configured. `model` is what the server is asked for, `max_in_flight` 0 is as learnt."""

    tier: str
    name: str
    base_url: str
    model: str = ""
    max_tokens: int = 4096
    temperature: float = 0.7
    weight: float = 1.0
    priority: int = 1
    kind: str = "auto"
    api_key: str = field(default="", repr=False)
    max_in_flight: int = 0
    tls_verify: bool = True
    tls_server_name: str = ""


def identity(spec: EndpointSpec, ordinal: int) -> bytes:
    """16 bytes, the same over reloads and in every worker. `ordinal` tells exact duplicates apart."""
    parts = "\0".join((spec.tier, spec.name, spec.base_url, str(ordinal)))
    return blake2b(parts.encode(), digest_size=16).digest()


def server(spec: EndpointSpec) -> bytes:
    """16 bytes, the same for all endpoints that are one server, whatever their tiers and names.

    The config has one spelling for a URL (config/values.py); two names of one machine are two servers.
    """
    return blake2b(spec.base_url.encode(), digest_size=16).digest()


def claim_endpoints(specs: Iterable[EndpointSpec], state: FleetState) -> tuple["Endpoint", ...]:
    """The endpoints of a whole fleet, in the order of `specs`; those that `state` knows keep their state."""
    seen: Counter[tuple[str, str, str]] = Counter()
    endpoints = []
    for spec in specs:
        key = (spec.tier, spec.name, spec.base_url)
        endpoints.append(Endpoint(spec, state, seen[key]))
        seen[key] += 1
    return tuple(endpoints)


class Endpoint:
    """One model server of one tier. Hashed by object; `slot` is what its like in other snapshots share."""

    def __init__(self, spec: EndpointSpec, state: FleetState, ordinal: int = 0) -> None:
        self.spec = spec
        self.state = state
        self.slot = state.claim(identity(spec, ordinal), server(spec))
        state.set_capacity(self.slot, configured=spec.max_in_flight)
        # The claim ends with the last snapshot, group or lease that holds this object; not at exit, where the
        # table ends too, or is the supervisor's to reclaim.
        weakref.finalize(self, _release_claim, state, self.slot, os.getpid()).atexit = False

    def __repr__(self) -> str:
        health = "draining" if self.draining else "healthy" if self.healthy else "unhealthy"
        capacity = f" of {self.capacity}" if self.capacity else ""
        return f"<Endpoint {self.spec.tier}/{self.spec.name}, {health}, {self.in_flight}{capacity} in flight>"

    @property
    def healthy(self) -> bool:
        return self.state.healthy(self.slot)

    @property
    def asleep(self) -> bool:
        """Whether the server says that it sleeps: it is healthy, but gets no requests."""
        return self.state.asleep(self.slot)

    @property
    def draining(self) -> bool:
        return self.state.draining(self.slot)

    def drain(self, on: bool = True) -> None:
        """Take no new requests, in every worker, or take them again."""
        self.state.set_draining(self.slot, on)

    @property
    def in_flight(self) -> int:
        """Requests in flight over all workers."""
        return self.state.in_flight(self.slot)

    @property
    def capacity(self) -> int:
        """Most requests in flight at once: as configured, else as learnt; 0 is no limit."""
        return self.state.capacity(self.slot)

    def learn_capacity(self, slots: int) -> None:
        """What the server says of itself; `max_in_flight` of the config goes before it."""
        self.state.set_capacity(self.slot, learnt=slots)

    @property
    def full(self) -> bool:
        """Whether it, or its server under all its names, has as many in flight as it may."""
        return self.state.full(self.slot)

    @property
    def weight(self) -> float:
        """The configured weight, or the one set live in its place."""
        return self.state.weight(self.slot) or self.spec.weight

    def set_weight(self, weight: float | None) -> None:
        """Replace the configured weight, in every worker; None puts it back."""
        self.state.set_weight(self.slot, weight or 0.0)

    @property
    def consecutive_failures(self) -> int:
        return self.state.report(self.slot)["failures"]

    @property
    def seen(self) -> "Seen":
        """What was seen of the server, all at one moment: last check, load, time to first token."""
        return self.state.report(self.slot)


def _release_claim(state: FleetState, slot: int, pid: int) -> None:
    # An object that came through a fork is its first process's claim, not this one's.
    if os.getpid() == pid:
        state.release_slot(slot)
