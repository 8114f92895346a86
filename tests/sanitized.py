"""Whether the compiled cores are those of `make sanitize`, and what that changes for a test."""

import os
from typing import Final

import pytest

SANITIZED: Final = os.environ.get("OCTOROUTE_BUILD") == "sanitize"
# How many times as long a process may take to start, to answer and to end.
PATIENCE: Final = 4.0 if SANITIZED else 1.0


def unless_sanitized(reason: str) -> pytest.MarkDecorator:
    """Leaves out what can't hold there, such as a bound on memory: they take several times as much."""
    return pytest.mark.skipif(SANITIZED, reason=f"under the sanitizers: {reason}")
