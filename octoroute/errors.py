"""The error tree and its one renderer.

Every failure that a client can see is a GatewayError: it carries the HTTP status, OpenAI's `type`, `code` and
`param`, and whether another endpoint may be tried. Messages are written for clients: no address of a server,
no key. What only an operator may know goes into `detail`, which is logged and never rendered.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import orjson


class GatewayError(Exception):
    """A request that ends with an error of ours. `retry_after_s` becomes the header, in seconds."""

    status = 500
    type = "server_error"
    code: str | None = None
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.headers = headers or {}
        self.message = message
        self.param = param
        self.detail = detail
        self.retry_after_s = retry_after_s
        if code is not None:
            self.code = code
        if status is not None:
            self.status = status


class InvalidRequest(GatewayError):
    """The client's request can't be served as it is (400, or 404, 405, 408, 413, 415, 431 by `status`)."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(GatewayError):
    """No key, or none that is known (401)."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """The key is known, but not good for this (403)."""

    status = 403
    type = "invalid_request_error"
    code = "insufficient_permissions"


class LimitReached(GatewayError):
    """The key has used up what it may use (429). OpenAI's `type` says of what: `requests` or `tokens`."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"
    limit = "requests"  # or `tokens`, or `in_flight`


class NoEndpoint(GatewayError):
    """No endpoint of the target is able to answer now (503)."""

    status = 503
    code = "no_endpoint_available"
    retryable = True


class Overloaded(GatewayError):
    """Every endpoint of the target is full and the wait is over its bound (429)."""

    status = 429
    type = "rate_limit_error"
    code = "overloaded"


class UpstreamFailed(GatewayError):
    """The model servers that were tried failed (502)."""

    status = 502
    type = "api_error"
    code = "upstream_failed"
    retryable = True


class UpstreamTimeout(UpstreamFailed):
    """The model servers that were tried did not answer in time (504)."""

    status = 504
    code = "upstream_timeout"


class RouterFailed(GatewayError):
    """The model that was asked which tier to use gave no usable answer (502)."""

    status = 502
    type = "api_error"
    code = "routing_failed"


class Ending(GatewayError):
    """The process that was asked ends, and does not begin what it was asked for (503)."""

    status = 503
    code = "gateway_ends"


class Internal(GatewayError):
    """A fault of the gateway itself (500)."""

    code = "internal_error"


class ConfigError(Exception):
    """A config that can't be used. Each problem is a sentence: the key, the value, what is allowed."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))
        self.source = source
        self.problems = tuple(problems)


def openai_body(error: GatewayError, message: str) -> bytes:
    """The body that OpenAI's clients understand: `{"error": {"message", "type", "param", "code"}}`."""
    return orjson.dumps(
        {"error": {"message": message, "type": error.type, "param": error.param, "code": error.code}}
    )


# By status, for /v1/messages; what is not here is an `invalid_request_error` below 500, else an `api_error`.
ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def anthropic_body(error: GatewayError, message: str) -> bytes:
    """The body that Anthropic's clients understand: `{"type": "error", "error": {"type", "message"}}`."""
    type_ = ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return orjson.dumps({"type": "error", "error": {"type": type_, "message": message}})


WriteBody = Callable[[GatewayError, str], bytes]


def render(
    error: GatewayError, request_id: str, write_body: WriteBody = openai_body
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer. From 500 on the message names the request id."""
    message = error.message
    if error.status >= 500:
        message = f"{message} (request id: {request_id})"
    headers = {
        "content-type": "application/json",
        "server": "octoroute",
        "x-request-id": request_id,
        **error.headers,
    }
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    return error.status, headers, write_body(error, message)
