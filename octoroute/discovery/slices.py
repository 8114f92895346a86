"""From the EndpointSlices of a service to the servers in them: ready, not terminating, once each. Pure."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from octoroute.config.found import Address
from octoroute.config.sources import KubernetesSource

Slice = Mapping[str, Any]


class NoPort(Exception):
    """Which port is meant can't be told; says why."""


def servers_in(slices: Collection[Slice], source: KubernetesSource) -> set[Address]:
    """The servers that may get requests. Raises NoPort.

    A service of both families has a slice of each for the same pods: IPv4 goes first then. An empty slice may
    be left of a family that the service had, or be there before it has pods.
    """
    kinds = {one.get("addressType") for one in slices if one.get("endpoints")}
    kind = next((each for each in ("IPv4", "IPv6", "FQDN") if each in kinds), None)
    return {
        Address(host, port, server_name=source.host)
        for one in slices
        if one.get("addressType") == kind
        for host, port in _members(one, source)
    }


def _members(one: Slice, source: KubernetesSource) -> Iterator[tuple[str, int]]:
    hosts = [
        endpoint["addresses"][0]
        for endpoint in one.get("endpoints") or ()
        if endpoint.get("addresses") and _may_serve(endpoint.get("conditions") or {})
    ]
    if hosts:
        port = source.port or _port(one.get("ports") or (), source.port_name)
        yield from ((host, port) for host in hosts)


def _may_serve(conditions: Mapping[str, Any]) -> bool:
    """An absent `ready` is to be read as true, says the API."""
    return conditions.get("ready") is not False and conditions.get("terminating") is not True


def _port(ports: Collection[Mapping[str, Any]], name: str) -> int:
    known = {str(each.get("name") or ""): each["port"] for each in ports if each.get("port")}
    if name:
        if name not in known:
            raise NoPort(f"the service has no port named {name!r}; it has: {', '.join(known) or 'none'}")
        return int(known[name])
    if len(known) != 1:
        raise NoPort(
            f"the service has {len(known)} ports ({', '.join(known)}): "
            "put the right one into base_url, or its name into port_name"
        )
    return int(next(iter(known.values())))
