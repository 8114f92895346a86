"""The bytes of a request as a model server gets them: the client's own body with a few values spliced in.

Nothing is serialised again: what the client wrote reaches the server as it was written, but for `model`,
which becomes the server's name of it, and `temperature` and `max_tokens`, which are filled in where the
request leaves them open.
"""

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import orjson

from octoroute._json import member_spans
from octoroute.balance.endpoint import EndpointSpec
from octoroute.errors import InvalidRequest
from octoroute.exchange import RequestView

NAMES: Final = (b"model", b"temperature", b"max_tokens", b"stream_options")
MODEL, TEMPERATURE, MAX_TOKENS, STREAM_OPTIONS = range(4)
INCLUDE_USAGE: Final = b'{"include_usage":true}'
# Only where `temperature` and `max_tokens` mean what they mean for chat.
FILLED: Final = frozenset(("/v1/chat/completions", "/v1/completions"))
# A body below this is copied into one piece, which costs less than a second buffer in the write.
JOIN_BYTES: Final = 16_384

Splice = tuple[int, int, bytes]


class RequestWriter:
    """Writes requests for one endpoint. Built once per endpoint and snapshot."""

    def __init__(self, spec: EndpointSpec) -> None:
        parts = urlsplit(spec.base_url)
        self._path = parts.path.removesuffix("/v1").encode()
        host = parts.netloc.encode("idna") if not parts.netloc.isascii() else parts.netloc.encode()
        authorization = b"Authorization: Bearer %b\r\n" % spec.api_key.encode() if spec.api_key else b""
        self._fixed = b"Host: %b\r\nContent-Type: application/json\r\n%b" % (host, authorization)
        self._base = parts.path.encode()
        self._heads: dict[str, bytes] = {}
        self._model = orjson.dumps(spec.model)
        self._temperature = orjson.dumps(spec.temperature)
        self._max_tokens = orjson.dumps(spec.max_tokens)

    def pieces(self, view: RequestView, *, ask_usage: bool = False) -> Sequence[bytes | memoryview]:
        """Head and body, ready to be written one after the other. Raises InvalidRequest.

        `ask_usage`: the stream is to end with its token counts (usage_option.py).
        """
        splices = self._splices(view, ask_usage)
        body = view.body
        length = len(body)
        for start, end, value in splices:
            length += len(value) - (end - start)
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._head(view.path), view.headers, length)
        joined = length < JOIN_BYTES
        source = body if joined else memoryview(body)
        pieces: list[bytes | memoryview] = [head]
        at = 0
        for start, end, value in splices:
            pieces.append(source[at:start])
            pieces.append(value)
            at = end
        pieces.append(source[at:])
        return (b"".join(pieces),) if joined else pieces

    def get(self, path: str) -> bytes:
        """A GET for `path` below the base URL."""
        return b"GET %b%b HTTP/1.1\r\n%b\r\n" % (self._base, path.encode(), self._fixed)

    def post(self, path: str, body: bytes) -> bytes:
        """A POST of the gateway's own to a route of the OpenAI API, such as `/v1/chat/completions`."""
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head(path), len(body), body)

    def _head(self, path: str) -> bytes:
        head = self._heads.get(path)
        if head is None:
            # Paths are the server's own routes (server/app.py), so this stays small.
            head = self._heads[path] = b"POST %b%b HTTP/1.1\r\n%b" % (self._path, path.encode(), self._fixed)
        return head

    def _splices(self, view: RequestView, ask_usage: bool) -> list[Splice]:
        fields = view.fields
        splices: list[Splice] = []
        spans = member_spans(view.body, NAMES)
        fill = view.path in FILLED
        added = b""
        if fill and fields.get("max_tokens") is None and fields.get("max_completion_tokens") is None:
            if "max_tokens" not in fields:
                added += b',"max_tokens":%b' % self._max_tokens
        else:
            spans = [span for span in spans if span[0] != MAX_TOKENS]
        if fill and fields.get("temperature") is None:
            if "temperature" not in fields:
                added += b',"temperature":%b' % self._temperature
        else:
            spans = [span for span in spans if span[0] != TEMPERATURE]
        if ask_usage and "stream_options" not in fields:
            added += b',"stream_options":%b' % INCLUDE_USAGE
        for name, start, end in spans:
            if name == MODEL:
                splices.append((start, end, self._model))
            elif name == TEMPERATURE:
                splices.append((start, end, self._temperature))
            elif name == MAX_TOKENS:
                splices.append((start, end, self._max_tokens))
            elif name == STREAM_OPTIONS:
                if ask_usage:
                    splices.append((start, end, INCLUDE_USAGE))
            else:
                written = orjson.loads(view.body[start:end])
                if written in ("model", "temperature", "max_tokens"):
                    raise InvalidRequest(
                        f"the name {written!r} must be written without escapes", param=written
                    )
        if added:
            brace = view.body.rindex(b"}")
            splices.append((brace, brace, added))
        return splices
