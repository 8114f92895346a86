"""What a failed request is answered with: a GatewayError, whatever it failed of."""

import logging

from octoroute.balance.group import FatalSelectionError
from octoroute.errors import GatewayError, Internal, WriteBody, anthropic_body, openai_body
from octoroute.gateway import Gateway
from octoroute.server.completions import MESSAGES

log = logging.getLogger(__name__)


def failure_of(error: BaseException, request_id: str, gateway: Gateway) -> GatewayError:
    """What the client is told. The log gets the rest."""
    if isinstance(error, GatewayError):
        if error.detail:
            log.warning("request %s: %s (%s)", request_id, error, error.detail)
        return error
    if isinstance(error, FatalSelectionError):
        gateway.fail_fatally(error)
    else:
        log.error("request %s failed", request_id, exc_info=error)
    return Internal("the gateway failed")


def body_writer(path: str) -> WriteBody:
    """How a route's clients read errors."""
    return anthropic_body if path == MESSAGES else openai_body
