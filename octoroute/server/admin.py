"""What operators and tools ask of the gateway itself: the model list, health."""

import orjson
from aiohttp import web

from octoroute.errors import InvalidRequest
from octoroute.exchange import TIERS
from octoroute.gateway import Gateway
from octoroute.server.openai import model_list


async def models(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /v1/models"""
    names = [endpoint.spec.name for endpoint in gateway.snapshot.endpoints]
    return json_response(model_list(TIERS, names), request_id)


async def health(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /health: about the gateway, not about its servers (those are in GET /models)."""
    body = {
        "status": "OK",
        "health_tracking_status": "operational",
        "metrics_recording_status": "operational",
        "background_task_status": "operational" if gateway.prober.running else "degraded",
        "background_task_failures": gateway.prober.failures,
    }
    return json_response(orjson.dumps(body), request_id)


async def metrics(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /metrics: of all workers, whichever is asked."""
    body, content_type = gateway.registry.render(request.headers.get("Accept", ""))
    return web.Response(
        body=body, headers={"Content-Type": content_type, "Server": "octoroute", "X-Request-Id": request_id}
    )


async def reload(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """POST /admin/reload: the config is read again, for all workers. 422 if it has problems: all stays."""
    outcome = await gateway.ask_reload()
    if "problems" in outcome:
        raise InvalidRequest(
            "the config is not valid, nothing was changed: " + "; ".join(outcome["problems"]),
            status=422,
            code="invalid_config",
        )
    return json_response(orjson.dumps(outcome), request_id)


def json_response(body: bytes, request_id: str, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=body,
        headers={"Content-Type": "application/json", "Server": "octoroute", "X-Request-Id": request_id},
    )
