"""POST /admin/explain: where a request would go, and why. It is not sent, and counts nowhere."""

import orjson
from aiohttp import web

from octoroute.explanation import explain_request, route_of
from octoroute.gateway import Gateway
from octoroute.server.admin import json_response
from octoroute.server.completions import check_content_type, read_view
from octoroute.server.openai import parse_body
from octoroute.server.reading import read_body


async def explain(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """The body and the headers are those of the request to be explained, whatever its route; a body that
    would be refused is refused here too.
    """
    server = gateway.snapshot.config.server
    check_content_type(request)
    body = await read_body(request, server.max_body_bytes, server.request_timeout_seconds)
    view = read_view(route_of(parse_body(body)), request_id, body, request.headers, b"", gateway)
    return json_response(orjson.dumps(explain_request(view, gateway.snapshot)), request_id)
