"""Where the plugin reads: an API server with the rights of its user, or a Fairlead HTTP API. Both give documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import quote

from fairlead.cli.client import Server
from fairlead.clock import now_ms
from fairlead.errors import Forbidden, NotFound
from fairlead.service.view_json import GangDoc, NodeDoc, PoolDoc, QueueDoc, UsageDoc
from fairlead_operator.kubectl import documents
from fairlead_operator.kubectl.api_server import GROUP, ApiServer


class Source(Protocol):
    """Documents by kind; `namespace` None means all namespaces. `now_ms` is the present of the server."""

    now_ms: int

    def gangs(self, namespace: str | None) -> list[GangDoc]:
        """Return gangs by namespace and name."""
        ...

    def gang(self, namespace: str, name: str) -> GangDoc:
        """Return one gang. Raises NotFound."""
        ...

    def queues(self, namespace: str | None) -> list[QueueDoc]:
        """Return all queues, or those that the user's namespace may use."""
        ...

    def nodes(self) -> list[NodeDoc]:
        """Return nodes with GPUs. Raises Forbidden for a tenant."""
        ...

    def pools(self) -> list[PoolDoc]:
        """Return pools. Raises Forbidden for a tenant."""
        ...

    def usage(self, namespace: str | None) -> list[UsageDoc]:
        """Return usage by queue."""
        ...


class HttpSource:
    """A Fairlead HTTP API."""

    def __init__(self, server: Server) -> None:
        """Take the server; nothing is sent yet."""
        self._server = server
        self.now_ms = now_ms()

    def gangs(self, namespace: str | None) -> list[GangDoc]:
        """Return gangs by namespace and name."""
        found, self.now_ms = self._server.dated("/v1/gangs", namespace=namespace)
        return found

    def gang(self, namespace: str, name: str) -> GangDoc:
        """Return one gang."""
        answer: Any = self._server.call("GET", f"/v1/gangs/{namespace}/{name}")
        self.now_ms = int(answer.pop("as_of_ms", None) or self.now_ms)
        found: GangDoc = answer
        return found

    def queues(self, namespace: str | None) -> list[QueueDoc]:
        """Return all queues."""
        return self._server.items("/v1/queues")

    def nodes(self) -> list[NodeDoc]:
        """Return all nodes."""
        return self._server.items("/v1/nodes")

    def pools(self) -> list[PoolDoc]:
        """Return all pools."""
        return self._server.items("/v1/pools")

    def usage(self, namespace: str | None) -> list[UsageDoc]:
        """Return usage by queue."""
        return self._server.items("/v1/usage")


class KubeSource:
    """An API server, with whatever rights the user has: Queues where they may be read, QueueViews where not."""

    def __init__(self, api: ApiServer) -> None:
        """Take the connection; nothing is sent yet."""
        self._api = api
        self.now_ms = now_ms()

    def gangs(self, namespace: str | None) -> list[GangDoc]:
        """Return gangs by namespace and name."""
        items = self._api.items(_path("gangjobs", namespace))
        priorities = self._priorities(items)
        found = [documents.gang(item, priorities) for item in items]
        if any(doc["phase"] == "Pending" for doc in found):
            documents.with_positions(found, self._views_or_none(namespace))
        return sorted(found, key=lambda doc: (doc["namespace"], doc["name"]))

    def gang(self, namespace: str, name: str) -> GangDoc:
        """Return one gang."""
        try:
            item = self._api.get(f"{_path('gangjobs', namespace)}/{quote(name, safe='')}")
        except NotFound as problem:
            raise NotFound(f"there is no GangJob {namespace}/{name}") from problem
        found = documents.gang(item, self._priorities([item]))
        if found["phase"] == "Pending":
            documents.with_positions([found], self._views_or_none(namespace))
        return found

    def queues(self, namespace: str | None) -> list[QueueDoc]:
        """Return Queues, or on 403 what the QueueViews of the namespace show."""
        try:
            found = [documents.queue(item) for item in self._api.items(f"{GROUP}/queues")]
        except Forbidden:
            return [documents.queue_view(item) for item in self._api.items(_path("queueviews", namespace))]
        documents.with_tenants(found)
        return found

    def nodes(self) -> list[NodeDoc]:
        """Return nodes with GPUs; their claims are those of all namespaces."""
        lists = (f"{GROUP}/nodetopologies", "/api/v1/nodes", "/apis/resource.k8s.io/v1/resourceslices")
        topologies, nodes, slices = (self._platform(path) for path in lists)
        claims = self._platform("/apis/resource.k8s.io/v1/resourceclaims")
        return documents.nodes(topologies, nodes, slices, claims, self._platform(f"{GROUP}/pools"))

    def pools(self) -> list[PoolDoc]:
        """Return pools."""
        return [documents.pool(item) for item in self._platform(f"{GROUP}/pools")]

    def usage(self, namespace: str | None) -> list[UsageDoc]:
        """Return usage by queue: of everybody for the platform, of the namespace for a tenant."""
        try:
            items = self._api.items(f"{GROUP}/queues")
        except Forbidden:
            views = self._api.items(_path("queueviews", namespace))
            names = {doc["name"]: None for doc in map(documents.queue_view, views)}
            known: dict[str, int] = {}
            for view in views:
                name = documents.queue_view(view)["name"]
                gpu_ms = int(((view.get("status") or {}).get("usage") or {}).get("gpuMs") or 0)
                known[name] = known.get(name, 0) + gpu_ms
            return documents.usage(self._gangs_for_usage(namespace), known, names)
        queues = [documents.queue(item) for item in items]
        documents.with_tenants(queues)
        known = {
            str(item["metadata"]["name"]): int((item.get("status") or {}).get("usageGpuMs") or 0) for item in items
        }
        tenants = {doc["name"]: doc["tenant"] for doc in queues}
        return documents.usage(self._gangs_for_usage(None), known, tenants)

    def _gangs_for_usage(self, namespace: str | None) -> Sequence[GangDoc]:
        return [documents.gang(item, {}) for item in self._api.items(_path("gangjobs", namespace))]

    def _views_or_none(self, namespace: str | None) -> list[dict[str, Any]]:
        try:
            return self._api.items(_path("queueviews", namespace))
        except (Forbidden, NotFound):
            return []  # the status of the GangJob has a place in the queue too, only an older one

    def _priorities(self, items: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Return the values of PriorityClasses where a gang names one and the user may read them."""
        if not any((item.get("spec") or {}).get("priorityClassName") for item in items):
            return {}
        try:
            classes = self._api.items("/apis/scheduling.k8s.io/v1/priorityclasses")
        except Forbidden:
            return {}
        return {str(entry["metadata"]["name"]): int(entry.get("value") or 0) for entry in classes}

    def _platform(self, path: str) -> list[dict[str, Any]]:
        try:
            return self._api.items(path)
        except Forbidden as problem:
            kind = path.rsplit("/", 1)[-1]
            raise Forbidden(
                f"this needs the right to list {kind} in the whole cluster (ClusterRole fairlead-platform): {problem}"
            ) from problem


def _path(plural: str, namespace: str | None) -> str:
    return f"{GROUP}/{plural}" if namespace is None else f"{GROUP}/namespaces/{quote(namespace, safe='')}/{plural}"
