"""The client's side of a request, as attempts and resumed streams need it (server/downstream.py)."""

from collections.abc import Callable
from typing import Protocol

from octoroute.errors import GatewayError
from octoroute.upstream.answer import Answer
from octoroute.upstream.connection import ClientSide, Connection


class Carrier(ClientSide, Protocol):
    """Of a stream."""

    def attach(self, connection: Connection | None) -> None:
        """Which connection is closed when the client leaves, and paused while it does not read."""

    def carry_on(self) -> Callable[[bytes], object]:
        """From here the payload alone is given: another server goes on with the answer."""

    def end(self) -> None:
        """Everything of a streamed answer is out."""

    def break_off(self, error: GatewayError, *, clean: bool) -> None:
        """A streamed answer can't be completed. `clean`: what went out so far ends with a complete event."""


class Client(Carrier, Protocol):
    """Of any request."""

    why: bytes

    def send_whole(self, answer: Answer) -> None:
        """Writes a complete answer."""
