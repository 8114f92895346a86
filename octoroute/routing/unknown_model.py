"""The answer to a request for a model that is not there: what was asked, what is there, what was meant.

Bounded whatever the client sends and however large the fleet is.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

from octoroute.errors import InvalidRequest
from octoroute.routing.excerpt import excerpt

MAX_NAME_CHARACTERS: Final = 100
MAX_LISTED: Final = 50
# Comparing is slow (about 10 us a name), and anyone may ask for nonsense.
MAX_COMPARED: Final = 64
MAX_LENGTH_DIFFERENCE: Final = 3


def unknown_model(model: str, available: Sequence[str], status: int = 400) -> InvalidRequest:
    """The error for `model`; `available` in the order in which it is listed, the most useful first."""
    shown = excerpt(model, MAX_NAME_CHARACTERS)
    meant = _nearest(shown, available)
    suggestion = f' Did you mean "{meant}"?' if meant else ""
    listed = ", ".join(available[:MAX_LISTED])
    if len(available) > MAX_LISTED:
        listed += f" and {len(available) - MAX_LISTED} more"
    return InvalidRequest(
        f'Unknown model "{shown}".{suggestion} Available: {listed}',
        status=status,
        param="model",
        code="model_not_found",
    )


def _nearest(shown: str, available: Sequence[str]) -> str | None:
    wanted = shown.lower()
    alike: dict[str, str] = {}
    for name in available:
        if abs(len(name) - len(wanted)) <= MAX_LENGTH_DIFFERENCE:
            alike.setdefault(name.lower(), name)
            if len(alike) == MAX_COMPARED:
                break
    found = get_close_matches(wanted, alike, n=1, cutoff=0.7)
    return alike[found[0]] if found else None
