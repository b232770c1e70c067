"""The operator's own small page: is it alive, is it ready, and its metrics. Nothing about any tenant is served here."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from fairlead.errors import UnreadableInput
from fairlead.service.metrics import CONTENT_TYPE, Metrics


class Health:
    """Serves /healthz, /readyz and /metrics; use it as ``async with Health(…)``. `port` is known once it is open."""

    def __init__(self, listen: str, metrics: Metrics, ready: Callable[[], bool]) -> None:
        """Prepare to listen on ``host:port``; port 0 takes any free one."""
        host, _, port = listen.rpartition(":")
        if not port.isdecimal():
            raise UnreadableInput(f"http_listen: {listen!r} is not host:port; write for example 127.0.0.1:8080")
        self.port = int(port)
        self._host = host.strip("[]")
        self._metrics = metrics
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Health:
        """Open the port."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._exposition)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        if self.port == 0:
            self.port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the port."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        """The event loop turns."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        """State has been rebuilt and we lead; a standby is not ready, and says so."""
        ready = self._ready()
        self._metrics.ready.set(int(ready))
        return web.Response(
            text="ok\n" if ready else "not ready: standby, or rebuilding\n", status=200 if ready else 503
        )

    async def _exposition(self, _: web.Request) -> web.Response:
        """What Prometheus reads."""
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})
