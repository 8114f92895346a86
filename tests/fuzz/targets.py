"""What is fuzzed: one function per compiled reader, which gets any bytes and raises AssertionError where the
reader and its oracle disagree. `python -m tests.fuzz` drives them; test_corpus.py replays what is kept.
"""

from collections.abc import Callable
from typing import Final

from tests.fuzz import answers, requests

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "head": answers.head,
    "framing": answers.framing,
    "events": answers.events,
    "usage": answers.usage,
    "kept": answers.kept,
    "relay": answers.relay,
    "request": requests.request,
    "splice": requests.splice,
    "abridged": requests.abridged,
    "prompt": requests.prompt,
    "line": requests.line,
}
