"""Events out of the payload of an event stream, through pieces of any size. Pure.

Grammar: WHATWG HTML, section 9.2.
"""

import re
from typing import Final

# Two ends of line; atomic, so that CR LF is never taken for two.
_EMPTY_LINE: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")

DONE: Final = b"[DONE]"


class EventReader:
    """`feed` it payload; `rest` is the beginning of an event that is not complete."""

    __slots__ = ("rest",)

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, payload: bytes) -> list[tuple[bytes, bytes | None]]:
        """(the event as it came, its data) of each event that is complete now; None: it has no data."""
        payload = self.rest + payload
        events: list[tuple[bytes, bytes | None]] = []
        at = 0
        for end in _EMPTY_LINE.finditer(payload):
            if end.end() > at:
                events.append((payload[at : end.end()], _data(payload[at : end.start()])))
                at = end.end()
        self.rest = payload[at:]
        return events


def write_event(data: bytes) -> bytes:
    """An event with `data` of one line."""
    return b"data: %b\n\n" % data


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event and b"\r" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in _LINE_END.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None
