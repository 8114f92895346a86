"""One server that goes on with a broken answer: what it is asked, how much it reads of what was said so far,
and the client's side of what it says.
"""

from dataclasses import dataclass
from typing import Any, Final

import orjson

from octoroute._http1 import Head
from octoroute._relay import Relay
from octoroute.balance.endpoint import Endpoint
from octoroute.errors import UpstreamFailed
from octoroute.upstream.client import Carrier
from octoroute.upstream.connection import Connection, Verdict
from octoroute.upstream.fetch import fetch
from octoroute.upstream.sequel import Sequel, Spent
from octoroute.upstream.site import Site
from octoroute.upstream.transcript import Transcript

COUNT_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """What a server is asked, and what becomes of its answer."""

    request: bytes
    sequel: Sequel


async def count_tokens(
    endpoint: Endpoint, site: Site, active: dict[Connection, Endpoint], so_far: Transcript, kind: str
) -> Spent:
    """How many tokens the text so far is. Who wrote it may have said so; who reads it is asked, because
    that is what it will count as its prompt; and each chunk was one at least.
    """
    text = so_far.reasoning + so_far.text
    if kind == "llama_cpp":
        fields: dict[str, Any] = {"content": text, "add_special": False}
    else:
        fields = {"model": endpoint.spec.model, "prompt": text, "add_special_tokens": False}
    read = 0
    try:
        request = site.writer.post("/tokenize", orjson.dumps(fields))
        answer = await fetch(endpoint, site, active, request, COUNT_SECONDS)
        if answer.status == 200:
            read = len(orjson.loads(answer.body)["tokens"])
    except (UpstreamFailed, ValueError, TypeError, KeyError):
        pass
    read = max(read, so_far.pieces)
    return Spent(so_far.tokens if so_far.tokens >= 0 else read, read)


class Second:
    """The client's side of a server that goes on with an answer: its chunks are rewritten."""

    started = True

    def __init__(self, client: Carrier, sequel: Sequel) -> None:
        self._client = client
        self._sequel = sequel
        self._relay: Connection | None = None

    def start(self, head: Head, relay: Relay) -> None:
        assert isinstance(relay, Connection)
        if not head.event_stream:
            relay.settle(Verdict.BROKEN, "no_stream")
            return
        self._relay = relay
        relay.recode(self._feed)

    def _feed(self, payload: bytes) -> None:
        self._sequel.feed(payload)
        if self._sequel.failed and self._relay is not None:
            self._relay.settle(Verdict.BROKEN, self._sequel.failed)

    def announce(self, head: Head, relay: Relay) -> None: ...

    def ping(self, relay: Relay) -> None:
        self._client.ping(relay)
