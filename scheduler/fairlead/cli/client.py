"""The HTTP client of the command lines: one request, one deadline, errors as the exit codes know them.

Only the standard library: start-up time counts more than convenience here.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from fairlead.errors import FairleadError, Forbidden, NotFound, Unreachable, UnreadableInput

DEFAULT_SERVER = "http://127.0.0.1:8080"
TIMEOUT_S = 10.0


class Server:
    """A Fairlead HTTP API at `url`. Every call has the deadline `timeout_s`."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        """Check the address; nothing is sent yet. Raises UnreadableInput."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as problem:
            raise UnreadableInput(f"--server: {url!r}: {problem}") from problem
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UnreadableInput(f"--server: {url!r} is no address; write for example {DEFAULT_SERVER}")
        self.url, self._secure, self._host = url, parts.scheme == "https", parts.hostname
        self._port = port
        self._base = parts.path.rstrip("/")
        self._timeout_s = timeout_s

    def items(self, path: str, **query: str | None) -> list[Any]:
        """Return the items of a list."""
        return self.dated(path, **query)[0]

    def dated(self, path: str, **query: str | None) -> tuple[list[Any], int]:
        """Return the items of a list and the server's time, UTC ms."""
        answer = self.call("GET", path, query=query)
        items, as_of_ms = answer.get("items"), answer.get("as_of_ms")
        if not isinstance(items, list) or not isinstance(as_of_ms, int):
            raise Unreachable(f"{self.url}{path} did not answer with a list; is it a Fairlead server?")
        return items, as_of_ms

    def call(
        self, method: str, path: str, *, query: Mapping[str, str | None] | None = None, body: bytes | None = None
    ) -> dict[str, Any]:
        """Send one request and return the JSON object of the answer.

        Raises
        ------
        Unreachable, NotFound, Forbidden, UnreadableInput
            By what went wrong; the text is the server's own where it sent one.
        """
        asked = {name: value for name, value in (query or {}).items() if value is not None}
        target = self._base + quote(path) + ("?" + urlencode(asked) if asked else "")
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, target, body=body, headers={"Accept": "application/json"})
            response = connection.getresponse()
            status, raw = response.status, response.read()
        except (OSError, http.client.HTTPException) as problem:
            reason = str(problem) or type(problem).__name__
            raise Unreachable(f"no answer from {self.url}: {reason}; is `fairlead up` running?") from problem
        finally:
            connection.close()
        try:
            answer = json.loads(raw)
        except ValueError as problem:
            raise Unreachable(f"{self.url}{path} answered {status}, not JSON; is it a Fairlead server?") from problem
        if not isinstance(answer, dict):
            raise Unreachable(f"{self.url}{path} did not answer with an object; is it a Fairlead server?")
        if status >= 400:
            raise _refusal(status, str(answer.get("error") or answer.get("detail") or f"{path}: HTTP {status}"))
        return answer


def _refusal(status: int, text: str) -> FairleadError:
    kinds: dict[int, type[FairleadError]] = {
        400: UnreadableInput,
        401: Forbidden,
        403: Forbidden,
        404: NotFound,
        413: UnreadableInput,
        422: UnreadableInput,
    }
    return kinds.get(status, Unreachable)(text)
