"""Remembers what the LLM router decided, by the key of the question: a bounded LRU that never holds content.

A fleet's decisions are its own: a new table begins with an empty memory.
"""

from collections import OrderedDict


class Decisions:
    """Tier by question key. `entries` bounds it; 0 switches it off, and then nothing is counted either."""

    __slots__ = ("_tiers", "entries", "evicted", "hits", "misses")

    def __init__(self, entries: int) -> None:
        if entries < 0:
            raise ValueError(f"entries must not be negative, got {entries}")
        self.entries = entries
        self.hits = 0
        self.misses = 0
        self.evicted = 0
        self._tiers: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tiers)

    def __repr__(self) -> str:
        return (
            f"<Decisions {len(self._tiers)}/{self.entries}, {self.hits} hits, {self.misses} misses,"
            f" {self.evicted} evicted>"
        )

    def recall(self, key: bytes) -> str | None:
        """The tier decided for an equal question; None where none is remembered."""
        if not self.entries:
            return None
        tier = self._tiers.get(key)
        if tier is None:
            self.misses += 1
            return None
        self._tiers.move_to_end(key)
        self.hits += 1
        return tier

    def remember(self, key: bytes, tier: str) -> None:
        """Keeps a decision, in place of the one unused for longest when full."""
        if not self.entries:
            return
        self._tiers[key] = tier
        self._tiers.move_to_end(key)
        if len(self._tiers) > self.entries:
            self._tiers.popitem(last=False)
            self.evicted += 1
