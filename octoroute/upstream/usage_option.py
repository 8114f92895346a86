"""Whether the streams of one endpoint are asked for their token counts: `stream_options.include_usage`.

The client did not ask, so it must see no difference. vLLM and SGLang send one event more, which the relay
leaves out. Nobody else is asked, and least of all a server that did not say yet who it is: its streams go out
as they come, whatever is in them. (llama.cpp would move its `timings` from the last chunk into that event,
but those hold the counts already.) A server that refuses the option gets the request once more, without it,
and is not asked again.
"""

from typing import Final

from octoroute.exchange import RequestView
from octoroute.upstream.connection import Connection, Verdict
from octoroute.upstream.pool import Pool

ROUTES: Final = frozenset(("/v1/chat/completions", "/v1/completions"))
KINDS: Final = frozenset(("vllm", "sglang"))
# What a client may write that means the same as nothing at all.
NOTHING: Final[tuple[object, ...]] = (None, {}, {"include_usage": False}, {"include_usage": None})
REFUSALS: Final = frozenset((400, 422))


class UsageOption:
    """One per endpoint and snapshot."""

    __slots__ = ("_asks", "_kind", "_known", "_pool")

    def __init__(self, kind: str, pool: Pool, *, wanted: bool) -> None:
        self._kind = kind
        self._pool = pool
        self._asks = wanted
        # Whether an answer has shown that the server takes the option.
        self._known = False

    def wanted(self, view: RequestView) -> bool:
        """Whether to ask with this request, which is for a stream."""
        return (
            self._asks
            and view.path in ROUTES
            and (self._pool.kind if self._kind == "auto" else self._kind) in KINDS
            and view.fields.get("stream_options") in NOTHING
        )

    def doubted(self, verdict: Verdict, connection: Connection) -> bool:
        """What came of a request with the option. True: the option may be why the server refused it."""
        if verdict is Verdict.WHOLE and connection.head.status in REFUSALS:
            return not self._known or b"stream_options" in connection.held_payload()
        if verdict is Verdict.STREAMED:
            self._known = True
        return False

    def refused(self) -> None:
        """Without the option the same request was accepted."""
        self._asks = False
