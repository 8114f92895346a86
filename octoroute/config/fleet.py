"""The tables that `octoroute check` prints: who gets which share of what. Never a key or a password."""

from collections.abc import Iterator, Sequence
from typing import Final

from octoroute.config.clients import AuthKey
from octoroute.config.schema import Config
from octoroute.config.section import TIERS, Tier
from octoroute.config.wording import quoted

HEADINGS: Final = ("TIER", "NAME", "MODEL", "BASE URL", "PRIORITY", "WEIGHT", "SHARE", "TIMEOUT")
TENANTS: Final = ("TENANT", "REQUESTS/MIN", "TOKENS/MIN", "IN FLIGHT", "TIERS", "ADMIN")
LEFT_ALIGNED: Final = frozenset({"TIER", "NAME", "MODEL", "BASE URL", "TENANT", "TIERS", "ADMIN"})


def fleet_table(config: Config) -> str:
    """A line of headings and a line for each endpoint, tier by tier, the highest priority first; then the
    sources of the tier.
    """
    rows: list[tuple[str, ...]] = [HEADINGS]
    for tier in TIERS:
        rows += [*_rows(config, tier), *_sources(config, tier)]
    return _table(rows)


def tenant_table(config: Config) -> str:
    """A line of headings and a line for each key, in the order of the file: whose it is, what it may."""
    return _table([TENANTS, *map(_tenant, config.auth.keys)])


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if heading in LEFT_ALIGNED else cell.rjust(width)
            for cell, width, heading in zip(row, widths, rows[0], strict=True)
        ).rstrip()
        for row in rows
    )


def _tenant(key: AuthKey) -> tuple[str, ...]:
    limits = (key.requests_per_minute, key.tokens_per_minute, key.max_in_flight)
    tiers = [tier for tier in TIERS if tier in key.tiers]
    return (
        _printable(key.name),
        *(str(limit) if limit else "no limit" for limit in limits),
        ", ".join(tiers),
        "yes" if key.admin else "no",
    )


def _rows(config: Config, tier: Tier) -> Iterator[tuple[str, ...]]:
    servers = config.models.of(tier)
    for server in sorted(servers, key=lambda server: -server.priority):
        total = sum(other.weight for other in servers if other.priority == server.priority)
        yield (
            tier,
            _printable(server.name),
            _printable(server.model),
            server.base_url,
            str(server.priority),
            f"{server.weight:g}",
            f"{100 * (server.weight / total):.1f} %",
            f"{config.timeout_s(tier):g} s",
        )


def _sources(config: Config, tier: Tier) -> Iterator[tuple[str, ...]]:
    for kind, home, source in config.discovery.sources():
        if home == tier:
            yield (
                tier,
                _printable(source.name),
                _printable(source.model),
                source.base_url,
                str(source.priority),
                f"{source.weight:g}",
                f"by {kind}",
                f"{config.timeout_s(tier):g} s",
            )


def _printable(name: str) -> str:
    return name if " " not in name else quoted(name)
