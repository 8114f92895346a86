"""What belongs to each endpoint on this side: how to write for it, how to reach it. Made for one snapshot
after the other.

An endpoint's site lives as long as the endpoint object, that is, as long as a snapshot, a group or a lease
holds it: a request finds the sites of the snapshot that it began with. Pools outlive snapshots: they belong
to an address, and are closed by the first snapshot that has no endpoint there; connections in use then end
with their request.
"""

import time
from typing import TYPE_CHECKING, Final
from urllib.parse import quote
from weakref import WeakKeyDictionary

from octoroute._poller import Poller
from octoroute.balance.endpoint import Endpoint, EndpointSpec
from octoroute.snapshot import Snapshot
from octoroute.upstream.kind import AUTO, hear_kind
from octoroute.upstream.outbox import Outbox
from octoroute.upstream.plain_option import KIND, PlainOption
from octoroute.upstream.pool import Pool
from octoroute.upstream.request import RequestWriter
from octoroute.upstream.site import Site
from octoroute.upstream.usage_option import UsageOption

MOST_PAUSE: Final = 30  # calls of `hear_kinds`
# A shorter key of a server, such as EMPTY, is none that anybody guards; and text may hold it by chance.
SECRET_CHARS: Final = 8
# What must be equal for two endpoints to share connections: base URL, tls_verify, tls_server_name,
# connect_seconds.
_Address = tuple[str, bool, str, float]

if TYPE_CHECKING:
    _Sites = WeakKeyDictionary[Endpoint, Site]
else:
    _Sites = WeakKeyDictionary


class Sites(_Sites):
    """By endpoint, those of earlier snapshots included while anything uses them."""

    def __init__(self, outbox: Outbox, poller: Poller) -> None:
        super().__init__()
        self._outbox = outbox
        self._poller = poller
        self._pools: dict[_Address, Pool] = {}
        # Of the last snapshot, those of which the config does not say what they are.
        self._auto: list[tuple[Endpoint, Site]] = []
        self._quiet = 0
        self._pause = 1

    def furnish(self, snapshot: Snapshot) -> None:
        """Makes the sites of a snapshot's endpoints. Pools of addresses that it does not have are closed."""
        connect_s = snapshot.config.timeouts.connect_seconds
        wanted = snapshot.config.observability.stream_usage
        recovery = snapshot.config.recovery
        gathered = recovery.resume_buffer_bytes if recovery.cancel_plain else 0
        pools: dict[_Address, Pool] = {}
        sites: list[tuple[Endpoint, Site]] = []
        secrets: dict[Pool, list[bytes]] = {}
        for endpoint in snapshot.endpoints:
            spec = endpoint.spec
            address = (spec.base_url, spec.tls_verify, spec.tls_server_name, connect_s)
            pool = pools.get(address) or self._pools.get(address) or self._pool(*address)
            pools[address] = pool
            if len(spec.api_key) >= SECRET_CHARS:
                secrets.setdefault(pool, []).append(spec.api_key.encode())
            usage = UsageOption(spec.kind, pool, wanted=wanted)
            plain = (
                PlainOption(spec.kind, pool, gathered) if gathered and spec.kind in ("auto", KIND) else None
            )
            sites.append((endpoint, Site(RequestWriter(spec), pool, _why(spec), usage, plain)))
        # Nothing fails from here on.
        for pool in pools.values():
            pool.secrets = tuple(dict.fromkeys(secrets.get(pool, ())))
        for address, pool in self._pools.items():
            if address not in pools:
                pool.close()
        self._pools = pools
        self._auto = [(endpoint, site) for endpoint, site in sites if endpoint.spec.kind == AUTO]
        self._pause = 1
        self.update(sites)

    def hear_kinds(self) -> None:
        """Learns from other workers which software servers are. To be called about once a second; where
        there was no news, it looks less and less often.
        """
        self._quiet += 1
        if self._quiet < self._pause:
            return
        self._quiet = 0
        news = [hear_kind(endpoint, site) for endpoint, site in self._auto]
        self._pause = 1 if any(news) else min(2 * self._pause, MOST_PAUSE)

    def expire(self) -> None:
        """Closes what has been idle for too long. To be called about once a second."""
        for pool in self._pools.values():
            pool.expire()

    def close(self) -> None:
        """Closes every idle connection."""
        for pool in self._pools.values():
            pool.close()

    def _pool(self, base_url: str, tls_verify: bool, tls_server_name: str, connect_s: float) -> Pool:
        return Pool(
            base_url,
            self._outbox,
            self._poller,
            tls_verify=tls_verify,
            tls_server_name=tls_server_name,
            connect_s=connect_s,
            clock=time.monotonic,
        )


def _why(spec: EndpointSpec) -> bytes:
    """The header lines that tell a client which endpoint answered."""
    return b"x-octoroute-tier: %b\r\nx-octoroute-endpoint: %b\r\n" % (
        spec.tier.encode(),
        quote(spec.name, safe="!#$&'()*+,/:;=?@[]^`{|}~ ").encode(),
    )
