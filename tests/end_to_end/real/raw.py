"""A chat request on a plain socket-level client: what is on the wire, without an SDK in between."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

PATH = "/v1/chat/completions"
ANSWER_WITHIN_S = 60.0


@contextmanager
def connected(url: str) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    with closing(
        http.client.HTTPConnection(parts.hostname, parts.port, timeout=ANSWER_WITHIN_S)
    ) as connection:
        yield connection


def ask(connection: http.client.HTTPConnection, **fields: Any) -> http.client.HTTPResponse:
    """Sends a chat request; `fields` are those of the body beside a short conversation."""
    body = {"messages": [{"role": "user", "content": "Count from one to a hundred."}], **fields}
    connection.request("POST", PATH, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


def reads(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body as it comes: each item is what was there when it was asked for."""
    while data := answer.read1():
        yield data


def events(body: bytes) -> list[Any]:
    """The decoded `data:` events of a stream. Raises AssertionError unless it ended with `[DONE]`."""
    parts = body.split(b"\n\n")
    assert parts[-2:] == [b"data: [DONE]", b""], body[-200:]
    assert body.count(b"[DONE]") == 1, body
    return [json.loads(part.removeprefix(b"data: ")) for part in parts[:-2] if not part.startswith(b":")]
