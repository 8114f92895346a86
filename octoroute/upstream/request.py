"""The bytes of a request as a model server gets them: the client's own body with a few values spliced in.

Nothing is serialised again: what the client wrote reaches the server as it was written, but for `model`,
which becomes the server's name of it, and `temperature` and `max_tokens`, which are filled in where the
request leaves them open.
"""

from typing import Final
from urllib.parse import urlsplit

import orjson

from octoroute._json import Splicer, Unreadable
from octoroute.balance.endpoint import EndpointSpec
from octoroute.errors import InvalidRequest
from octoroute.exchange import RequestView

INCLUDE_USAGE: Final = b'{"include_usage":true}'
COUNTS: Final = b',"timings_per_token":true'  # llama.cpp's, see assembling.py
# Only where `temperature` and `max_tokens` mean what they mean for chat.
FILLED: Final = frozenset(("/v1/chat/completions", "/v1/completions"))


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
        self._splicer = Splicer(
            orjson.dumps(spec.model),
            orjson.dumps(spec.temperature),
            orjson.dumps(spec.max_tokens),
            INCLUDE_USAGE,
        )

    def pieces(
        self, view: RequestView, ask_usage: bool = False, as_stream: bool = False
    ) -> tuple[bytes | memoryview, ...]:
        """Head and body, ready to be written one after the other. Raises InvalidRequest.

        `ask_usage`: the stream is to end with its token counts (usage_option.py). `as_stream`: the request is
        a plain one, and a stream is asked for (plain_option.py).
        """
        path = view.path
        try:
            pieces = self._splicer.splice(
                view.body, path in FILLED, ask_usage or as_stream, COUNTS if as_stream else b""
            )
        except Unreadable as error:
            raise InvalidRequest(
                f"the name {error.name!r} must be written without escapes, and once", param=error.name
            ) from None
        begin, headers = self._heads.get(path) or self._head(path), view.headers
        if len(pieces) == 1:
            body = pieces[0]
            return (b"".join((begin, headers, b"Content-Length: %d\r\n\r\n" % len(body), body)),)
        length = sum(map(len, pieces))
        return (b"".join((begin, headers, b"Content-Length: %d\r\n\r\n" % length)), *pieces)

    def get(self, path: str) -> bytes:
        """A GET for `path` below the base URL."""
        return b"GET %b%b HTTP/1.1\r\n%b\r\n" % (self._base, path.encode(), self._fixed)

    def get_beside(self, path: str) -> bytes:
        """A GET for a route of the server's own, which stands beside `/v1`."""
        return b"GET %b%b HTTP/1.1\r\n%b\r\n" % (self._path, path.encode(), self._fixed)

    def post(self, path: str, body: bytes) -> bytes:
        """A POST of the gateway's own to a route of the OpenAI API, such as `/v1/chat/completions`."""
        return b"%bContent-Length: %d\r\n\r\n%b" % (self._head(path), len(body), body)

    def instead(self, view: RequestView, body: bytes) -> bytes:
        """A client's request with another body."""
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head(view.path), view.headers, len(body), body)

    def _head(self, path: str) -> bytes:
        head = self._heads.get(path)
        if head is None:
            # Paths are the server's own routes (server/app.py), so this stays small.
            head = self._heads[path] = b"POST %b%b HTTP/1.1\r\n%b" % (self._path, path.encode(), self._fixed)
        return head
