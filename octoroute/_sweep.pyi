from collections.abc import Iterable

from octoroute._relay import Relay

def sweep(relays: Iterable[Relay], now: int) -> None: ...
