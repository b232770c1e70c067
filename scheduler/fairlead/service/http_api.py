"""The HTTP API: views, explanations and metrics. Jobs may be handed in where `Submissions` is given.

The server knows no users: it listens on the loopback address and whoever reaches it sees everything. In a cluster the
API server is the door for jobs, and its RBAC decides who sees what.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec

from fairlead.errors import FairleadError, MissingExtra, NotFound
from fairlead.model.quota_exception import QuotaException
from fairlead.placement.mig_plan import RecutPlan
from fairlead.service import view_json
from fairlead.world.views import Fragmentation, GangView, NodeView, PoolView, QueueView

try:
    from fastapi import FastAPI, Query, Request, Response
except ImportError as missing:  # pragma: no cover - the extra is installed wherever tests run
    raise MissingExtra("the HTTP API needs fastapi: pip install 'fairlead[api]'") from missing

from fairlead.service.metrics import CONTENT_TYPE, Metrics

MAX_BODY_BYTES = 1 << 20
_STATUS = {2: 400, 3: 503, 4: 404, 5: 403, 6: 409, 7: 500}
"""Exit codes of the command line (design section 4) as HTTP status codes."""


class Views(Protocol):
    """What the API shows. All of it is computed by the engine; calls are cheap and never block."""

    def gang_views(self, now_ms: int) -> Sequence[GangView]:
        """Return all gangs, in no particular order."""
        ...

    def queue_views(self) -> Sequence[QueueView]:
        """Return all queues."""
        ...

    def exceptions(self) -> Sequence[QuotaException]:
        """Return all quota exceptions, whether they act or not."""
        ...

    def node_views(self) -> Sequence[NodeView]:
        """Return all nodes."""
        ...

    def pool_views(self) -> Sequence[PoolView]:
        """Return all pools."""
        ...

    def recut_plan(self) -> RecutPlan:
        """Return which idle GPUs to cut anew."""
        ...

    def fragmentation(self) -> Fragmentation:
        """Return how broken up the free GPUs are."""
        ...


class Submissions(Protocol):
    """Where jobs are handed in; the embedded shell has one, a cluster has its API server instead."""

    def submit(self, text: str, namespace: str) -> Sequence[str]:
        """Take in YAML or JSON documents; return ``Kind/namespace/name`` of each. Raises UnreadableInput."""
        ...

    def delete(self, namespace: str, name: str) -> None:
        """Ask for a gang's end. Raises NotFound."""
        ...

    def dry_run(self, text: str, deleted: Sequence[str]) -> Callable[[], dict[str, object]]:
        """Return the work that finds out what a change of policy would do, for a thread. Raises UnreadableInput."""
        ...


def build_app(
    views: Views,
    *,
    now_ms: Callable[[], int],
    metrics: Metrics | None = None,
    ready: Callable[[], bool] = lambda: True,
    submissions: Submissions | None = None,
) -> FastAPI:
    """Return the application. Errors come as ``{"error": sentence}`` with the status that fits their exit code."""
    app = FastAPI(title="Fairlead", version="v1", docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json")

    @app.exception_handler(FairleadError)
    async def _refuse(_: Request, problem: FairleadError) -> Response:
        return _json({"error": str(problem)}, _STATUS.get(problem.exit_code, 500))

    _add_health(app, views, now_ms, metrics, ready)
    _add_views(app, views, now_ms)
    if submissions is not None:
        _add_submissions(app, submissions)
    return app


def _add_health(
    app: FastAPI, views: Views, now_ms: Callable[[], int], metrics: Metrics | None, ready: Callable[[], bool]
) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """Say that the process answers."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        """Say whether state has been rebuilt; 503 until then."""
        return Response("ok\n" if ready() else "not ready\n", 200 if ready() else 503, media_type="text/plain")

    if metrics is None:
        return

    @app.get("/metrics")
    async def exposition() -> Response:
        """Return the page that Prometheus reads."""
        metrics.observe_gangs(views.gang_views(now_ms()))
        metrics.observe_pools(views.pool_views())
        metrics.observe_exceptions(views.exceptions(), now_ms())
        metrics.observe_fragmentation(views.fragmentation())
        return Response(metrics.exposition(), media_type=CONTENT_TYPE)


def _add_views(app: FastAPI, views: Views, now_ms: Callable[[], int]) -> None:
    def listed(items: Sequence[Mapping[str, Any]]) -> Response:
        return _json({"as_of_ms": now_ms(), "items": items})

    @app.get("/v1/gangs")
    async def gangs(
        namespace: Annotated[str | None, Query()] = None,
        queue: Annotated[str | None, Query()] = None,
        phase: Annotated[str | None, Query()] = None,
    ) -> Response:
        """List gangs by namespace, name; without the members of their allocations."""
        wanted = {"namespace": namespace, "queue": queue, "phase": phase}
        chosen = [
            view
            for view in views.gang_views(now_ms())
            if all(value is None or str(getattr(view, name)) == value for name, value in wanted.items())
        ]
        chosen.sort(key=lambda view: (view.namespace, view.name))
        return listed([view_json.gang_doc(view, allocation=False) for view in chosen])

    @app.get("/v1/gangs/{namespace}/{name}")
    async def gang(namespace: str, name: str) -> Response:
        """Return one gang with its allocation; 404 where there is none."""
        every = views.gang_views(now_ms())
        names = {str(view.id): f"{view.namespace}/{view.name}" for view in every}
        for view in every:
            if (view.namespace, view.name) == (namespace, name):
                return _json({"as_of_ms": now_ms(), **view_json.gang_doc(view, names=names)})
        raise NotFound(f"there is no GangJob {namespace}/{name}")

    @app.get("/v1/queues")
    async def queues() -> Response:
        """List queues by name."""
        return listed([view_json.queue_doc(view) for view in sorted(views.queue_views(), key=lambda v: v.name)])

    @app.get("/v1/nodes")
    async def nodes() -> Response:
        """List nodes by name."""
        return listed([view_json.node_doc(view) for view in sorted(views.node_views(), key=lambda v: v.name)])

    @app.get("/v1/pools")
    async def pools() -> Response:
        """List pools by name."""
        return listed([view_json.pool_doc(view) for view in sorted(views.pool_views(), key=lambda v: v.name)])

    @app.get("/v1/mig")
    async def mig() -> Response:
        """Propose how to cut idle GPUs anew for the MIG instances that wait, and what that costs."""
        return _json({"as_of_ms": now_ms(), **view_json.recut_doc(views.recut_plan())})

    @app.get("/v1/fragmentation")
    async def fragmentation() -> Response:
        """Return how broken up the free GPUs are, and the largest gang that each level has room for."""
        return _json({"as_of_ms": now_ms(), **view_json.fragmentation_doc(views.fragmentation())})

    @app.get("/v1/usage")
    async def usage() -> Response:
        """List held and lost GPU time by queue, of the gangs that are known now."""
        return listed(view_json.usage_docs(views.gang_views(now_ms()), views.queue_views()))


def _add_submissions(app: FastAPI, submissions: Submissions) -> None:
    @app.post("/v1/gangs")
    async def submit(request: Request, namespace: Annotated[str, Query()] = "default") -> Response:
        """Take in YAML or JSON documents of kind GangJob, Queue, Pool and so on; all of them or none."""
        text = await _body(request)
        if isinstance(text, Response):
            return text
        return _json({"accepted": list(submissions.submit(text, namespace))}, 201)

    @app.post("/v1/dry-run")
    async def dry_run(request: Request, delete: Annotated[str, Query()] = "") -> Response:
        """Say what a change of policy would stop, start and refuse; `delete` is ``Queue/a,Pool/b``. Changes nothing."""
        text = await _body(request)
        if isinstance(text, Response):
            return text
        work = submissions.dry_run(text, [name for name in delete.split(",") if name])
        return _json(await asyncio.to_thread(work))

    @app.delete("/v1/gangs/{namespace}/{name}")
    async def delete(namespace: str, name: str) -> Response:
        """Ask for a gang's end; 404 where there is none."""
        submissions.delete(namespace, name)
        return _json({"deleted": f"{namespace}/{name}"}, 202)


async def _body(request: Request) -> str | Response:
    """Return the body as text, or the answer to one that cannot be."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return _json({"error": f"the body is larger than {MAX_BODY_BYTES} bytes: split it"}, 413)
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as problem:
        return _json({"error": f"the body is not UTF-8: {problem.reason} at byte {problem.start}"}, 400)


def _json(value: object, status: int = 200) -> Response:
    """Answer with JSON; msgspec, because a list of 10,000 gangs must not take a second."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")
