"""The policies: which endpoint of a group a request goes to.

A policy chooses among those that are healthy, not draining, not excluded and not full, of the highest
priority that has one; the compiled cores see to that, whatever the policy. A policy is one class here, its
word in POLICIES, and the same word in config/schema.py.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import ClassVar, Final, Protocol

from octoroute._pick import Loads
from octoroute._prefix import prompt_hashes
from octoroute._select import Selector
from octoroute.exchange import RequestView

# Conversations that begin alike differ from here on: before it stands, often, one system prompt for all.
OPENING_ROLE: Final = "user"


class Policy(Protocol):
    """Made for one group, from its alias tables and, if it needs them, the loads of its endpoints."""

    needs_loads: ClassVar[bool]

    def __init__(self, selector: Selector, loads: Loads) -> None: ...

    def facts(self, view: RequestView) -> bytes | None:
        """What the policy goes by in a request: native 64-bit hashes as of `prompt_hashes`, or None."""

    def choose(self, excluded: Sequence[int], facts: bytes | None) -> int:
        """The index of an endpoint, -1 where none is left."""


class Weighted:
    """By weight alone."""

    needs_loads: ClassVar[bool] = False

    def __init__(self, selector: Selector, loads: Loads) -> None:  # noqa: ARG002
        self._draw = selector.draw

    def facts(self, view: RequestView) -> bytes | None:  # noqa: ARG002
        return None

    def choose(self, excluded: Sequence[int], facts: bytes | None) -> int:  # noqa: ARG002
        return self._draw(excluded or None)


class LeastLoaded:
    """Draws two by weight and takes the one with less to do for its weight.

    The power of two choices (M. Mitzenmacher, IEEE Trans. Parallel Distrib. Syst. 12(10), 2001): nearly as
    even as to look at all of them, and workers with old figures don't all run to the same endpoint.
    """

    needs_loads: ClassVar[bool] = True

    def __init__(self, selector: Selector, loads: Loads) -> None:
        self._draw = selector.draw
        self._lighter = loads.lighter

    def facts(self, view: RequestView) -> bytes | None:  # noqa: ARG002
        return None

    def choose(self, excluded: Sequence[int], facts: bytes | None) -> int:  # noqa: ARG002
        first = self._draw(excluded or None)
        return first if first < 0 else self._lighter(first, self._draw((*excluded, first)))


class _Affinity(LeastLoaded):
    """To where the same was sent before, within bounds of load; without facts as LeastLoaded."""

    def __init__(self, selector: Selector, loads: Loads) -> None:
        super().__init__(selector, loads)
        self._choose = loads.choose

    def choose(self, excluded: Sequence[int], facts: bytes | None) -> int:
        if facts is None:
            return super().choose(excluded, None)
        return self._choose(facts, excluded)


class PrefixAffinity(_Affinity):
    """To the endpoint that was sent the longest beginning of the prompt, whose cache then has it.

    A prompt of which nothing was sent anywhere goes by its opening, which ends with the user's first message.
    """

    def facts(self, view: RequestView) -> bytes | None:
        messages = view.fields.get("messages") or view.fields.get("input")
        return prompt_hashes(view.body, _opening(messages) if isinstance(messages, list) else 0) or None


class SessionAffinity(_Affinity):
    """To the endpoint that the session had before, as long as it is there and within its bound.

    A session is what the header x-octoroute-session says, else `prompt_cache_key`, else `user`; the same word
    from two tenants is two sessions.
    """

    def facts(self, view: RequestView) -> bytes | None:
        session = view.session or view.fields.get("prompt_cache_key") or view.fields.get("user")
        if not isinstance(session, str) or not session:
            return None
        key = f"{view.tenant}\0{session}".encode(errors="surrogatepass")
        # The place on the ring, and the only beginning that there is to know.
        return blake2b(key, digest_size=8).digest() * 2


def _opening(messages: list[object]) -> int:
    for at, message in enumerate(messages):
        if isinstance(message, dict) and message.get("role") == OPENING_ROLE:
            return at
    return 0


POLICIES: Final[Mapping[str, type[Policy]]] = {
    "weighted": Weighted,
    "least_loaded": LeastLoaded,
    "prefix_affinity": PrefixAffinity,
    "session_affinity": SessionAffinity,
}
