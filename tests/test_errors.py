"""How errors are told to clients."""

import orjson
import pytest

from octoroute.errors import (
    GatewayError,
    InvalidRequest,
    NoEndpoint,
    Overloaded,
    UpstreamFailed,
    UpstreamTimeout,
    anthropic_body,
    render,
)


def test_an_error_is_openais_error_object() -> None:
    status, headers, body = render(InvalidRequest("too hot", param="temperature"), "req-1")
    assert status == 400
    assert headers["x-request-id"] == "req-1"
    assert orjson.loads(body) == {
        "error": {"message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": None}
    }


def test_a_failure_names_the_request_and_keeps_the_detail_back() -> None:
    status, headers, body = render(NoEndpoint("nobody", detail="http://10.0.0.1", retry_after_s=7), "req-1")
    assert (status, headers["retry-after"]) == (503, "7")
    assert orjson.loads(body)["error"]["message"] == "nobody (request id: req-1)"
    assert b"10.0.0.1" not in body


@pytest.mark.parametrize(
    ("error", "type_"),
    [
        (InvalidRequest("a"), "invalid_request_error"),
        (InvalidRequest("a", status=404), "not_found_error"),
        (InvalidRequest("a", status=405), "invalid_request_error"),
        (InvalidRequest("a", status=413), "request_too_large"),
        (Overloaded("a"), "rate_limit_error"),
        (UpstreamFailed("a"), "api_error"),
        (NoEndpoint("a"), "overloaded_error"),
        (UpstreamTimeout("a"), "timeout_error"),
    ],
    ids=str,
)
def test_anthropics_clients_get_the_types_that_they_know(error: GatewayError, type_: str) -> None:
    status, _, body = render(error, "req-1", anthropic_body)
    assert status == error.status
    told = orjson.loads(body)
    assert (told["type"], told["error"]["type"]) == ("error", type_)
    assert told["error"]["message"].startswith("a")
