"""Asks one model server, as a client would, what it is and what it does. Two short chats are part of it.

Standard library only: what a pool or a retry would hide is what is looked for here.
"""

import http.client
import json
import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from octoroute.upstream.kind import told_kind
from octoroute.upstream.signals import NAMES, read_metrics, read_props, read_slots

LOOK_SECONDS: Final = 5.0
CHAT_SECONDS: Final = 60.0
# A server that closes after a stream has done so by then.
CLOSING_SECONDS: Final = 0.2
MOST_BYTES: Final = 4_194_304
FAILURES: Final = (OSError, http.client.HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server is, and what the config says of it, if it is in one."""

    base_url: str
    api_key: str = field(default="", repr=False)
    tls_verify: bool = True
    kind: str = "auto"
    model: str = ""


@dataclass(slots=True)
class Findings:
    """What was found. `problem` is why the server can't be used, "" if it can. Counts are 0 where unknown."""

    problem: str = ""
    kind: str = ""
    models: list[str] = field(default_factory=list)
    model: str = ""  # the one that was asked
    get_status: int = 0
    head_status: int = 0
    slots: int = 0
    context_tokens: int = 0
    asleep: bool = False
    load: str = ""  # the route that tells it
    chat_problem: str = ""
    ttft_ms: float = 0.0
    tells_usage: bool = False
    keeps_connection: bool = False
    continues: bool | None = None  # None where nobody knows how to ask this kind


class Asker:
    """Requests to one server, each on a connection of its own unless one is given."""

    def __init__(self, server: Server) -> None:
        parts = urlsplit(server.base_url)
        self.base = parts.path
        self.beside = parts.path.removesuffix("/v1")
        self.host, self.port = parts.hostname or "", parts.port
        self.tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self.tls = ssl.create_default_context()
            if not server.tls_verify:
                self.tls.check_hostname = False
                self.tls.verify_mode = ssl.CERT_NONE
        self.headers = {"Content-Type": "application/json"}
        if server.api_key:
            self.headers["Authorization"] = f"Bearer {server.api_key}"

    def connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self.tls is not None:
            return http.client.HTTPSConnection(self.host, self.port, timeout=timeout_s, context=self.tls)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)

    def look(self, path: str, method: str = "GET") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers in lower case, body. Raises one of FAILURES."""
        connection = self.connect(LOOK_SECONDS)
        try:
            connection.request(method, path, headers=self.headers)
            answer = connection.getresponse()
            headers = [
                (name.lower().encode(), value.encode("latin-1")) for name, value in answer.getheaders()
            ]
            return answer.status, headers, answer.read(MOST_BYTES)
        finally:
            connection.close()

    def found(self, path: str) -> bytes:
        """The body of a good answer, else b""."""
        try:
            status, _, body = self.look(path)
        except FAILURES:
            return b""
        return body if status == 200 else b""

    def chat(
        self, connection: http.client.HTTPConnection, fields: dict[str, Any]
    ) -> http.client.HTTPResponse:
        connection.request("POST", f"{self.base}/chat/completions", json.dumps(fields), self.headers)
        return connection.getresponse()


def examine(server: Server) -> Findings:
    """All that can be found out about a server; never raises for what the server does."""
    asker = Asker(server)
    found = Findings()
    try:
        found.get_status, headers, body = asker.look(f"{asker.base}/models")
    except FAILURES as error:
        found.problem = f"it can't be reached: {str(error) or type(error).__name__}"
        return found
    if found.get_status != 200:
        found.problem = f"GET /v1/models answers {found.get_status}" + (
            "; it needs a key" if found.get_status in (401, 403) else ""
        )
        return found
    entries = _entries(body)
    if not entries:
        found.problem = "GET /v1/models answers 200, but with no list of models"
        return found
    found.models = [entry["id"] for entry in entries]
    found.model = server.model if server.model in found.models else found.models[0]
    found.kind = told_kind(headers, body) or (server.kind if server.kind != "auto" else "")
    found.context_tokens = next((size for entry in entries if (size := _size(entry.get("max_model_len")))), 0)
    try:
        found.head_status = asker.look(f"{asker.base}/models", "HEAD")[0]
    except FAILURES:
        found.head_status = 0
    _look_at_load(asker, found)
    if not found.asleep:
        try:
            _stream(asker, found)
            _continue(asker, found)
        except FAILURES as error:
            found.chat_problem = f"the chat failed: {str(error) or type(error).__name__}"
    return found


def _entries(body: bytes) -> list[dict[str, Any]]:
    try:
        entries = json.loads(body)["data"]
    except (ValueError, TypeError, KeyError):
        return []
    if not isinstance(entries, list):
        return []
    return [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def _size(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _look_at_load(asker: Asker, found: Findings) -> None:
    if found.kind == "llama_cpp":
        props = read_props(asker.found(f"{asker.beside}/props"))
        if props is not None:
            found.slots, found.context_tokens, found.asleep = props.slots, props.context_tokens, props.asleep
        # It would be woken by the question.
        if not found.asleep and read_slots(asker.found(f"{asker.beside}/slots")) is not None:
            found.load = "/slots"
    elif found.kind in NAMES:
        load = read_metrics(asker.found(f"{asker.beside}/metrics"), NAMES[found.kind])
        if load is not None:
            found.load, found.asleep = "/metrics", load.asleep


def _stream(asker: Asker, found: Findings) -> None:
    """A short stream, and whether its connection can be used again. Raises one of FAILURES."""
    connection = asker.connect(CHAT_SECONDS)
    fields = {
        "model": found.model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_tokens": 8,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    try:
        began = time.monotonic()
        answer = asker.chat(connection, fields)
        if answer.status != 200:
            found.chat_problem = f"a chat answers {answer.status}"
            return
        body = b""
        while len(body) < MOST_BYTES and (piece := answer.read1()):
            body += piece
            if not found.ttft_ms and b"data:" in body:
                found.ttft_ms = (time.monotonic() - began) * 1e3
        if not found.ttft_ms:
            found.chat_problem = "a stream has no events"
            return
        found.tells_usage = b'"usage":{' in body.replace(b" ", b"")
        time.sleep(CLOSING_SECONDS)
        # Without a socket the answer said that the connection ends; http.client would make another one.
        if connection.sock is not None:
            connection.request("GET", f"{asker.base}/models", headers=asker.headers)
            found.keeps_connection = connection.getresponse().status == 200
    except (http.client.RemoteDisconnected, ConnectionError):
        if not found.ttft_ms:
            raise
    finally:
        connection.close()


def _continue(asker: Asker, found: Findings) -> None:
    """Whether an answer that is there in part is gone on with. Raises one of FAILURES."""
    if found.chat_problem or found.kind not in ("llama_cpp", *NAMES):
        return
    fields: dict[str, Any] = {
        "model": found.model,
        "messages": [
            {"role": "user", "content": "Count from one to ten."},
            {"role": "assistant", "content": "one, two, three,"},
        ],
        "max_tokens": 4,
    }
    if found.kind != "llama_cpp":
        fields |= {"continue_final_message": True, "add_generation_prompt": False}
    connection = asker.connect(CHAT_SECONDS)
    try:
        found.continues = asker.chat(connection, fields).status == 200
    finally:
        connection.close()
