"""A proxy between the operator and the API server that fails as servers and networks fail, by a seed.

    with FaultyProxy(control_plane, seed=7) as proxy:
        proxy.faults = ROUGH
        operator = ProxiedOperator(proxy, tmp_path)
        ...
        proxy.faults = CALM

It ends TLS with the API server's own certificate, so the operator needs no other authority. The worst fault is `lost`:
the server has carried the write out, and nobody tells the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from cluster.operator_process import OperatorProcess

START_SECONDS_MAX = 20
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"})
REASONS = {409: "Conflict", 410: "Expired", 429: "TooManyRequests", 500: "InternalError"}
GANGS_AND_MEMBERS = r"/(pods|resourceclaims|services|gangjobs)(/|\?|$)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, each as a probability of a request that `only` matches (by method and path).

    `conflict`, `throttle`, `broken` answer 409 (writes), 429 with Retry-After and 500 without asking the server. `lost`
    asks the server and then cuts the connection. `slow` waits up to `slow_s` first. A watch ends after up to `cut_s`
    seconds, in the middle of a line (0: never), and is refused at its start as too old with `expired`.
    """

    conflict: float = 0.0
    throttle: float = 0.0
    broken: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    slow_s: float = 0.0
    cut_s: float = 0.0
    expired: float = 0.0
    only: re.Pattern[str] = field(default_factory=lambda: re.compile(""))


CALM = Faults()
ROUGH = Faults(
    conflict=0.04, throttle=0.03, broken=0.04, lost=0.03, slow=0.1, slow_s=0.4, cut_s=2.0, expired=0.3,
    only=re.compile(GANGS_AND_MEMBERS),
)  # fmt: skip


class FaultyProxy:
    """Start it as a context manager; `url` is where it listens, `faults` may be changed at any time.

    Attributes
    ----------
    seen : how often each fault was done, and each method was passed on.
    hold : called with (method, path, body) for every write; a threading.Event that it returns holds the write back
        until it is set, and the write then goes on to the server.
    """

    def __init__(self, plane: Any, seed: int) -> None:
        self.plane, self.faults = plane, CALM
        self.seen: Counter[str] = Counter()
        self.hold: Callable[[str, str, bytes], threading.Event | None] = lambda method, path, body: None
        self._rng = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty-proxy", daemon=True)
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._holding: set[asyncio.Task[web.Response]] = set()
        self.url = ""

    def __enter__(self) -> FaultyProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(START_SECONDS_MAX)
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(START_SECONDS_MAX)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS_MAX)
        self._loop.close()

    async def _open(self) -> None:
        towards = ssl.create_default_context(cafile=str(self.plane.ca_file))
        towards.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as in `cluster.api`
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=towards, limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
        )
        app = web.Application(client_max_size=16 << 20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        here.load_cert_chain(str(self.plane.ca_file), str(Path(self.plane.ca_file).with_suffix(".key")))
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=here).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except aiohttp.ClientError:  # the server is away: so are we
            _cut(request)
            return web.Response(status=502)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if request.query.get("watch"):
            return await self._watch(request)
        waits_for = self.hold(request.method, request.path, body) if request.method in WRITES else None
        if waits_for is not None:
            # What is on its way arrives, also when its sender has gone meanwhile.
            held = asyncio.create_task(self._held(waits_for, request, body))
            self._holding.add(held)
            held.add_done_callback(self._holding.discard)
            return await asyncio.shield(held)
        faults = self.faults
        if not faults.only.search(request.path):
            return await self._pass(request, body)
        if self._happens("slow", faults.slow):
            await asyncio.sleep(self._rng.uniform(0, faults.slow_s))
        if self._happens("throttle", faults.throttle):
            return _status(429, {"Retry-After": "1"})
        if self._happens("broken", faults.broken):
            return _status(500)
        if request.method in WRITES and self._happens("conflict", faults.conflict):
            return _status(409)
        lost = self._happens("lost", faults.lost)
        answer = await self._pass(request, body)
        if lost:
            _cut(request)
        return answer

    async def _held(self, waits_for: threading.Event, request: web.Request, body: bytes) -> web.Response:
        self.seen["held"] += 1
        while not waits_for.is_set():
            await asyncio.sleep(0.02)
        return await self._pass(request, body)

    async def _pass(self, request: web.Request, body: bytes) -> web.Response:
        assert self._session is not None
        self.seen[request.method] += 1
        target = self.plane.url + request.raw_path
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        async with self._session.request(request.method, _raw(target), data=body, headers=headers) as answer:
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in HOP_BY_HOP | {"content-length"}}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        assert self._session is not None
        faults = self.faults
        strict = faults.only.search(request.path)
        if strict and self._happens("expired", faults.expired):
            if self._rng.random() < 0.5:
                return _status(410)
            event = {"type": "ERROR", "object": json.loads(_status(410).body or b"{}")}  # type: ignore[arg-type]
            return web.Response(body=json.dumps(event).encode() + b"\n", content_type="application/json")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        async with self._session.get(_raw(self.plane.url + request.raw_path), headers=headers) as answer:
            response.set_status(answer.status)
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):  # whoever watched is gone
                await self._copy(request, answer, response, bool(strict))
        return response

    async def _copy(
        self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse, strict: bool
    ) -> None:
        """Hand on what comes, until the server ends it or its time is over; then cut it within a line."""
        clock = self._loop.time
        end = None
        while True:
            if strict and self.faults.cut_s and end is None:
                end = clock() + self._rng.uniform(0.05, self.faults.cut_s)
            try:
                async with asyncio.timeout(0.2):
                    chunk = await answer.content.readany()
            except TimeoutError:
                chunk = None
            if chunk == b"":
                return
            if end is not None and clock() >= end:
                self.seen["cut"] += 1
                if chunk:
                    await response.write(chunk[: len(chunk) // 2])
                _cut(request)
                return
            if chunk:
                await response.write(chunk)

    def _happens(self, what: str, probability: float) -> bool:
        happens = probability > 0 and self._rng.random() < probability
        self.seen[what] += int(happens)
        return happens


class ProxiedOperator(OperatorProcess):
    """An operator that reaches the API server only by the proxy."""

    def __init__(self, proxy: FaultyProxy, folder: Path, name: str = "operator-0", **settings: object) -> None:
        super().__init__(proxy.plane, folder, name, **settings)
        self._proxy = proxy

    def environment(self) -> dict[str, str]:
        """As it is without a proxy, with another address in the kubeconfig."""
        found = super().environment()
        config = Path(found["FAIRLEAD_KUBECONFIG"])
        config.write_text(config.read_text().replace(self.plane.url, self._proxy.url))
        return found


def _raw(url: str) -> Any:
    """Keep the path exactly as it was written."""
    from yarl import URL

    return URL(url, encoded=True)


def _cut(request: web.Request) -> None:
    """End the connection without a word."""
    if request.transport is not None:
        request.transport.abort()


def _status(code: int, headers: dict[str, str] | None = None) -> web.Response:
    """Answer as the API server does."""
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "played by the tests", "reason": REASONS[code], "code": code,
    }  # fmt: skip
    return web.json_response(body, status=code, headers=headers)
