"""`octoroute explain`: the explanation of a request in a file, by a config, without a running gateway."""

import sys
from pathlib import Path
from typing import Any, Final

import orjson

from octoroute._state import FleetState
from octoroute.config import load
from octoroute.errors import ConfigError, InvalidRequest
from octoroute.exchange import RequestView
from octoroute.explanation import CHAT, explain_request, route_of
from octoroute.server.openai import check_chat, check_numbers, parse_body
from octoroute.snapshot import compile_snapshot

STDIN: Final = Path("-")


def explain_file(path: Path, config: Path, importance: str | None, task_type: str | None) -> str:
    """Indented JSON. Raises ConfigError for a file that can't be read or a request that would be refused."""
    snapshot = compile_snapshot(load(config), FleetState())
    body = _read(path)
    server = snapshot.config.server
    try:
        fields = parse_body(body)
        if route_of(fields) == CHAT:
            check_chat(fields, server.max_messages, server.max_content_chars)
        else:
            check_numbers(fields)
        explained = explain_request(_view(fields, body, importance, task_type), snapshot)
    except InvalidRequest as error:
        raise ConfigError(str(path), [error.message]) from None
    return orjson.dumps(explained, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {(error.strerror or str(error)).lower()}"]) from None


def _view(fields: dict[str, Any], body: bytes, importance: str | None, task_type: str | None) -> RequestView:
    model = fields.get("model")
    return RequestView(
        request_id="explain",
        path=route_of(fields),
        body=body,
        fields=fields,
        model=model if isinstance(model, str) else "",
        stream=fields.get("stream") is True,
        importance=importance,
        task_type=task_type,
    )
