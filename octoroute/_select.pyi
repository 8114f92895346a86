from collections.abc import Iterable, Sequence
from typing import Self, final

class FatalSelectionError(Exception):
    label: str
    priority: int
    total: float
    members: list[tuple[str, float]]
    def __init__(self, label: str, priority: int, total: float, members: list[tuple[str, float]]) -> None: ...

def xoshiro_words(state: tuple[int, int, int, int], count: int) -> list[int]: ...

@final
class Selector:
    @property
    def label(self) -> str: ...
    def __new__(
        cls,
        label: str,
        names: Sequence[str],
        weights: Sequence[float],
        priorities: Sequence[int],
        gates: bytes | bytearray | memoryview | None = None,
        slots: Sequence[int] | None = None,
        seed: int | None = None,
        servers: Sequence[int] | None = None,
    ) -> Self: ...
    def reseed(self, seed: int | None = None) -> None: ...
    def rebuild(self, eligible: bytes, weights: Sequence[float] | None = None) -> None: ...
    def draw(self, excluded: Iterable[int] | None = None) -> int: ...
    def remaining(self, excluded: Iterable[int] | None = None) -> tuple[int, int]: ...
    def probabilities(self) -> list[float]: ...
