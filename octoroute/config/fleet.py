"""The table that `octoroute check` prints: who gets which share of what. Never a key or a password."""

from collections.abc import Iterator
from typing import Final

from octoroute.config.schema import Config
from octoroute.config.section import TIERS, Tier
from octoroute.config.wording import quoted

HEADINGS: Final = ("TIER", "NAME", "MODEL", "BASE URL", "PRIORITY", "WEIGHT", "SHARE", "TIMEOUT")
RIGHT_ALIGNED: Final = frozenset({"PRIORITY", "WEIGHT", "SHARE", "TIMEOUT"})


def fleet_table(config: Config) -> str:
    """A line of headings and a line for each endpoint, tier by tier, the highest priority first; then the
    sources of the tier.
    """
    rows: list[tuple[str, ...]] = [HEADINGS]
    for tier in TIERS:
        rows += [*_rows(config, tier), *_sources(config, tier)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if heading in RIGHT_ALIGNED else cell.ljust(width)
            for cell, width, heading in zip(row, widths, HEADINGS, strict=True)
        ).rstrip()
        for row in rows
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
