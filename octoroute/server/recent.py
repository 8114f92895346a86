"""GET /admin/recent: the last requests of all workers, whichever is asked. Never content, never a key."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

from octoroute.errors import InvalidRequest
from octoroute.exchange import TIERS
from octoroute.gateway import Gateway
from octoroute.observe.ending import OUTCOMES
from octoroute.observe.recent import MAX_LIMIT, Wanted, newest
from octoroute.server.admin import json_response

UNROUTED: Final = "none"  # what metrics call the tier of requests that ended before they were routed
MAX_STATUS: Final = 599


async def recent(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """The newest come first. A worker that does not answer in time is left out, and `workers` shows it."""
    wanted = read_query(request.raw_path.partition("?")[2])
    told = await gateway.ask_recent(wanted)
    requests = ",".join(newest(told["parts"], wanted.limit))
    body = (
        f'{{"workers":{{"asked":{told["asked"]},"answered":{len(told["parts"])}}},"requests":[{requests}]}}'
    )
    return json_response(body.encode(), request_id)


def read_query(query: str) -> Wanted:
    """What a query asks for. Raises InvalidRequest."""
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        read = READERS.get(name)
        if read is None:
            raise InvalidRequest(
                f"the query has {name[:100]!r}; known here are: {', '.join(READERS)}", param=name[:100]
            )
        if name in given:
            raise InvalidRequest(f"the query has {name} twice", param=name)
        given[name] = read(name, value)
    return Wanted(**given)


def _number(low: int, high: int) -> Callable[[str, str], int]:
    def read(name: str, value: str) -> int:
        if not (value.isascii() and value.isdigit() and len(value) < 7 and low <= int(value) <= high):
            raise InvalidRequest(
                f"{name} is {value[:100]!r}; allowed: a whole number from {low} to {high}", param=name
            )
        return int(value)

    return read


def _word(words: tuple[str, ...]) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value not in words:
            raise InvalidRequest(f"{name} is {value[:100]!r}; allowed: {', '.join(words)}", param=name)
        return "" if value == UNROUTED else value

    return read


READERS: Final[Mapping[str, Callable[[str, str], object]]] = {
    "limit": _number(1, MAX_LIMIT),
    "tier": _word((*TIERS, UNROUTED)),
    "outcome": _word(OUTCOMES),
    "status": _number(0, MAX_STATUS),
    "tenant": lambda _, value: value,
}
