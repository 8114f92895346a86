"""Which software a model server is, where the config leaves it open (`kind = "auto"`).

Told by the list of models, which every server has and every probe asks for: llama.cpp, vLLM, SGLang and
Ollama each sign theirs. What was learnt of a server stands in its pool, `Pool.kind`, for this process, and in
the shared state, since only one worker probes.
"""

from collections.abc import Iterable
from typing import Final

import orjson

from octoroute.balance.endpoint import Endpoint
from octoroute.errors import UpstreamFailed
from octoroute.upstream.connection import Connection
from octoroute.upstream.fetch import fetch
from octoroute.upstream.site import Site

AUTO: Final = "auto"
# `owned_by` of a list's models; Ollama's says "library".
OWNERS: Final = {"llamacpp": "llama_cpp", "vllm": "vllm", "sglang": "sglang", "library": "ollama"}
ASK_SECONDS: Final = 2.0
# By their numbers in the shared state.
KINDS: Final = ("", *OWNERS.values())


def told_kind(headers: Iterable[tuple[bytes, bytes]], body: bytes) -> str:
    """The kind of the server that answered so to `GET /v1/models`, "" if it can't be told."""
    if (b"server", b"llama.cpp") in headers:
        return "llama_cpp"
    try:
        models = orjson.loads(body)["data"]
        owners = {model.get("owned_by") for model in models}
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""
    return OWNERS.get(owners.pop(), "") if len(owners) == 1 else ""


def known_kind(endpoint: Endpoint, site: Site) -> str:
    """As configured, else as learnt, else ""."""
    return endpoint.spec.kind if endpoint.spec.kind != AUTO else site.pool.kind


def note_kind(endpoint: Endpoint, site: Site, kind: str) -> None:
    """A server has told this worker what it is."""
    site.pool.kind = kind
    endpoint.state.set_kind(endpoint.slot, KINDS.index(kind))


def hear_kind(endpoint: Endpoint, site: Site) -> bool:
    """What it has told another worker is known here too; whether that is news."""
    kind = KINDS[endpoint.state.kind(endpoint.slot)]
    if not kind or kind == site.pool.kind:
        return False
    site.pool.kind = kind
    return True


async def learn_kind(endpoint: Endpoint, site: Site, active: dict[Connection, Endpoint]) -> str:
    """The same, and asks the server if need be. `active`: the exchanges whose deadlines are looked after."""
    kind = known_kind(endpoint, site)
    if not kind:
        try:
            answer = await fetch(endpoint, site, active, site.writer.get("/models"), ASK_SECONDS)
        except UpstreamFailed:
            return ""
        kind = told_kind(answer.head.headers, answer.body)
        note_kind(endpoint, site, kind)
    return kind
