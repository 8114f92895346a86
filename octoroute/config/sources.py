"""Sources of servers that nobody names one by one: a host in DNS, a service of Kubernetes.

A source is a [[models]] table whose host stands for all servers that are found there.
"""

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from octoroute.config.section import TIERS, Section, Tier
from octoroute.config.servers import Model
from octoroute.config.values import REFERENCE, PlainText, ReadablePath, Resolver, SourceUrl

SourceKind = Literal["dns", "kubernetes"]


class Source(Model):
    """What all sources have in common."""

    base_url: SourceUrl = Field(description="The servers' URL; its host stands for all of them.")
    # Further from the ends than that of a server: it is multiplied with what a record says.
    weight: float = Field(default=1.0, ge=0.001, le=1_000_000, description="As of a server, for each one.")
    keep_seconds: float = Field(
        default=600.0,
        ge=0,
        le=604_800,
        description="How long the servers that were found last are used while nothing can be found out.",
    )

    @property
    def host(self) -> str:
        """The name that stands for the servers."""
        return urlsplit(self.base_url).hostname or ""

    @property
    def port(self) -> int | None:
        """The servers' port, where the URL has one."""
        return urlsplit(self.base_url).port


class DnsSource(Source):
    """Servers behind one name in DNS: it is looked up again when its answer's time to live is over."""

    records: Annotated[Literal["auto", "a", "aaaa", "srv"], REFERENCE] = Field(
        default="auto",
        description="What is looked up; auto is A, and AAAA where there is none. The ports are in SRV.",
    )
    resolver: Resolver = Field(default="", description="The name server; empty means the system's.")
    refresh_min_seconds: float = Field(
        default=5.0, ge=0.1, le=3600, description="Shortest time between two looks, whatever the answer says."
    )
    refresh_max_seconds: float = Field(
        default=300.0, ge=0.1, le=86_400, description="Longest time between two looks."
    )


class KubernetesSource(Source):
    """Ready pods of a service: its EndpointSlices are watched. The host of base_url is `service`,
    `service.namespace`, or longer; without a namespace it is the gateway's own.
    """

    port_name: PlainText = Field(
        default="", description="The port's name, where the pods have several and base_url has none."
    )
    kubeconfig: ReadablePath = Field(
        default="", description="How to reach the cluster; empty means from a pod in it."
    )

    @property
    def service(self) -> str:
        return self.host.partition(".")[0]

    @property
    def namespace(self) -> str:
        """Empty where the URL has none."""
        return self.host.split(".")[1] if "." in self.host else ""


class DnsTiers(Section):
    """Names in DNS, by tier."""

    fast: DnsSource | None = Field(default=None, description="For fast.")
    balanced: DnsSource | None = Field(default=None, description="For balanced.")
    deep: DnsSource | None = Field(default=None, description="For deep.")


class KubernetesTiers(Section):
    """Services of Kubernetes, by tier."""

    fast: KubernetesSource | None = Field(default=None, description="For fast.")
    balanced: KubernetesSource | None = Field(default=None, description="For balanced.")
    deep: KubernetesSource | None = Field(default=None, description="For deep.")


class Discovery(Section):
    """Where servers come from beside [[models]]."""

    dns: DnsTiers = Field(default=DnsTiers(), description="Names in DNS.")
    kubernetes: KubernetesTiers = Field(default=KubernetesTiers(), description="Services of Kubernetes.")

    def sources(self) -> "Iterator[tuple[SourceKind, Tier, DnsSource | KubernetesSource]]":
        """Each with its kind and tier."""
        for tier in TIERS:
            dns: DnsSource | None = getattr(self.dns, tier)
            if dns is not None:
                yield "dns", tier, dns
            kubernetes: KubernetesSource | None = getattr(self.kubernetes, tier)
            if kubernetes is not None:
                yield "kubernetes", tier, kubernetes
