"""What operators and tools ask of the gateway itself: the model list, health."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

import orjson
from aiohttp import web

from octoroute.errors import Internal, InvalidRequest
from octoroute.exchange import TIERS
from octoroute.gateway import CRASHES, LOST, UNTRACKED, Gateway
from octoroute.routing.decide import WORDS
from octoroute.routing.unknown_model import unknown_model
from octoroute.server.openai import model_entry, model_list

MODEL_PREFIX: Final = "/v1/models/"


async def models(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /v1/models"""
    names = gateway.snapshot.routing.models[len(WORDS) :]
    return json_response(model_list(TIERS, names), request_id)


async def model(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /v1/models/{id}, for whatever a request may name as its model: aliases too, though not listed."""
    asked = unquote(path.removeprefix(MODEL_PREFIX))
    name = asked.lower() if asked.lower() in WORDS else asked
    table = gateway.snapshot.routing
    if name in WORDS or name in table.aliases:
        return json_response(orjson.dumps(model_entry(name, "octoroute")), request_id)
    if name in table.plans:
        return json_response(orjson.dumps(model_entry(name, "user")), request_id)
    raise unknown_model(name, (*table.models, *table.aliases), status=404)


async def health(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /health: about the gateway, not about its servers (those are in GET /models).

    Counts are of all workers since the start: what was lost stays lost. Whether the probing runs is said of
    the worker that answers.
    """
    total = gateway.registry.total
    body = {
        "status": "OK",
        "health_tracking_status": _status(total(UNTRACKED) == 0),
        "metrics_recording_status": _status(total(LOST) == 0),
        "background_task_status": _status(gateway.probing.running),
        "background_task_failures": int(total(CRASHES)),
    }
    return json_response(orjson.dumps(body), request_id)


async def metrics(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """GET /metrics: of all workers, whichever is asked."""
    body, content_type = gateway.registry.render(request.headers.get("Accept", ""))
    return web.Response(
        body=body, headers={"Content-Type": content_type, "Server": "octoroute", "X-Request-Id": request_id}
    )


def _status(fine: bool) -> str:
    return "operational" if fine else "degraded"


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


async def upgrade(request: web.BaseRequest, path: str, request_id: str, gateway: Gateway) -> web.Response:  # noqa: ARG001
    """POST /admin/upgrade: a new process of the installed program takes over; where it can't, all stays."""
    if not _is_from_here(request):
        raise InvalidRequest(
            "an upgrade can be asked for on the gateway's own machine only", status=403, code="local_only"
        )
    outcome = await gateway.ask_upgrade()
    if "problems" in outcome:
        raise Internal(
            "the new process can't serve, nothing was changed: " + "; ".join(outcome["problems"]),
            code="upgrade_failed",
        )
    return json_response(orjson.dumps(outcome), request_id)


def _is_from_here(request: web.BaseRequest) -> bool:
    """Whether the client is on this machine: each upgrade costs a process, and tells what fails in it."""
    transport = request.transport
    if transport is None:
        return False
    peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not isinstance(peer, tuple):
        return True
    return peer[0] == own[0] or ip_address(peer[0].partition("%")[0]).is_loopback


def json_response(body: bytes, request_id: str, status: int = 200) -> web.Response:
    return web.Response(
        status=status,
        body=body,
        headers={"Content-Type": "application/json", "Server": "octoroute", "X-Request-Id": request_id},
    )
