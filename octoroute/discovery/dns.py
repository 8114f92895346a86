"""Servers behind a name in DNS: looked up again when the answer's time to live is over, within bounds."""

import asyncio
from math import inf
from typing import Final, NoReturn

import dns.asyncresolver
import dns.exception
import dns.name
import dns.rdatatype
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from octoroute.config.found import Address
from octoroute.config.sources import DnsSource
from octoroute.config.values import split_resolver
from octoroute.discovery.search import Teller

LOOKUP_SECONDS: Final = 5.0
# Targets of SRV records that are looked up at the same time.
MAX_CONCURRENT: Final = 16
# Lowest weight of a SRV record among others: RFC 2782 gives 0 a very small chance, not none.
NO_WEIGHT: Final = 0.5
# Reasons of failures by which a name server says that there is no such thing.
DENIED: Final = ("not_found", "no_record")

# Where the targets of SRV records were found last.
Targets = dict[str, list[str]]


class LookupFailed(Exception):
    """A lookup without an answer to use; says why, and `reason` does in a word."""

    def __init__(self, reason: str, trouble: str) -> None:
        super().__init__(trouble)
        self.reason = reason


async def follow(source: DnsSource, teller: Teller) -> NoReturn:
    """Looks the name up again and again. An empty answer is a failure: nobody takes all servers away so."""
    resolver = make_resolver(source.resolver)
    targets: Targets = {}
    failures = 0
    while True:
        try:
            addresses, ttl_s = await look_up(resolver, source, targets)
        except LookupFailed as error:
            await teller.lost(error.reason, str(error))
            pause = source.refresh_min_seconds * 2.0 ** min(failures, 16)
            failures += 1
        else:
            await teller.found(addresses)
            pause = ttl_s
            failures = 0
        await asyncio.sleep(within_bounds(pause, source))


def within_bounds(seconds: float, source: DnsSource) -> float:
    """The pause until the next look, where an answer holds for so long."""
    return min(max(seconds, source.refresh_min_seconds), source.refresh_max_seconds)


def make_resolver(address: str) -> dns.asyncresolver.Resolver:
    """The system's resolver, or one that asks the name server at `address`."""
    if not address:
        resolver = dns.asyncresolver.Resolver()
    else:
        resolver = dns.asyncresolver.Resolver(configure=False)
        host, resolver.port = split_resolver(address)
        resolver.nameservers = [host]
    resolver.lifetime = LOOKUP_SECONDS
    return resolver


async def look_up(
    resolver: dns.asyncresolver.Resolver, source: DnsSource, targets: Targets
) -> tuple[list[Address], float]:
    """The servers behind the source's name, and for how many seconds that holds. `targets` is kept for the
    next look. Raises LookupFailed.
    """
    if source.records == "srv":
        return await _services(resolver, source.host, targets)
    hosts, ttl_s = await _hosts(resolver, source.host, source.records)
    port = source.port or (443 if source.base_url.startswith("https") else 80)
    return [Address(host, port, server_name=source.host) for host in hosts], ttl_s


async def _hosts(resolver: dns.asyncresolver.Resolver, name: str, records: str) -> tuple[list[str], float]:
    if records == "auto":
        try:
            return await _hosts(resolver, name, "a")
        except LookupFailed as error:
            # Silence is no answer: there may be A records, which go first.
            if error.reason not in DENIED:
                raise
            try:
                return await _hosts(resolver, name, "aaaa")
            except LookupFailed:
                raise error from None
    answer = await _ask(resolver, name, records)
    return [record.address for record in answer], answer.chaining_result.minimum_ttl


async def _services(
    resolver: dns.asyncresolver.Resolver, name: str, targets: Targets
) -> tuple[list[Address], float]:
    """RFC 2782: the lowest priority number goes first, weights share within it. A target that can't be looked
    up now is where it was.
    """
    answer = await _ask(resolver, name, "srv")
    # A target that is the root says that there is no such service here.
    records = [record for record in answer if isinstance(record, SRV) and record.target != dns.name.root]
    if not records:
        raise LookupFailed("no_record", f"{name} has no SRV record with a target")
    ranks = {number: rank for rank, number in enumerate(sorted({record.priority for record in records}))}
    heaviest = max(record.weight for record in records)
    gate = asyncio.Semaphore(MAX_CONCURRENT)
    trouble: list[LookupFailed] = []
    found: Targets = {}

    async def of(record: SRV) -> tuple[list[Address], float]:
        target = record.target.to_text(omit_final_dot=True)
        async with gate:
            try:
                hosts, ttl_s = await _hosts(resolver, target + ".", "auto")
            except LookupFailed as error:
                trouble.append(error)
                ttl_s = inf
                hosts = [] if error.reason in DENIED else targets.get(target, [])
        found[target] = hosts
        share = (record.weight or NO_WEIGHT) / heaviest if heaviest else 1.0
        rank = ranks[record.priority]
        return [Address(host, record.port, target, share, rank) for host in hosts], ttl_s

    each = await asyncio.gather(*map(of, records))
    targets.clear()
    targets.update(found)
    addresses = [address for some, _ in each for address in some]
    if not addresses:
        raise trouble[0]
    return addresses, min(answer.chaining_result.minimum_ttl, *(ttl_s for _, ttl_s in each))


async def _ask(resolver: dns.asyncresolver.Resolver, name: str, records: str) -> dns.resolver.Answer:
    kind = records.upper()
    try:
        return await resolver.resolve(name, kind, search=True)
    except dns.resolver.NXDOMAIN:
        raise LookupFailed("not_found", f"{name} does not exist") from None
    except dns.resolver.NoAnswer:
        raise LookupFailed("no_record", f"{name} has no {kind} record") from None
    except dns.exception.Timeout:
        raise LookupFailed(
            "timeout", f"no name server answered for {name} within {LOOKUP_SECONDS:g} s"
        ) from None
    except (dns.exception.DNSException, OSError) as error:
        raise LookupFailed("lookup_failed", f"{name} can't be looked up: {error}") from None
