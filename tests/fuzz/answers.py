"""What servers send, as targets of the fuzzer: the readers of heads, framing, events and token counts, and
the relay, which has them all.
"""

import re
from itertools import pairwise
from typing import Final

import orjson

from octoroute._delivered import Delivered, Pattern
from octoroute._framing import Framing
from octoroute._http1 import Malformed, parse_head
from octoroute._sweep import sweep
from octoroute._usage import tokens
from octoroute.upstream.transcript import Transcript
from tests.test_http1 import h11_response
from tests.test_relay import STREAM_HEAD, Answer, chunk
from tests.test_relay_kept import LEARNT, written
from tests.test_relay_oracle import Reading, legal_only_for_us, payload_of
from tests.test_sse import found_alike
from tests.test_usage_event import filtered

CHUNKED: Final = 2
CHUNKED_HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
COUNTS: Final = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
MOST_TOKENS: Final = 10**12


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


def events(data: bytes) -> None:
    """Ends of events are where a plain oracle sees them, and what is shown of a stream is the same for each
    cut. The first byte says where that is.
    """
    if not data:
        return
    cut, stream = data[0], data[1:]
    found_alike(stream)
    # Of an event that two CRs end and that is left out, an LF in the next read stays.
    if re.search(rb"\r\r(\n|\Z)", stream) is None:
        assert filtered(stream, [cut]) == filtered(stream, [])


def usage(data: bytes) -> None:
    """Any bytes are survived, and of an answer with one usage it is what a parser reads there."""
    told = tokens(data)
    assert min(told) >= -1
    if b"\\" in data or data.count(b'"usage"') != 1:
        return
    try:
        parsed = orjson.loads(data)
    except ValueError:
        return
    if not isinstance(parsed, dict) or not isinstance(parsed.get("usage"), dict):
        return
    counts = [parsed["usage"].get(name, -1) for name in COUNTS]
    if all(type(count) is int and -1 <= count < MOST_TOKENS for count in counts):
        assert told == (max(counts[0], counts[2]), max(counts[1], counts[3]))


def kept(data: bytes) -> None:
    """What is kept of a stream that may have to be continued is what its client got.

    The first byte: 1 recodes, the rest is how much payload a chunk has. The second: how many bytes follow
    that say where reads end.
    """
    if len(data) < 2:
        return
    recoded, size = bool(data[0] & 1), 16 + data[0] // 2
    cuts, payload = data[2 : 2 + data[1] % 16], data[2 + data[1] % 16 :]
    relay = Answer(recoded=recoded)
    relay.delivered = delivered = Delivered(1 << 20)
    delivered.expect(Pattern(written(LEARNT, 1, "x"), b"content"))
    chunks = [chunk(payload[at : at + size]) for at in range(0, len(payload), size)]
    wire = STREAM_HEAD + b"".join(chunks) + b"0\r\n\r\n"
    edges = sorted({0, len(wire), *(len(STREAM_HEAD) + 9 * cut for cut in cuts)})
    for start, end in pairwise(edges):
        if not relay.ended:
            relay.data_received(wire[start:end])
    transcript, oracle = Transcript(10_000, framed=not recoded), Transcript(10_000, framed=not recoded)
    transcript.take_over(delivered)
    oracle.absorb(relay.text)
    assert (transcript.refusal == "") == (oracle.refusal == "")
    if not oracle.refusal:
        for name in ("text", "pieces", "finish_reason", "between_events"):
            assert getattr(transcript, name) == getattr(oracle, name)


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
