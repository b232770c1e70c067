"""The HTTP session to the API server: deadlines, bounded retries, and no write past the leader's fence.

Raw JSON over aiohttp, because the generated client decodes a hundred times slower and fails on bindings that succeeded.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from fairlead.clock import monotonic_ms
from fairlead.errors import FairleadError, Unreachable
from fairlead_operator.kube_config import KubeConfig
from fairlead_operator.objects import Record, as_json

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_RETRIED = frozenset({429, 500, 502, 503, 504})
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_LEAST_S = 0.05  # a write with less time than this before the fence is not begun
_TOKEN_AGE_S = 30.0


class ApiError(FairleadError):
    """The API server said no. `reason` is its token (Conflict, AlreadyExists, Invalid …), `retry_after_s` its wish."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float | None = None) -> None:
        """Keep the parts of the server's Status object."""
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # a class attribute in the base, here by status
        """What a command line ends with: 5 forbidden, 4 not found, else 3."""
        return {401: 5, 403: 5, 404: 4}.get(self.status, 3)


class NotLeader(FairleadError):
    """Our lease has (nearly) run out, so this write was not sent."""


class _Status(Record, frozen=True, kw_only=True):
    """The server's own words about a failure."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Called as things happen, for metrics: `write_error` (method, status or 0 for no answer), `conflict`, `retry`."""

    write_error: Callable[[str, int], None] = lambda method, status: None
    conflict: Callable[[str], None] = lambda method: None
    retry: Callable[[str], None] = lambda method: None


class KubeHttp:
    """One session to one API server; use it as ``async with KubeHttp(config) as http``.

    `fence` returns the moment, in monotonic seconds (`fairlead.clock.monotonic_ms` / 1000), after which no write may be
    outstanding, or None for no such bound. At most `in_flight` requests are under way; watches do not count.
    """

    def __init__(
        self,
        config: KubeConfig,
        *,
        fence: Callable[[], float | None] = lambda: None,
        hooks: Hooks | None = None,
        rng: random.Random | None = None,
        in_flight: int = 64,
        retries: int = 4,
        user_agent: str = "fairlead-operator",
    ) -> None:
        """Prepare; nothing is sent before `__aenter__`."""
        self.config = config
        self.fence = fence
        self._hooks = hooks or Hooks()
        self._rng = rng or random.Random()
        self._retries = retries
        self._slots = asyncio.Semaphore(in_flight)
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._token = config.token
        self._token_read_s = -_TOKEN_AGE_S

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self.config.tls() or True, limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"Accept": "application/json", "User-Agent": self._user_agent},
            auto_decompress=True,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the session and with it every watch."""
        if self._session is not None:
            await self._session.close()
            self._session = None
            await asyncio.sleep(0.05)  # TLS transports close in later turns of the event loop

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        deadline_s: float = 15.0,
        retry: bool | None = None,
        fenced: bool = True,
    ) -> bytes:
        """Send one request and return the answer's body; `deadline_s` bounds all tries and waits together.

        Tries again on 429 and, where `retry` (default: all but POST and JSON patches), on 500, 502, 503, 504 and broken
        connections; a second try of a PUT or DELETE may answer 409 or 404 for what the first one did. `fenced` False is
        for the lease itself, which a leader must be able to renew late.

        Raises
        ------
        ApiError
            The server said no.
        NotLeader
            A write that could not end before the fence; it was not sent.
        Unreachable
            No answer in time; a write may or may not have happened.
        """
        again = (method != "POST" and content_type != JSON_PATCH) if retry is None else retry
        end_s = monotonic_ms() / 1000 + deadline_s
        payload = None if body is None else as_json(body)
        fenced = fenced and method in _WRITES
        attempt = 0
        while True:
            try:
                async with asyncio.timeout(max(0.0, end_s - monotonic_ms() / 1000)):
                    await self._slots.acquire()
            except TimeoutError as error:
                raise Unreachable(f"{method} {path}: no free slot within {deadline_s:g} s") from error
            try:
                return await self._once(method, path, payload, params, content_type, end_s, fenced)
            except ApiError as error:
                if not self._worth(error, again):
                    self._count(method, error.status)
                    raise
                failure: ApiError | Unreachable = error
            except Unreachable as error:
                if not again:
                    self._count(method, 0)
                    raise
                failure = error
            finally:
                self._slots.release()
            attempt += 1
            wait_s = self._pause(failure, attempt)
            if attempt > self._retries or monotonic_ms() / 1000 + wait_s >= end_s:
                self._count(method, failure.status if isinstance(failure, ApiError) else 0)
                raise failure
            self._hooks.retry(method)
            await asyncio.sleep(wait_s)

    @staticmethod
    def _worth(error: ApiError, again: bool) -> bool:
        """Whether another try can help: a 429 was never carried out, the others only where twice is once."""
        return error.status == 429 or (again and error.status in _RETRIED)

    def _pause(self, failure: Exception, attempt: int) -> float:
        """Seconds before the next try: what the server asked for at least, doubling, with jitter."""
        asked_s = failure.retry_after_s if isinstance(failure, ApiError) else None
        return float((asked_s or 0.0) + min(5.0, 0.1 * 2**attempt) * self._rng.uniform(0.5, 1.0))

    def _count(self, method: str, status: int) -> None:
        """Tell the metrics about a write that failed for good; a conflict is counted as such, not as an error."""
        if method not in _WRITES:
            return
        if status == 409:
            self._hooks.conflict(method)
        elif status != 404:
            self._hooks.write_error(method, status)

    async def _once(
        self,
        method: str,
        path: str,
        payload: bytes | None,
        params: Mapping[str, str] | None,
        content_type: str,
        end_s: float,
        fenced: bool,
    ) -> bytes:
        """Send one try; its own deadline, and the one it tells the server, end before the fence."""
        left_s = end_s - monotonic_ms() / 1000
        query = dict(params or {})
        if fenced and (fence_s := self.fence()) is not None:
            left_s = min(left_s, fence_s - monotonic_ms() / 1000)
            if left_s < _LEAST_S:
                raise NotLeader(f"{method} {path}: not sent, the lease runs out")
            query["timeout"] = f"{int(left_s * 1000)}ms"
        headers = self._headers()
        if payload is not None:
            headers["Content-Type"] = content_type
        timeout = aiohttp.ClientTimeout(total=max(left_s, 0.001))
        try:
            async with self._opened.request(
                method, self._url(path), data=payload, params=query, headers=headers, timeout=timeout,
                server_hostname=self.config.server_name or None,
            ) as response:  # fmt: skip
                raw = await response.read()
        except TimeoutError as error:
            raise Unreachable(f"{method} {path}: no answer in time") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"{method} {path}: {_told(error)}") from error
        if response.status >= 400:
            if response.status == 401:
                self._token_read_s = -_TOKEN_AGE_S
            raise api_error(response.status, raw, response.headers.get("Retry-After"))
        return raw

    @asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str], *, idle_s: float
    ) -> AsyncGenerator[AsyncIterator[bytes]]:
        """Open a watch; yields its lines as they come. Ends with the server; silent for `idle_s` it is `Unreachable`.

        Raises
        ------
        ApiError
            The server said no.
        Unreachable
            The connection broke or fell silent.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=idle_s)
        try:
            async with self._opened.get(
                self._url(path), params=dict(params), headers=self._headers(), timeout=timeout,
                server_hostname=self.config.server_name or None,
            ) as response:  # fmt: skip
                if response.status >= 400:
                    raise api_error(response.status, await response.read(), response.headers.get("Retry-After"))
                yield _lines(response)
        except TimeoutError as error:
            raise Unreachable(f"watch {path}: silent for {idle_s:g} s") from error
        except aiohttp.ClientError as error:
            raise Unreachable(f"watch {path}: {_told(error)}") from error

    @property
    def _opened(self) -> aiohttp.ClientSession:
        """The session, which must be open."""
        assert self._session is not None, "use it as a context manager"
        return self._session

    def _url(self, path: str) -> URL:
        """The full URL; names are already what Kubernetes allows in a path."""
        return URL(self.config.server + path)

    def _headers(self) -> dict[str, str]:
        """The bearer token, read again from its file now and then because kubelets renew it."""
        now_s = monotonic_ms() / 1000
        if self.config.token_file and now_s - self._token_read_s >= _TOKEN_AGE_S:
            self._token_read_s = now_s
            with suppress(OSError):  # keep the last token; where there never was one, the server answers 401
                self._token = Path(self.config.token_file).read_text(encoding="utf-8").strip()
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}


def _told(error: Exception) -> str:
    """What an exception says, or at least what it is."""
    return str(error) or type(error).__name__


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Split a body into lines of any length (aiohttp's own reader refuses long ones)."""
    rest = bytearray()
    async for chunk in response.content.iter_any():
        rest += chunk
        if b"\n" in chunk:
            *whole, tail = bytes(rest).split(b"\n")
            rest = bytearray(tail)
            for line in whole:
                if line:
                    yield line


def api_error(status: int, raw: bytes, retry_after: str | None = None) -> ApiError:
    """Build the exception for an answer of 400 or more; what is no Status object is quoted in part."""
    try:
        told = msgspec.json.decode(raw, type=_Status)
    except msgspec.DecodeError:
        told = _Status(message=raw[:200].decode(errors="replace"))
    wait_s = float(retry_after) if retry_after and retry_after.isdigit() else None
    return ApiError(status, told.reason or "Unknown", told.message or "no further words", wait_s)
