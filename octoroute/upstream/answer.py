"""A complete answer of a model server, kept back until it is clear that the client shall have it."""

import re
from dataclasses import dataclass
from typing import Self

import orjson

from octoroute._http1 import HIDDEN, Head
from octoroute.upstream.connection import Connection, hide_secrets

# What a server says of itself may hold an address of the network behind the gateway.
_GROUPS = "[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})"
ADDRESS = re.compile(
    r"https?://\S+|\b\d{1,3}(?:\.\d{1,3}){3}\b(?::\d+)?|\[[0-9a-fA-F:]{3,}\](?::\d+)?|\b[\w.-]+:\d{2,5}\b"
    r"|\b[\w.-]+\.(?:internal|intranet|local|localdomain|lan|corp|home|svc|cluster)\b"
    rf"|(?<![\w:])(?:{_GROUPS}{{7}}|(?:{_GROUPS}*)?::(?:{_GROUPS}*)?)(?![\w:])"
)
MESSAGE_CHARS = 500
# Of what a server says, so much is looked through: looking costs the square of the length at worst.
LOOK_CHARS = 2_000


@dataclass(frozen=True)
class Answer:
    """`body` is the payload, without framing. What an error repeats of the server's own key is left out."""

    head: Head
    body: bytes

    @property
    def status(self) -> int:
        return self.head.status

    @classmethod
    def held_by(cls, connection: Connection) -> Self:
        body = connection.held_payload()
        hide_secrets(connection)
        if connection.head.status >= 300:
            for secret in connection.pool.secrets:
                body = body.replace(secret, HIDDEN)
        return cls(connection.head, body)


def server_message(answer: Answer) -> str:
    """What the server said went wrong, without addresses, or "" if it can't be told.

    Shapes: `{"error": {"message"}}` (llama.cpp, vLLM), `{"error": "text"}` (TGI, vLLM's 401), `{"message"}`
    (SGLang), `{"detail"}` (FastAPI).
    """
    try:
        value = orjson.loads(answer.body)
    except ValueError:
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and key in value:
            value = value[key]
    if not isinstance(value, str):
        return ""
    return ADDRESS.sub("[address]", value[:LOOK_CHARS])[:MESSAGE_CHARS]
