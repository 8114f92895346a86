"""`octoroute demo servers`: simulated servers with faults for whoever wants to try a gateway.

A fault is chosen for one request by the words `fault:NAME` in it (the model's name or a message), or for a
server by its /faults route.
"""

import asyncio
import math
import re
import signal
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import orjson

from octoroute.demo.faults import FAULTS
from octoroute.demo.server import SimulatedServer
from octoroute.demo.wire import Answer, Request

ROUTE = "/faults"
ASKED_FOR = re.compile(rb"fault:([a-z0-9.-]*[a-z0-9])")
REFUSED_S = 10.0  # a port that refuses can't be told to stop it
JSON = [("Content-Type", "application/json")]


def fault_in(request: Request) -> str | None:
    """The fault that a request asks for by `fault:NAME`. An unknown name is no fault."""
    found = ASKED_FOR.search(request.body)
    name = found[1].decode() if found else ""
    return name if name in FAULTS else None


class FaultRoute:
    """GET /faults: what there is. PUT /faults/NAME, `?count=N`, `?seconds=S`: from now on. DELETE /faults."""

    def __init__(self, server: SimulatedServer) -> None:
        self._server = server
        self._ending: asyncio.TimerHandle | None = None
        server.answer_aside(self.answer)
        server.choose_faults(fault_in)

    def answer(self, request: Request) -> Answer | None:
        path, query = urlsplit(request.target).path, parse_qs(urlsplit(request.target).query)
        name = path.removeprefix(ROUTE).removeprefix("/")
        if path != ROUTE and not path.startswith(f"{ROUTE}/"):
            return None
        if request.method == "GET":
            return _said({name: fault.about for name, fault in FAULTS.items()})
        if request.method == "DELETE":
            self._set(None)
            return _said({"fault": None})
        if request.method != "PUT":
            return _said({"error": "allowed: GET, PUT, DELETE"}, 405)
        if name not in FAULTS:
            return _said({"error": f"there is no fault {name!r}", "allowed": list(FAULTS)}, 404)
        try:
            seconds = _number(query, "seconds", REFUSED_S if FAULTS[name].behave is None else math.inf)
            count = _number(query, "count", math.inf)
            self._set(name, None if count == math.inf else math.ceil(count), seconds)
        except ValueError as error:
            return _said({"error": str(error)}, 400)
        return _said({"fault": name})

    def _set(self, name: str | None, count: int | None = None, seconds: float = math.inf) -> None:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        self._server.set_fault(name, count=count)
        if seconds < math.inf:
            self._ending = asyncio.get_running_loop().call_later(seconds, self._server.set_fault, None)


def _number(query: dict[str, list[str]], name: str, default: float) -> float:
    """Raises ValueError where it is given and not a positive number."""
    try:
        value = float(query[name][0]) if name in query else default
    except ValueError:
        value = -1.0
    if not value > 0:
        raise ValueError(f"{name} must be a positive number")
    return value


def _said(value: object, status: int = 200) -> Answer:
    return Answer(status, JSON, orjson.dumps(value))


def serve(addresses: Sequence[tuple[str, int]], kind: str, model: str) -> None:
    """Until Ctrl-C or SIGTERM. Raises OSError where an address can't be used."""
    asyncio.run(_serve(addresses, kind, model))


async def _serve(addresses: Sequence[tuple[str, int]], kind: str, model: str) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    servers = [SimulatedServer(kind, model, tokens_per_second=100, wide=True) for _ in addresses]
    try:
        for server, (host, port) in zip(servers, addresses, strict=True):
            await server.start(host, port)
            FaultRoute(server)
        print(_introduction(servers), flush=True)
        await ended.wait()
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


def _introduction(servers: Sequence[SimulatedServer]) -> str:
    one = servers[0]
    urls = "\n".join(f"  {server.base_url}" for server in servers)
    root = one.base_url.removesuffix("/v1")
    return (
        f"Simulated {one.kind} servers of the model {one.model}:\n\n{urls}\n\n"
        "A fault for one request: put fault:NAME into a message, or into the model's name.\n"
        "A fault for all requests to a server:\n\n"
        f"  curl {root}{ROUTE}                            # the faults that there are\n"
        f"  curl -X PUT {root}{ROUTE}/reset-mid-event     # ?count=3 or ?seconds=10 to limit it\n"
        f"  curl -X DELETE {root}{ROUTE}                  # no fault any more\n\n"
        "Ctrl-C ends it."
    )
