"""What a reload would change: which keys and servers differ between two configs, and which need a restart.

Names keys and servers, never values: some are secrets.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from octoroute.config.schema import Config
from octoroute.config.section import TIERS, Section
from octoroute.config.servers import Model

# The sockets are opened before the workers are forked, and the count of workers fixes the shared memory.
NEED_RESTART: Final = ("host", "port", "workers", "tls_cert", "tls_key")


@dataclass(frozen=True, slots=True)
class Changes:
    """Key paths, and servers as `tier/name`. `left` are the keys that keep their value until a restart."""

    keys: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    left: tuple[str, ...]

    def __str__(self) -> str:
        parts = (
            ("changed", self.keys),
            ("servers added", self.added),
            ("servers removed", self.removed),
            ("servers changed", self.changed),
        )
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts if names) or "nothing changed"


def reloaded(old: Config, new: Config) -> tuple[Config, Changes]:
    """The config that holds after a reload of `new`, in which keys that need a restart are as in `old`."""
    left = [key for key in NEED_RESTART if getattr(old.server, key) != getattr(new.server, key)]
    server = new.server.model_copy(update={key: getattr(old.server, key) for key in left})
    config = new.model_copy(update={"server": server})
    before, after = dict(_servers(old)), dict(_servers(config))
    return config, Changes(
        keys=tuple(_differences(old, config, "")),
        added=_names(key for key in after if key not in before),
        removed=_names(key for key in before if key not in after),
        changed=_names(key for key in after if key in before and after[key] != before[key]),
        left=tuple(f"server.{key}" for key in left),
    )


# What makes a server the same one (balance/endpoint.py): tier, name, base URL, which of exact duplicates.
_Key = tuple[str, str, str, int]


def _servers(config: Config) -> Iterator[tuple[_Key, Model]]:
    seen: Counter[tuple[str, str, str]] = Counter()
    for tier in TIERS:
        for model in config.models.of(tier):
            key = (tier, model.name, model.base_url)
            yield (*key, seen[key]), model
            seen[key] += 1


def _names(keys: Iterator[_Key]) -> tuple[str, ...]:
    return tuple(f"{tier}/{name}" for tier, name, _, _ in keys)


def _differences(old: Section, new: Section, path: str) -> Iterator[str]:
    for key in type(new).model_fields:
        before, after = getattr(old, key), getattr(new, key)
        if before == after or (not path and key == "models"):
            continue
        if isinstance(before, Section) and isinstance(after, Section):
            yield from _differences(before, after, f"{path}{key}.")
        else:
            yield f"{path}{key}"
