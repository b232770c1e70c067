"""Read-only calls of an API server with the standard library alone: the official client takes 0.3 s to import."""

from __future__ import annotations

import http.client
import ssl
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from fairlead.errors import FairleadError, Forbidden, NotFound, Unreachable, UnreadableInput
from fairlead_operator.kube_config import KubeConfig

PAGE = 2_000
GROUP = "/apis/fairlead.dev/v1alpha1"


class ApiServer:
    """One connection that is kept open between calls. `timeout_s` is the deadline of each request."""

    def __init__(self, config: KubeConfig, *, timeout_s: float = 10.0) -> None:
        """Prepare; nothing is sent yet. Raises UnreadableInput for a bad address or certificate."""
        parts = urlsplit(config.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UnreadableInput(f"kubeconfig: {config.server!r} is not the address of a server")
        self.config, self._base = config, parts.path.rstrip("/")
        tls = config.tls()
        if tls is None:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        else:
            self._connection = _Tls(parts.hostname, parts.port, timeout_s, tls, config.server_name)

    def items(self, path: str) -> list[dict[str, Any]]:
        """Return all objects of a list, page by page.

        Raises
        ------
        Forbidden, NotFound, Unreachable
            As the server said.
        """
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.get(path + "?" + urlencode({"limit": PAGE, **({"continue": token} if token else {})}))
            found += page.get("items") or []
            token = str((page.get("metadata") or {}).get("continue") or "")
            if not token:
                return found

    def get(self, path: str) -> dict[str, Any]:
        """Return one object or one page of a list."""
        headers = {"Accept": "application/json"}
        if self.config.token:
            headers["Authorization"] = f"Bearer {self.config.token}"
        try:
            self._connection.request("GET", self._base + path, headers=headers)
            response = self._connection.getresponse()
            status, raw = response.status, response.read()
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            why = str(problem) or type(problem).__name__
            raise Unreachable(f"no answer from the API server {self.config.server}: {why}") from problem
        try:
            answer = msgspec.json.decode(raw)
        except msgspec.DecodeError as problem:
            raise Unreachable(f"{self.config.server}{path} answered {status}, not JSON") from problem
        if status >= 400:
            raise _refusal(status, answer if isinstance(answer, dict) else {}, path)
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.config.server}{path} did not answer with an object")
        return answer


class _Tls(http.client.HTTPSConnection):
    """HTTPS that may expect another name in the certificate than the one it connects to."""

    def __init__(self, host: str, port: int | None, timeout_s: float, tls: ssl.SSLContext, name: str) -> None:
        super().__init__(host, port, timeout=timeout_s, context=tls)
        self._tls, self._name = tls, name or host

    def connect(self) -> None:
        """Connect and check the certificate."""
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def _refusal(status: int, answer: dict[str, Any], path: str) -> FairleadError:
    text = str(answer.get("message") or f"{path}: HTTP {status}")
    if status == 401:
        return Forbidden(f"the API server does not know you: {text}; log in again")
    if status == 403:
        return Forbidden(text)
    if status == 404:
        return NotFound(text)
    return Unreachable(f"the API server answered {status}: {text}")
