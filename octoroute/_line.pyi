from collections.abc import Callable, Iterable
from typing import Any, Literal

class Template:
    def __init__(
        self,
        parts: Iterable[tuple[bytes, Literal["time", "word", "text", "count", "tenths"]]],
        end: bytes,
        absent: bytes,
        empty: bytes,
        quotes: bytes,
        bare: str,
        quoted: Callable[[str], str],
    ) -> None: ...
    def line(self, values: tuple[Any, ...]) -> bytes: ...
