"""An API server in memory, for the operator's tests: real client code above, `_once` replaced, faults on demand.

It keeps resourceVersions, uids, finalizers, graceful deletion, status subresources, bindings and the rules of claims
that the tests rely on. It shares no code with what is tested but the client.
"""

from __future__ import annotations

import copy
import itertools
import json
import random
from collections.abc import Callable
from typing import Any

from fairlead.errors import Unreachable
from fairlead_operator.kube_client import JSON_PATCH, ApiError, KubeClient
from fairlead_operator.kube_config import KubeConfig

Fault = Callable[[str, str, Any], Exception | str | None]
"""(method, path, body) -> an exception to raise, "lost" to do the write and lose the answer, or None."""

STATUS_ONLY = {
    "gangjobs",
    "queues",
    "pools",
    "queueviews",
    "quotaexceptions",
    "switchboards",
    "pricebooks",
    "reservations",
    "resourceclaims",
}


def api_error(status: int, reason: str, message: str = "made up by the test") -> ApiError:
    return ApiError(status, reason, message)


class FakeKube(KubeClient):
    """Objects by (plural, namespace, name). `log` has every request; `hooks` run after each write."""

    def __init__(self, *, retries: int = 2) -> None:
        super().__init__(KubeConfig(server="http://fake"), rng=random.Random(1), retries=retries)
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.log: list[tuple[str, str]] = []
        self.fault: Fault = lambda method, path, body: None
        self.hooks: list[Callable[[str, str, dict[str, Any], bool], None]] = []
        self._numbers = itertools.count(1)

    async def _once(self, method, path, payload, params, content_type, end_s, fenced):  # type: ignore[no-untyped-def]
        body = None if payload is None else json.loads(payload)
        self.log.append((method, path))
        wrong = self.fault(method, path, body)
        if isinstance(wrong, Exception):
            raise wrong
        answer = self.answer(method, path, body, dict(params or {}), content_type)
        if wrong == "lost":
            raise Unreachable(f"{method} {path}: the answer was lost")
        return json.dumps(answer).encode()

    # --- the server -------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, body: Any, params: dict[str, str], content_type: str = "") -> Any:
        plural, namespace, name, sub = _split(path)
        key = (plural, namespace, name)
        if method == "GET":
            return self._get(key, params) if name else self._list(plural, namespace, params)
        if method == "POST" and sub == "binding":
            return self._bind(key, body)
        if method == "POST" and sub == "eviction":
            if self.objects.get(key) is None:
                raise api_error(404, "NotFound")
            return {"status": "Success"}
        if method == "POST":
            return self._create(plural, namespace, body, params)
        found = self.objects.get(key)
        if found is None:
            raise api_error(404, "NotFound", path)
        if method == "DELETE":
            return self._delete(key, found, body or {})
        new = copy.deepcopy(found)
        if method == "PUT":
            self._check_version(found, body)
            if plural == "resourcequotas":
                raise AssertionError(path)
            new["status" if sub == "status" else "spec"] = body.get("status" if sub == "status" else "spec", {})
            if plural == "resourceclaims" and sub == "status":
                _check_claim(found, body)
        elif method == "PATCH" and content_type == JSON_PATCH:
            assert sub == "status", path
            _apply(new, body)
        elif method == "PATCH":
            if (body.get("metadata") or {}).get("resourceVersion"):
                self._check_version(found, body)
            _merge(new, _only(body, sub, plural))
        return copy.deepcopy(self._store(key, new))

    def _get(self, key: tuple[str, str, str], params: dict[str, str]) -> Any:
        if key not in self.objects:
            raise api_error(404, "NotFound", str(key))
        return copy.deepcopy(self.objects[key])

    def _list(self, plural: str, namespace: str, params: dict[str, str]) -> Any:
        chosen = [
            copy.deepcopy(o)
            for (kind, space, _), o in sorted(self.objects.items())
            if kind == plural and namespace in ("", space) and _selected(o, params.get("labelSelector", ""))
        ]
        return {"metadata": {"resourceVersion": str(next(self._numbers))}, "items": chosen}

    def _create(self, plural: str, namespace: str, body: Any, params: dict[str, str]) -> Any:
        new = copy.deepcopy(body)
        key = (plural, namespace, new["metadata"]["name"])
        if key in self.objects:
            raise api_error(409, "AlreadyExists", str(key))
        number = next(self._numbers)
        new["metadata"] |= {"uid": f"uid-{number}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        if plural == "pods":
            new.setdefault("status", {})["phase"] = "Pending"
        if params.get("dryRun"):
            return new
        return copy.deepcopy(self._store(key, new))

    def _store(self, key: tuple[str, str, str], new: dict[str, Any]) -> dict[str, Any]:
        new["metadata"]["resourceVersion"] = str(next(self._numbers))
        meta = new["metadata"]
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and self._may_go(new):
            self.objects.pop(key, None)
            self._tell(key, new, gone=True)
        else:
            self.objects[key] = new
            self._tell(key, new, gone=False)
        return new

    @staticmethod
    def _may_go(new: dict[str, Any]) -> bool:
        return new["metadata"].get("deletionGracePeriodSeconds", 0) == 0

    def _tell(self, key: tuple[str, str, str], new: dict[str, Any], *, gone: bool) -> None:
        for hook in self.hooks:
            hook(key[0], key[2], copy.deepcopy(new), gone)

    def _delete(self, key: tuple[str, str, str], found: dict[str, Any], options: dict[str, Any]) -> Any:
        wanted = (options.get("preconditions") or {}).get("uid")
        if wanted and wanted != found["metadata"]["uid"]:
            raise api_error(409, "Conflict", "uid")
        new = copy.deepcopy(found)
        new["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:01Z")
        if key[0] == "pods":
            grace = options.get("gracePeriodSeconds", 30) if new["spec"].get("nodeName") else 0
            new["metadata"]["deletionGracePeriodSeconds"] = grace
        return copy.deepcopy(self._store(key, new))

    def _bind(self, key: tuple[str, str, str], body: Any) -> Any:
        pod = self.objects.get(key)
        if pod is None:
            raise api_error(404, "NotFound", str(key))
        if pod["metadata"].get("deletionTimestamp") or pod["spec"].get("nodeName"):
            raise api_error(409, "Conflict", "pod is being deleted or already assigned")
        if body["metadata"]["uid"] != pod["metadata"]["uid"]:
            raise api_error(409, "Conflict", "uid")
        new = copy.deepcopy(pod)
        new["spec"]["nodeName"] = body["target"]["name"]
        self._store(key, new)
        return {"status": "Success"}

    def _check_version(self, found: dict[str, Any], body: Any) -> None:
        meta = body["metadata"]
        if meta.get("resourceVersion") != found["metadata"]["resourceVersion"]:
            raise api_error(409, "Conflict", "resourceVersion")

    # --- what tests do to it ------------------------------------------------------------------------------------------

    def of(self, plural: str) -> dict[str, dict[str, Any]]:
        """Objects of a kind by name."""
        return {name: o for (kind, _, name), o in sorted(self.objects.items()) if kind == plural}

    def kubelet_is_done(self, name: str, namespace: str = "team", phase: str = "") -> None:
        """What a kubelet writes when a deleted pod has stopped."""
        key = ("pods", namespace, name)
        new = copy.deepcopy(self.objects[key])
        new["metadata"]["deletionGracePeriodSeconds"] = 0
        if phase:
            new["status"]["phase"] = phase
        self._store(key, new)


def _split(path: str) -> tuple[str, str, str, str]:
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    return (parts[0], namespace, *[*parts[1:3], "", ""][:2])


def _selected(found: dict[str, Any], selector: str) -> bool:
    labels = found["metadata"].get("labels") or {}
    for part in filter(None, selector.split(",")):
        key, equals, value = part.partition("=")
        if (labels.get(key) != value) if equals else (key not in labels):
            return False
    return True


def _only(body: Any, sub: str, plural: str) -> Any:
    if sub == "status":
        return {"status": body.get("status", {})}
    return {k: v for k, v in body.items() if not (k == "status" and plural in STATUS_ONLY)}


def _merge(into: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            into[field] = [x for x in into.get(field) or [] if x not in value]
        elif value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def _apply(into: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    """Do "test" and "remove"; a path that is not there fails both, as the API server has it."""
    for operation in operations:
        *way, last = operation["path"].strip("/").split("/")
        at = into
        for part in way:
            at = at.get(part) or {}
        if last not in at or (operation["op"] == "test" and at[last] != operation["value"]):
            raise api_error(422, "Invalid", operation["path"])
        if operation["op"] == "remove":
            del at[last]


def _check_claim(found: dict[str, Any], body: Any) -> None:
    """The API server's own rules: allocation is immutable, nothing new is reserved on what is being deleted."""
    old, new = (found.get("status") or {}), (body.get("status") or {})
    if old.get("allocation") and new.get("allocation") and old["allocation"] != new["allocation"]:
        raise api_error(422, "Invalid", "allocation is immutable")
    if new.get("reservedFor") and not new.get("allocation"):
        raise api_error(422, "Invalid", "reservedFor needs an allocation")
    if found["metadata"].get("deletionTimestamp") and new.get("reservedFor"):
        raise api_error(422, "Invalid", "is being deleted")
