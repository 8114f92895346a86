"""How policies with affinity choose, as metrics: what groups have counted since the last look.

Picks count for themselves and know no metrics; this is called about once a second.
"""

from collections.abc import Iterable
from typing import Final

from octoroute.balance.group import Group, PrefixIndex
from octoroute.observe.registry import Registry

CHOICES: Final = "octoroute_affinity_choices_total"
FORGOTTEN: Final = "octoroute_affinity_forgotten_total"


class Choices:
    """One for a process: `prefixes` counts what this process put in the place of something older."""

    def __init__(self, registry: Registry, prefixes: PrefixIndex) -> None:
        self._choices = registry.bound(CHOICES)
        self._forgotten = registry.counter(FORGOTTEN)
        self._prefixes = prefixes
        self._evicted = prefixes.evicted

    def flush(self, groups: Iterable[Group]) -> None:
        """Books what the groups chose."""
        for group in groups:
            if group.policy == "weighted":
                # Most are, and there may be a thousand.
                continue
            for choice, count in group.take_tally().items():
                if count:
                    self._choices[group.label, choice].add(count)
        evicted = self._prefixes.evicted
        if evicted != self._evicted:
            self._forgotten.add(evicted - self._evicted)
            self._evicted = evicted
