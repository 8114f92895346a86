"""GET /dashboard: a page for operators, of a few files that are kept in memory.

The files are the same for everybody and open to all, since a browser sends no key with them: what they show,
the page asks of /admin, with the key that its reader gives it. Nothing comes from elsewhere, and the browser
is told so.
"""

from pathlib import Path
from typing import Final

from aiohttp import web

from octoroute.errors import InvalidRequest
from octoroute.gateway import Gateway

FOLDER: Final = Path(__file__).parent.parent / "dashboard"
PAGE: Final = "/dashboard"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A gateway that was upgraded must not meet the page of the one before.
    "Cache-Control": "no-store",
    "Server": "octoroute",
}


def _path(name: str) -> str:
    return PAGE if name == "index.html" else f"{PAGE}/{name}"


FILES: Final = {
    _path(file.name): (TYPES[file.suffix], file.read_bytes())
    for file in sorted(FOLDER.iterdir())
    if file.suffix in TYPES
}


async def page(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """One of its files. Raises InvalidRequest where the config leaves the dashboard out."""
    if not gateway.snapshot.config.observability.dashboard:
        raise InvalidRequest(
            "there is no dashboard here: observability.dashboard is false", status=404, code="unknown_route"
        )
    content_type, body = FILES[path]
    return web.Response(
        body=body, headers={**HEADERS, "Content-Type": content_type, "X-Request-Id": request_id}
    )
