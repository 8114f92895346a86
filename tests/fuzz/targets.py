"""What is fuzzed: one function per compiled reader, which gets any bytes and raises AssertionError where the
reader and its oracle disagree. `python -m tests.fuzz` drives them; test_corpus.py replays what is kept.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Final

import orjson

from octoroute._abridge import abridge
from octoroute._framing import Framing
from octoroute._http1 import Malformed, parse_head
from octoroute._json import Unreadable
from octoroute._sweep import sweep
from tests.test_abridge import refused, whole
from tests.test_http1 import h11_response
from tests.test_json import expected, spliced
from tests.test_relay import Answer
from tests.test_relay_oracle import Reading, legal_only_for_us, payload_of

CHUNKED: Final = 2
CHUNKED_HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def head(data: bytes) -> None:
    """What is taken as a head, h11 takes too, for the same; more bytes behind it change nothing."""
    try:
        found, used = parse_head(data)
    except Malformed:
        return
    if found is None:
        return
    assert data[:used].endswith(b"\r\n\r\n")
    again, used_again = parse_head(data[:used] + b"more")
    assert again is not None
    assert (again.headers, used_again) == (found.headers, used)
    if found.status >= 200:
        theirs = h11_response(data[:used])
        assert theirs is not None
        # h11 tells `chunked` in lower case, however it was written.
        ours = [
            (name, value.lower() if name == b"transfer-encoding" else value) for name, value in found.headers
        ]
        assert (found.status, ours) == (theirs.status_code, list(theirs.headers))


def framing(data: bytes) -> None:
    """One read or one byte at a time: the same end and payload, and h11's, where it is whole."""
    outcomes = []
    for step in (len(data) or 1, 1, 7):
        body = Framing(CHUNKED)
        payload = b""
        used = 0
        refused = False
        try:
            while used < len(data) and not body.done:
                taken, _, piece = body.feed(data[used : used + step])
                used += taken
                payload += piece
        except Malformed:
            refused = True
        outcomes.append((body.done, refused, (payload, used) if body.done else None))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    done, _, what = outcomes[0]
    if done and not legal_only_for_us(data):
        reading = Reading(CHUNKED_HEAD + data)
        assert reading.whole
        assert what is not None
        assert reading.payload == what[0]


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


def relay(data: bytes) -> None:
    """An answer in reads as the first bytes say: what goes out is what h11 reads.

    The first byte: 1 recodes, 2 sweeps between reads, 4 loses the connection, 8 by an error, 16 gives up.
    The second: how many bytes follow that say how long the reads are.
    """
    if len(data) < 2:
        return
    flags, cuts, wire = data[0], data[2 : 2 + data[1] % 16], data[2 + data[1] % 16 :]
    edges = [0]
    for length in cuts:
        edges.append(min(len(wire), edges[-1] + length))
    if edges[-1] < len(wire):
        edges.append(len(wire))
    answer = Answer(1 + flags // 32 * 10, recoded=bool(flags & 1))
    for start, end in pairwise(edges):
        if answer.failures or answer.wire.aborted:
            break
        if end > start:
            answer.data_received(wire[start:end])
        if flags & 2:
            sweep([answer], answer.last_ns + 200_000_000)
    if flags & 16:
        answer.finish()
        answer.rest()
    if flags & 4:
        answer.connection_lost(ConnectionResetError() if flags & 8 else None)
    assert len(answer.failures) <= 1
    assert not (answer.ended and answer.failures and not answer.text)
    if flags & 1 or flags & 16 or legal_only_for_us(wire):
        return
    assert answer.text in wire
    assert payload_of(answer) == Reading(wire).payload[: len(payload_of(answer))]


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "head": head,
    "framing": framing,
    "splice": splice,
    "abridged": abridged,
    "relay": relay,
}
