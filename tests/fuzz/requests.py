"""What clients send, as targets of the fuzzer: the readers of request heads and bodies, and the writer of log
lines.
"""

import asyncio
import struct
from contextlib import suppress
from typing import Final

import orjson

from octoroute._abridge import abridge
from octoroute._json import Unreadable
from octoroute._prefix import prompt_hashes
from octoroute.observe.request_log import as_json, as_text, harmless
from tests.test_abridge import refused, whole
from tests.test_json import expected, spliced
from tests.test_request_head import reads_alike

# aiohttp's parser wants one, and never runs it.
LOOP: Final = asyncio.new_event_loop()
MOST_HASHES: Final = 130


def request(data: bytes) -> None:
    """A head that is taken for an ordinary request's is one to aiohttp too, and the same."""
    reads_alike(data, LOOP)


def splice(data: bytes) -> None:
    """Any bytes are survived; of a body that a parser accepts, a server reads our values and the client's."""
    with suppress(Unreadable):
        spliced(data)
        try:
            parsed = orjson.loads(data)
        except ValueError:
            return
        if isinstance(parsed, dict) and parsed:
            for fill, ask in ((True, False), (False, True)):
                read = orjson.loads(spliced(data, fill=fill, ask=ask))
                assert read == expected(parsed, fill=fill, ask=ask)


def abridged(data: bytes) -> None:
    """A string written with these bytes again and again is refused, or cut, as a parser reads it."""
    if not data:
        return
    body = b'["%b"]' % (data * (40_000 // len(data) + 1))
    found = abridge(body)
    if found is None:
        return
    assert refused(found[0]) == refused(body)
    if not refused(body):
        assert whole(orjson.loads(found[0]), found[1], orjson.loads(body))


def prompt(data: bytes) -> None:
    """Any bytes are survived; of a body that a parser accepts, the opening is one of the beginnings, and
    there are not too many of those.
    """
    if not data:
        return
    for body in (data[1:], b'{"messages": [' + data[1:], b'{"prompt": "' + data[1:] * 20 + b'"}'):
        hashes = prompt_hashes(body, data[0] % 8)
        words = struct.unpack(f"{len(hashes) // 8}Q", hashes)
        assert len(words) <= MOST_HASHES
        with suppress(ValueError):
            orjson.loads(body)
            assert not words or words[0] in words[1:]


def line(data: bytes) -> None:
    """Whatever a client calls a model: the line is one, and a parser reads the name out of it."""
    name = data.decode(errors="replace")
    entry = (0.0, "id", "tenant", name, "fast", "named", "one", 1, 200, "ok", 1.0, 2.0, 3, 4, 5, 0)
    for written in (as_text(entry), as_json(entry)):
        assert written.index(b"\n") == len(written) - 1
        assert written.decode().rstrip("\n").isprintable()
    assert orjson.loads(as_json(entry))["model"] == harmless(name)
