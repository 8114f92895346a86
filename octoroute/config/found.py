"""Makes servers of what was found at the sources: the same config, with more entries in its tiers."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from octoroute.config.schema import Config
from octoroute.config.section import TIERS, Tier
from octoroute.config.servers import Model
from octoroute.config.sources import Source, SourceKind
from octoroute.config.values import one_spelling


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A server that was found. `share` of its source's weight is its own; a `rank` is one priority less."""

    host: str
    port: int
    server_name: str = ""
    share: float = 1.0
    rank: int = 0


Place = tuple[SourceKind, Tier]
Found = Mapping[Place, tuple[Address, ...]]


def with_found(config: Config, found: Found) -> Config:
    """The config of a file with what was found for its sources. What the file names itself comes first."""
    servers = {tier: {_key(model): model for model in config.models.of(tier)} for tier in TIERS}
    more: dict[str, tuple[Model, ...]] = {}
    for kind, tier, source in config.discovery.sources():
        new = []
        for address in sorted(found.get((kind, tier), ())):
            model = _model(source, address)
            if servers[tier].setdefault(_key(model), model) is model:
                new.append(model)
        more[tier] = (*more.get(tier, config.models.of(tier)), *new)
    return config.model_copy(update={"models": config.models.model_copy(update=more)})


def _key(model: Model) -> tuple[str, str]:
    return model.name, model.base_url


def _model(source: Source, address: Address) -> Model:
    parts = urlsplit(source.base_url)
    host = f"[{address.host}]" if ":" in address.host else address.host
    keys = {key: getattr(source, key) for key in Model.model_fields}
    keys |= {
        "base_url": one_spelling(f"{parts.scheme}://{host}:{address.port}{parts.path}"),
        "weight": source.weight * address.share,
        "priority": max(0, source.priority - address.rank),
        "tls_server_name": source.tls_server_name or address.server_name,
    }
    # Each value has been through its rule already, but for the address.
    return Model.model_construct(**keys)
