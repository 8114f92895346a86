"""The config: TOML to frozen structs, with every problem told at once in plain words.

Start at schema.py, servers.py, sources.py and clients.py (the keys), values.py (what one key may hold) and
agreement.py (rules between keys).
Nothing here does more than read the file and those that it refers to: no network, no clock, no log.
"""

from octoroute.config.clients import Auth, AuthKey
from octoroute.config.load import build, load, parse
from octoroute.config.schema import (
    Config,
    Health,
    Observability,
    Retry,
    RouterTimeouts,
    Routing,
    Server,
    Shared,
    TierRules,
    Tiers,
    Timeouts,
)
from octoroute.config.section import TIERS, Tier
from octoroute.config.servers import Model, Models

__all__ = [
    "TIERS",
    "Auth",
    "AuthKey",
    "Config",
    "Health",
    "Model",
    "Models",
    "Observability",
    "Retry",
    "RouterTimeouts",
    "Routing",
    "Server",
    "Shared",
    "Tier",
    "TierRules",
    "Tiers",
    "Timeouts",
    "build",
    "load",
    "parse",
]
