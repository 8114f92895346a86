"""An API server of Kubernetes as far as EndpointSlices go: lists, watches from a version on, bookmarks, and
the faults that real ones have.
"""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import orjson
from aiohttp import web

PATH = "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{{name: here, context: {{cluster: here, user: me, namespace: gpu}}}}]
clusters: [{{name: here, cluster: {{server: "{server}"}}}}]
users: [{{name: me, user: {{token: sesame}}}}]
"""


def pod(port: int, **conditions: bool) -> tuple[int, dict[str, bool]]:
    """A pod on this machine: its port tells it from others."""
    return port, conditions or {"ready": True}


class KubeApi:
    """`put` and `delete` change slices; `watches` has the version that each watch began from."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, Any]] = {}
        self.version = 100
        self.oldest = 0  # a watch from before is told 410
        self.expired_as: Literal["event", "status"] = "event"
        self.forbidden = False
        self.open = asyncio.Event()  # cleared, no request is answered
        self.open.set()
        self.lists = 0
        self.watches: list[int] = []
        self.selectors: set[str] = set()
        self.tokens: set[str] = set()
        self._history: list[tuple[int, dict[str, Any]]] = []
        self._streams: dict[asyncio.Queue[dict[str, Any] | None], web.Request] = {}

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get(PATH, self._get)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.open.set()
        for queue in self._streams:
            queue.put_nowait(None)
        await self._runner.cleanup()

    def kubeconfig(self, folder: Path) -> str:
        """The path of a file that leads here."""
        path = folder / "kubeconfig"
        path.write_text(KUBECONFIG.format(server=f"http://127.0.0.1:{self.port}"))
        return str(path)

    def put(self, name: str, pods: Iterable[tuple[int, dict[str, bool]]]) -> None:
        """A slice for each port, as all pods here have one address: `name-PORT`."""
        for port, conditions in pods:
            full = f"{name}-{port}"
            kind = "MODIFIED" if full in self.slices else "ADDED"
            self.version += 1
            self.slices[full] = {
                "metadata": {"name": full, "namespace": "gpu", "resourceVersion": str(self.version)},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": conditions}],
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
            }
            self._happen(kind, self.slices[full])

    def delete(self, name: str, port: int) -> None:
        self.version += 1
        gone = self.slices.pop(f"{name}-{port}")
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._happen("DELETED", gone)

    def bookmark(self, ahead: int = 10) -> int:
        """Tells the watches of a version that other objects have brought; that version."""
        self.version += ahead
        self._tell({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.version)}}})
        return self.version

    def forget(self) -> None:
        """What happened so far can't be watched any more."""
        self.oldest = self.version
        self._history.clear()

    def drop(self) -> None:
        """Cuts all watches in the middle."""
        for queue, request in self._streams.items():
            assert request.transport is not None
            request.transport.abort()
            queue.put_nowait(None)

    def end(self) -> None:
        """Ends all watches as a server does when their time is over."""
        for queue in self._streams:
            queue.put_nowait(None)

    @property
    def watching(self) -> int:
        return len(self._streams)

    def _happen(self, kind: str, content: dict[str, Any]) -> None:
        event = {"type": kind, "object": content}
        self._history.append((self.version, event))
        self._tell(event)

    def _tell(self, event: dict[str, Any]) -> None:
        for queue in self._streams:
            queue.put_nowait(event)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        await self.open.wait()
        self.selectors.add(request.query["labelSelector"])
        self.tokens.add(request.headers.get("Authorization", ""))
        if self.forbidden:
            return web.json_response({"kind": "Status", "code": 403}, status=403)
        if request.query.get("watch", "").lower() == "true":
            return await self._watch(request)
        self.lists += 1
        return web.json_response(
            {"metadata": {"resourceVersion": str(self.version)}, "items": list(self.slices.values())}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        version = int(request.query["resourceVersion"])
        self.watches.append(version)
        assert request.query["allowWatchBookmarks"].lower() == "true"
        expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        if version < self.oldest and self.expired_as == "status":
            return web.json_response(expired, status=410)
        queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        if version < self.oldest:
            queue.put_nowait({"type": "ERROR", "object": expired})
            queue.put_nowait(None)
        for at, event in self._history:
            if at > version:
                queue.put_nowait(event)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._streams[queue] = request
        try:
            while (new := await queue.get()) is not None:
                line = orjson.dumps(new) + b"\n"
                # A reader must not take a piece for an event.
                await response.write(line[: len(line) // 2])
                await asyncio.sleep(0)
                await response.write(line[len(line) // 2 :])
        finally:
            del self._streams[queue]
        return response
