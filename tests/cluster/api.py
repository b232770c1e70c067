"""A small synchronous client of the API server for tests: nodes, slices, claims and pods as plain dictionaries.

It shares no code with the operator's client, so a fault there cannot hide here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

ANSWER_SECONDS_MAX = 30
# The server ends idle connections after 90 s; a write on one that it has just ended could not be repeated safely.
IDLE_SECONDS_MAX = 30
PATCHES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class ApiError(Exception):
    """The API server said no. `status` is HTTP's, `reason` and `message` come from its Status object."""

    def __init__(self, status: int, reason: str, message: str, body: Any = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.body = status, reason, message, body


class Api:
    """One user of one API server. Threads may share it: each has its own connection.

    Paths are the server's own, such as `/api/v1/nodes/n1` or `path("resourceclaims", "default", "c1")`.
    """

    def __init__(self, url: str, ca_file: str, token: str | None, *, default_timeout_s: float = ANSWER_SECONDS_MAX):
        place = urlsplit(url)
        assert place.hostname, url
        assert place.port, url
        self._host, self._port, self._timeout_s = place.hostname, place.port, default_timeout_s
        self._tls = ssl.create_default_context(cafile=ca_file)
        # The server's throw-away certificate lacks an extension that newer Pythons insist on.
        self._tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._mine = threading.local()
        self._all: list[http.client.HTTPSConnection] = []
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Send one request; return the HTTP status and the parsed answer, whatever the status is.

        `headers` go over our own: `Impersonate-User`, or another `Authorization`.
        """
        connection = self._connection()
        data = None if body is None else json.dumps(body).encode()
        sent = {**self._headers, "Accept": "application/json", "Content-Type": content_type, **(headers or {})}
        try:
            connection.request(method, path, body=data, headers=sent)
            answer = connection.getresponse()
            raw = answer.read()
        except BaseException:
            connection.close()  # half a conversation cannot be continued
            raise
        self._mine.used = time.monotonic()
        is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
        return answer.status, json.loads(raw) if is_json else raw.decode(errors="replace")

    def get(self, path: str) -> Any:
        """Read one object."""
        return self._demand("GET", path)

    def exists(self, path: str) -> bool:
        """Say whether the object is there."""
        status, body = self.request("GET", path)
        if status not in (200, 404):
            raise _error(status, body)
        return status == 200

    def list(self, path: str, *, labels: str = "", fields: str = "") -> list[dict[str, Any]]:
        """Read a collection's items."""
        return self.list_whole(path, labels=labels, fields=fields)["items"]

    def list_whole(self, path: str, *, labels: str = "", fields: str = "") -> dict[str, Any]:
        """Read a collection with its own metadata; watch from its resourceVersion."""
        return self._demand("GET", _query(path, labelSelector=labels, fieldSelector=fields))

    def create(self, path: str, body: dict[str, Any], **query: str) -> Any:
        """Create an object (path: its collection) or post to a subresource such as `.../binding`."""
        return self._demand("POST", _query(path, **query), body)

    def replace(self, path: str, body: dict[str, Any], **query: str) -> Any:
        """Replace an object, its status or its scale; the resourceVersion in the body is checked."""
        return self._demand("PUT", _query(path, **query), body)

    def patch(self, path: str, body: Any, kind: str = "merge", **query: str) -> Any:
        """Patch an object; kind is merge, json, strategic or apply."""
        if kind == "apply":
            query = {"fieldManager": "tests", "force": "true", **query}
        return self._demand("PATCH", _query(path, **query), body, content_type=PATCHES[kind])

    def delete(self, path: str, *, grace_seconds: int | None = None, **options: Any) -> Any:
        """Delete an object, or a whole collection; options are fields of DeleteOptions."""
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        return self._demand("DELETE", path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})

    def watch(
        self, path: str, resource_version: str, *, seconds: float, labels: str = "", fields: str = "", bookmarks=False
    ) -> Iterator[dict[str, Any]]:
        """Yield `{"type": ..., "object": ...}` in order until `seconds` are over. ERROR events raise ApiError."""
        connection = self._open(timeout_s=seconds + self._timeout_s)
        whole_seconds = max(1, int(seconds))
        target = _query(
            path,
            watch="true",
            resourceVersion=resource_version,
            timeoutSeconds=str(whole_seconds),
            labelSelector=labels,
            fieldSelector=fields,
            allowWatchBookmarks="true" if bookmarks else "",
        )
        try:
            connection.request("GET", target, headers=self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise _error(answer.status, _parsed(answer.read()))
            while line := answer.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error(event["object"].get("code", 0), event["object"])
                yield event
        finally:
            self._discard(connection)

    def wait(
        self, path: str, done: Callable[[dict[str, Any] | None], Any], *, seconds: float = 30, what: str = ""
    ) -> Any:
        """Poll one object (None while absent) until `done(object)` is true; AssertionError with its state if not."""
        deadline = time.monotonic() + seconds
        while True:
            status, body = self.request("GET", path)
            if status not in (200, 404):
                raise _error(status, body)
            seen = body if status == 200 else None
            if done(seen):
                return seen
            assert time.monotonic() < deadline, f"{what or path}: not after {seconds} s; last seen: {json.dumps(seen)}"
            time.sleep(0.05)

    def close(self) -> None:
        """Close every thread's connection."""
        with self._lock:
            connections, self._all = self._all, []
        for connection in connections:
            connection.close()
        self._mine = threading.local()

    def _demand(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json") -> Any:
        status, answer = self.request(method, path, body, content_type=content_type)
        if not 200 <= status < 300:
            raise _error(status, answer)
        return answer

    def _connection(self) -> http.client.HTTPSConnection:
        connection = getattr(self._mine, "connection", None)
        if connection is None:
            connection = self._mine.connection = self._open(self._timeout_s)
        elif time.monotonic() - getattr(self._mine, "used", 0.0) > IDLE_SECONDS_MAX:
            connection.close()  # http.client opens it again by itself
        return connection

    def _open(self, timeout_s: float) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._tls)
        with self._lock:
            self._all.append(connection)
        return connection

    def _discard(self, connection: http.client.HTTPSConnection) -> None:
        connection.close()
        with self._lock, contextlib.suppress(ValueError):
            self._all.remove(connection)


GROUPS = {
    "coordination.k8s.io/v1": ("leases",),
    "resource.k8s.io/v1": ("resourceclaims", "resourceclaimtemplates", "resourceslices", "deviceclasses"),
    "resource.k8s.io/v1beta2": ("devicetaintrules",),
    "rbac.authorization.k8s.io/v1": ("roles", "rolebindings", "clusterroles", "clusterrolebindings"),
    "apiextensions.k8s.io/v1": ("customresourcedefinitions",),
    "admissionregistration.k8s.io/v1": ("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
    "scheduling.k8s.io/v1": ("priorityclasses",),
    "storage.k8s.io/v1": ("storageclasses",),
    "policy/v1": ("poddisruptionbudgets",),
    "batch/v1": ("jobs",),
    "apps/v1": ("deployments",),
    "fairlead.dev/v1alpha1": (
        "gangjobs", "queues", "pools", "nodetopologies", "queueviews", "fairnesspolicies", "quotaexceptions",
        "pricebooks", "reservations", "switchboards",
    ),
}  # fmt: skip
_GROUP_OF = {plural: group for group, plurals in GROUPS.items() for plural in plurals}


def path(plural: str, namespace: str | None = None, name: str | None = None, sub: str | None = None) -> str:
    """Spell the path of a collection, an object or a subresource; a plural that is not in GROUPS is core v1."""
    group = _GROUP_OF.get(plural)
    parts = [f"/apis/{group}" if group else "/api/v1"]
    parts += ["namespaces", namespace] if namespace else []
    parts += [part for part in (plural, name, sub) if part]
    return "/".join(parts)


def _query(path: str, **query: str) -> str:
    wanted = {key: value for key, value in query.items() if value}
    return path + ("&" if "?" in path else "?") + urlencode(wanted) if wanted else path


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def _error(status: int, body: Any) -> ApiError:
    if isinstance(body, dict):
        return ApiError(status, body.get("reason", ""), body.get("message", ""), body)
    return ApiError(status, "", str(body), body)
