"""Ready pods of a service of Kubernetes: its EndpointSlices are listed, then watched.

The protocol is the API server's own: a watch goes on from the version of the last event or bookmark; a
version that is too old (410) means to list anew. Answers are read as JSON and not by the client's models,
which refuse what the API server itself allows.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import aiohttp
import orjson
from kubernetes_asyncio import client, config
from kubernetes_asyncio.config.config_exception import ConfigException

from octoroute.config.sources import KubernetesSource
from octoroute.discovery.search import MAX_BACKOFF_SECONDS, Teller
from octoroute.discovery.slices import NoPort, Slice, servers_in

log = logging.getLogger(__name__)

OWN_NAMESPACE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LIST_SECONDS: Final = 30.0
# How long the server is asked to keep a watch open. A connection that died unseen is noticed at its end.
WATCH_SECONDS: Final = 120
GRACE_SECONDS: Final = 15.0
# A watch that ends sooner is not begun again before: a proxy in between may end each at once.
SHORTEST_WATCH_SECONDS: Final = 1.0
MAX_ANSWER_BYTES: Final = 64 << 20
MAX_EVENT_BYTES: Final = 8 << 20
FIRST_BACKOFF_SECONDS: Final = 0.5


class Expired(Exception):
    """The version that a watch was to begin from is too old (410)."""


class Refused(Exception):
    """The API server can't be asked, or gave no answer to use; says why, and `reason` does in a word."""

    def __init__(self, reason: str, trouble: str) -> None:
        super().__init__(trouble)
        self.reason = reason


class Dropped(Exception):
    """A watch ended before its time."""


async def follow(source: KubernetesSource, teller: Teller) -> NoReturn:
    """Lists and watches for ever. Trouble is told once it keeps the servers from being known."""
    backoff = FIRST_BACKOFF_SECONDS
    while True:
        try:
            async with _connected(source) as service:
                slices, version = await service.list()
                await _tell(slices, source, teller)
                while True:
                    begun = time.monotonic()
                    try:
                        async with aclosing(service.watch(version)) as events:
                            async for event in events:
                                version = _apply(event, slices) or version
                                await _tell(slices, source, teller)
                    except Dropped as error:
                        log.info("%s: the watch was dropped: %s", teller, error)
                        await teller.watched("dropped")
                    else:
                        await teller.watched("in_time")
                        # It was quiet, perhaps, but it would have told.
                        await _tell(slices, source, teller)
                    backoff = FIRST_BACKOFF_SECONDS
                    await asyncio.sleep(max(0.0, begun + SHORTEST_WATCH_SECONDS - time.monotonic()))
        except Expired:
            log.info("%s: the version was too old; it is listed anew", teller)
            await teller.watched("expired")
            # At once, but not in a circle.
            await asyncio.sleep(FIRST_BACKOFF_SECONDS)
        except Refused as error:
            await teller.lost(error.reason, str(error))
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)


async def _tell(slices: dict[str, Slice], source: KubernetesSource, teller: Teller) -> None:
    try:
        await teller.found(servers_in(slices.values(), source))
    except NoPort as error:
        await teller.lost("no_port", str(error))


def _apply(event: dict[str, Any], slices: dict[str, Slice]) -> str:
    """Does what an event says; the version that it brings. Raises Expired, Refused."""
    kind, content = event.get("type"), event.get("object") or {}
    if kind == "ERROR":
        if content.get("code") == 410:
            raise Expired
        said = content.get("message") or content.get("reason")
        raise Refused("bad_answer", f"the watch ended with an error: {said}")
    about = content.get("metadata") or {}
    if kind in ("ADDED", "MODIFIED"):
        slices[about.get("name", "")] = content
    elif kind == "DELETED":
        slices.pop(about.get("name", ""), None)
    return str(about.get("resourceVersion") or "")


class Service:
    """The EndpointSlices of one service, as the API server tells them."""

    def __init__(self, api: Any, namespace: str, name: str) -> None:
        self._ask = api.list_namespaced_endpoint_slice
        self._namespace = namespace
        self._selector = f"kubernetes.io/service-name={name}"

    async def list(self) -> tuple[dict[str, Slice], str]:
        """All slices by name, and the version of the list. Raises Refused, Expired."""
        async with self._asked(LIST_SECONDS) as response:
            body = bytearray()
            try:
                async for data in response.content.iter_any():
                    body += data
                    if len(body) > MAX_ANSWER_BYTES:
                        raise Refused("bad_answer", f"the list has more than {MAX_ANSWER_BYTES} bytes")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Refused("unreachable", f"the list broke off: {error or type(error).__name__}") from None
        answer = _json(body)
        slices = {one["metadata"]["name"]: one for one in answer.get("items") or ()}
        return slices, str((answer.get("metadata") or {}).get("resourceVersion") or "")

    async def watch(self, version: str) -> AsyncGenerator[dict[str, Any]]:
        """Events from a version on, until the server ends the watch. Raises Refused, Expired, Dropped."""
        options = {
            "watch": True,
            "resource_version": version,
            "allow_watch_bookmarks": True,
            "timeout_seconds": WATCH_SECONDS,
        }
        async with self._asked(WATCH_SECONDS + GRACE_SECONDS, **options) as response:
            rest = b""
            try:
                async for data in response.content.iter_any():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        if line.strip():
                            yield _json(line)
                    if len(rest) > MAX_EVENT_BYTES:
                        raise Refused("bad_answer", f"an event has more than {MAX_EVENT_BYTES} bytes")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Dropped(str(error) or type(error).__name__) from None

    @asynccontextmanager
    async def _asked(self, seconds: float, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            response: aiohttp.ClientResponse = await self._ask(
                self._namespace,
                label_selector=self._selector,
                _preload_content=False,
                _request_timeout=aiohttp.ClientTimeout(total=seconds, connect=GRACE_SECONDS),
                **options,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            trouble = f"the API server can't be reached: {error or type(error).__name__}"
            raise Refused("unreachable", trouble) from None
        async with response:
            if response.status == 410:
                raise Expired
            if response.status != 200:
                reason = "forbidden" if response.status in (401, 403) else "bad_answer"
                raise Refused(reason, self._why(response.status))
            yield response

    def _why(self, status: int) -> str:
        if status not in (401, 403):
            return f"the API server answered {status}"
        return (
            f"the API server answered {status}: the account may not list and watch endpointslices "
            f"in namespace {self._namespace}"
        )


@asynccontextmanager
async def _connected(source: KubernetesSource) -> AsyncIterator[Service]:
    """Raises Refused. Made anew after each failure: keys and certificates change."""
    settings: Any = client.Configuration()
    try:
        if source.kubeconfig:
            loader: Any = await config.load_kube_config(
                source.kubeconfig, client_configuration=settings, persist_config=False
            )
            own = loader.current_context["context"].get("namespace")
        else:
            load_config: Any = config.load_incluster_config
            load_config(client_configuration=settings)
            own = await asyncio.to_thread(_own_namespace)
        api: Any = client.ApiClient(settings)
    except (ConfigException, OSError, ValueError) as error:
        raise Refused("no_access", f"how to reach the cluster can't be told: {error}") from None
    try:
        yield Service(client.DiscoveryV1Api(api), source.namespace or own or "default", source.service)
    finally:
        await api.close()


def _own_namespace() -> str:
    try:
        return OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _json(text: bytes | bytearray) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused("bad_answer", "the API server's answer is no JSON object")
    return value
