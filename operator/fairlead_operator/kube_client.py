"""Typed calls to the API server: read, list, create, replace, patch and delete the kinds that are `Resource`s.

Who needs only this imports `KubeClient` and the three exceptions from here; the session beneath is `kube_http`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from fairlead.errors import UnreadableInput
from fairlead_operator.kube_http import JSON_PATCH, MERGE_PATCH, ApiError, Hooks, KubeHttp, NotLeader
from fairlead_operator.objects import HasMeta, ListMeta, Record, Resource

__all__ = ["JSON_PATCH", "MERGE_PATCH", "ApiError", "Hooks", "KubeClient", "NotLeader"]

Item = TypeVar("Item", bound=HasMeta)


class _Page(Record, frozen=True, kw_only=True):
    """One page of a list, items still raw so that one bad object spoils no other."""

    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None


class KubeClient(KubeHttp):
    """One session with typed calls; use it as ``async with KubeClient(config) as client``.

    Every call raises what `KubeHttp.request` raises, and `UnreadableInput` for an answer that is not of its kind.
    """

    async def get(self, resource: Resource[Item], name: str, namespace: str = "", *, deadline_s: float = 15.0) -> Item:
        """Read one object."""
        raw = await self.request("GET", resource.path(namespace, name), deadline_s=deadline_s)
        return _decode(raw, resource)

    async def page(
        self, resource: Resource[Item], namespace: str = "", *, params: Mapping[str, str] | None = None
    ) -> tuple[list[msgspec.Raw], ListMeta]:
        """Read one page of a list, items undecoded, and where the list stands."""
        raw = await self.request("GET", resource.path(namespace), params=params, deadline_s=60.0)
        page = msgspec.json.decode(raw, type=_Page)
        return page.items or [], page.metadata

    async def list_all(
        self, resource: Resource[Item], namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> tuple[list[Item], str]:
        """Read a whole list in pages of 500, and the resourceVersion it is true at."""
        params = {"limit": "500", "labelSelector": label_selector, "fieldSelector": field_selector}
        params = {key: value for key, value in params.items() if value}
        items: list[Item] = []
        while True:
            raws, meta = await self.page(resource, namespace, params=params)
            items += [_decode(raw, resource) for raw in raws]
            if not meta.continue_:
                return items, meta.resource_version
            params["continue"] = meta.continue_

    async def create(
        self,
        resource: Resource[Item],
        body: Any,
        namespace: str = "",
        *,
        dry_run: bool = False,
        deadline_s: float = 15.0,
    ) -> Item:
        """Create an object and return it as the server keeps it (or would keep it, in a dry run)."""
        params = {"dryRun": "All"} if dry_run else None
        raw = await self.request("POST", resource.path(namespace), body, params=params, deadline_s=deadline_s)
        return _decode(raw, resource)

    async def post_sub(
        self, resource: Resource[Item], name: str, sub: str, body: Any, namespace: str = "", *, deadline_s: float = 15.0
    ) -> bytes:
        """POST to a subresource, such as a pod's ``binding`` or ``eviction``; the answer is left raw."""
        return await self.request("POST", resource.path(namespace, name, sub), body, deadline_s=deadline_s)

    async def replace(
        self,
        resource: Resource[Item],
        name: str,
        body: Any,
        namespace: str = "",
        *,
        sub: str = "",
        deadline_s: float = 15.0,
    ) -> Item:
        """PUT a whole object or subresource; `body` must carry the resourceVersion it is based on."""
        raw = await self.request("PUT", resource.path(namespace, name, sub), body, deadline_s=deadline_s)
        return _decode(raw, resource)

    async def patch_merge(
        self,
        resource: Resource[Item],
        name: str,
        body: Any,
        namespace: str = "",
        *,
        sub: str = "",
        deadline_s: float = 15.0,
    ) -> Item:
        """Merge `body` into an object; null removes a field, a list is replaced whole."""
        path = resource.path(namespace, name, sub)
        raw = await self.request("PATCH", path, body, content_type=MERGE_PATCH, deadline_s=deadline_s)
        return _decode(raw, resource)

    async def patch_json(
        self,
        resource: Resource[Item],
        name: str,
        operations: list[dict[str, Any]],
        namespace: str = "",
        *,
        sub: str = "",
        deadline_s: float = 15.0,
    ) -> Item:
        """Apply JSON patch `operations`; start with a ``test`` where the old value matters."""
        path = resource.path(namespace, name, sub)
        raw = await self.request("PATCH", path, operations, content_type=JSON_PATCH, deadline_s=deadline_s)
        return _decode(raw, resource)

    async def delete(
        self, resource: Resource[Item], name: str, namespace: str = "", *, options: Any = None, deadline_s: float = 15.0
    ) -> None:
        """Ask for an object's deletion. `options` are DeleteOptions (gracePeriodSeconds, preconditions.uid …)."""
        await self.request("DELETE", resource.path(namespace, name), options, deadline_s=deadline_s)

    async def delete_collection(
        self, resource: Resource[Item], namespace: str, *, label_selector: str, options: Any = None
    ) -> None:
        """Ask for the deletion of all objects that the selector, which may not be empty, finds in a namespace."""
        assert label_selector, "a collection is deleted by label only"
        params = {"labelSelector": label_selector}
        await self.request("DELETE", resource.path(namespace), options, params=params, deadline_s=30.0)


def _decode(raw: bytes | msgspec.Raw, resource: Resource[Item]) -> Item:
    """Decode one object."""
    try:
        return msgspec.json.decode(raw, type=resource.struct)
    except msgspec.DecodeError as error:
        raise UnreadableInput(f"{resource.kind} from the API server: {error}") from error
