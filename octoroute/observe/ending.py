"""How a request ended, in one word: what metrics, and those who ask for recent requests, go by."""

from typing import Final

OUTCOMES: Final = ("ok", "client_error", "limited", "error", "broken", "client_gone")


def ending(status: int, result: str) -> str:
    """One of OUTCOMES: a client's own mistakes and full queues are no failures of a server."""
    if result in ("broken", "client_gone"):
        return result
    if status == 429:
        return "limited"
    if 400 <= status < 500:
        return "client_error"
    if result == "ok" and status < 500:
        return "ok"
    return "error"
