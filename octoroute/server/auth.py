"""Who asks: from a request's headers to the tenant whose key it carries, before a byte of its body is read.

Takes the key out of `Authorization: Bearer`, as OpenAI's clients send it, `x-api-key` as Anthropic's, or
`api-key` as Azure's: the first of them that is there. Never logs or repeats what it was given.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

from aiohttp import web

from octoroute._request import RequestHead
from octoroute.admission.limits import Tenant
from octoroute.errors import Forbidden, Unauthorized
from octoroute.gatekeeper import Gatekeeper, Visit
from octoroute.gateway import Gateway
from octoroute.server.dashboard import FILES
from octoroute.server.handler import wire_of

CARRIERS: Final = ("Authorization", "x-api-key", "api-key")
SCHEME: Final = "bearer"
CHALLENGE: Final = {"www-authenticate": 'Bearer realm="octoroute"'}
# What shows or changes how the gateway runs.
OPERATORS: Final = ("/metrics", "/admin")
# A browser asks for them without a key, and they hold nothing that needs one.
OPEN: Final = frozenset(FILES)


def identify(request: web.BaseRequest, path: str, keys: Gatekeeper) -> Tenant | None:
    """The tenant; None on a path that is public. Raises Unauthorized (401) or Forbidden (403)."""
    if path in keys.public or path in OPEN:
        return None
    key = key_in(lambda name: request.headers.getall(name, ()))
    if key is None:
        keys.stranger("missing")
        raise Unauthorized("no API key was sent; send one as: Authorization: Bearer KEY", headers=CHALLENGE)
    tenant = keys.tenants.find(sha256(key).digest())
    if tenant is None:
        keys.stranger("unknown")
        raise Unauthorized("the API key is not known", headers=CHALLENGE)
    if not tenant.admin and is_for_operators(path):
        keys.stranger("not_admin")
        raise Forbidden(f"{path} needs the key of an admin")
    return tenant


def refuse_other_sites(request: web.BaseRequest, path: str) -> None:
    """Where there are no keys, a page of some other site must not steer the gateway through the browser of
    somebody who can reach it. Raises Forbidden.
    """
    if request.method != "POST" or not is_for_operators(path):
        return
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        # An old browser, or one that came over plain HTTP; what is no browser sends neither.
        origin = request.headers.get("Origin")
        if origin is None or origin.partition("://")[2] == request.headers.get("Host"):
            return
    elif site in ("same-origin", "none"):
        return
    raise Forbidden(f"{path} can't be asked for by a page of another site", code="other_site")


def enter(request: web.BaseRequest, gateway: Gateway) -> Visit | None:
    """Begins a request that a model server answers; None where there is no tenant. Raises LimitReached."""
    wire = wire_of(request)
    if wire.tenant is None or gateway.keys is None:
        return None
    return gateway.keys.enter(wire.tenant)


def let_in(head: RequestHead, keys: Gatekeeper) -> Visit | None:
    """`identify` and `enter` for an ordinary request, but None where it is to be refused."""

    def values(name: str) -> tuple[str, ...]:
        value = head.get(name)
        return () if value is None else (value,)

    key = key_in(values)
    tenant = None if key is None else keys.tenants.find(sha256(key).digest())
    return None if tenant is None else keys.let_in(tenant)


def key_in(values: Callable[[str], Sequence[str]]) -> bytes | None:
    """The key in the headers whose values are given; of a header that comes twice, none is believed."""
    for name in CARRIERS:
        found = values(name)
        if not found:
            continue
        key = found[0].strip()
        if name == "Authorization":
            scheme, _, key = key.partition(" ")
            if scheme.lower() != SCHEME:
                continue
            key = key.strip()
        # aiohttp decodes headers so that any byte comes back as it was.
        return key.encode("utf-8", "surrogateescape") if key and len(found) == 1 else None
    return None


def is_for_operators(path: str) -> bool:
    """Whether a path shows or changes how the gateway runs."""
    return any(path == top or path.startswith(f"{top}/") for top in OPERATORS)
