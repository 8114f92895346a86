"""What belongs to one endpoint on this side: how to write for it, how to reach it."""

from dataclasses import dataclass

from octoroute.upstream.plain_option import PlainOption
from octoroute.upstream.pool import Pool
from octoroute.upstream.request import RequestWriter
from octoroute.upstream.usage_option import UsageOption


@dataclass(frozen=True)
class Site:
    """Made for one snapshot; the pool outlives it (sites.py)."""

    writer: RequestWriter
    pool: Pool
    why: bytes  # header lines that say which endpoint answered
    usage: UsageOption
    plain: PlainOption | None  # None: its plain requests go as they came
