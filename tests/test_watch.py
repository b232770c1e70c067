"""The reflector against a small server on loopback that answers, drops and refuses on demand."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fairlead.clock import monotonic_ms
from fairlead_operator.kube_client import KubeClient
from fairlead_operator.kube_config import KubeConfig
from fairlead_operator.objects import NAMESPACES, Meta, Plain
from fairlead_operator.watch import Change, Reflector

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def thing(name: str, version: int, uid: str = "", **labels: str) -> dict[str, Any]:
    meta = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version), "labels": labels}
    return {"kind": "Namespace", "metadata": meta}


def status(code: int, reason: str, message: str = "no") -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


class Server:
    """Answers lists from `items` at `version`; each watch runs the next script in `watches`, then stays silent."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self.version = 10
        self.page = 1000
        self.lists: list[dict[str, str]] = []
        self.watched: list[dict[str, str]] = []
        self.watches: list[list[Any]] = []
        self.list_failures: list[web.Response] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self.watch(request)
        self.lists.append(dict(request.query))
        if self.list_failures:
            return self.list_failures.pop(0)
        start = int(request.query.get("continue") or 0)
        found = list(self.items.values())
        more = str(start + self.page) if start + self.page < len(found) else ""
        meta = {"resourceVersion": str(self.version), "continue": more}
        return web.json_response({"metadata": meta, "items": found[start : start + self.page]})

    async def watch(self, request: web.Request) -> web.StreamResponse:
        self.watched.append(dict(request.query))
        script = self.watches.pop(0) if self.watches else []
        if script and isinstance(script[0], web.Response):
            return script[0]
        response = web.StreamResponse()
        await response.prepare(request)
        for step in script:
            if step == "drop":
                assert request.transport is not None
                request.transport.abort()
                return response
            if step == "end":
                return response
            data = step if isinstance(step, bytes) else json.dumps(step).encode() + b"\n"
            await response.write(data)
        await asyncio.sleep(30)
        return response


@asynccontextmanager
async def serving(handler: Handler, **options: Any) -> AsyncIterator[KubeClient]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with KubeClient(KubeConfig(server=f"http://127.0.0.1:{port}"), rng=random.Random(1), **options) as client:
            yield client
    finally:
        await runner.cleanup()


Told = list[tuple[str, str, str]]


async def follow(
    server: Server, until: Callable[[Reflector[Plain], Told], bool], *, after: Any = None
) -> tuple[Any, Told]:
    """Run a reflector against `server` until the condition holds; returns it and what it told."""
    told: Told = []

    def on_change(change: Change, old: Plain | None, new: Plain | None) -> None:
        seen = new or old
        assert seen is not None
        told.append((change.value, seen.metadata.name, seen.metadata.resource_version))

    async with serving(server.handle) as client:
        reflector: Reflector[Plain] = Reflector(client, NAMESPACES, on_change, rng=random.Random(2))
        task = asyncio.create_task(reflector.run())
        try:
            async with asyncio.timeout(8):
                if after is not None:
                    await reflector.synced.wait()
                    after(reflector)
                while not until(reflector, told):
                    assert not task.done(), task.result()
                    await asyncio.sleep(0.005)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return reflector, told


def test_a_list_in_pages_then_events_and_bookmarks() -> None:
    server = Server()
    server.items = {name: thing(name, at) for at, name in enumerate("abcde", start=1)}
    server.page = 2
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Namespace", "metadata": {"resourceVersion": "99"}}}
    events = [
        {"type": "MODIFIED", "object": thing("a", 11)},
        {"type": "ADDED", "object": thing("f", 12, big="x" * 300_000)},  # longer than aiohttp's own line limit
        {"type": "DELETED", "object": thing("b", 13)},
        bookmark,
        "end",
    ]
    server.watches = [events]
    reflector, told = asyncio.run(follow(server, lambda r, t: len(server.watched) == 2))
    assert told[:5] == [("ADDED", name, str(at)) for at, name in enumerate("abcde", start=1)]
    assert told[5:] == [("MODIFIED", "a", "11"), ("ADDED", "f", "12"), ("DELETED", "b", "13")]
    assert [query.get("continue") for query in server.lists] == [None, "2", "4"]
    assert all(query["limit"] == "500" for query in server.lists)
    first, second = server.watched
    assert (first["resourceVersion"], second["resourceVersion"]) == ("10", "99")
    assert first["allowWatchBookmarks"] == "true"
    assert 300 <= int(first["timeoutSeconds"]) <= 600
    assert {item.metadata.name for item in reflector.store} == set("acdef")
    assert reflector.store.get("f") is not None
    assert reflector.store.get("b") is None


def test_a_dropped_connection_resumes_where_it_broke() -> None:
    server = Server()
    server.watches = [[{"type": "ADDED", "object": thing("a", 11)}, b'{"type":"ADDED","obj', "drop"]]
    _, told = asyncio.run(follow(server, lambda r, t: len(server.watched) == 2))
    assert told == [("ADDED", "a", "11")]
    assert [query["resourceVersion"] for query in server.watched] == ["10", "11"]
    assert len(server.lists) == 1


def test_it_says_how_old_a_change_may_be_that_it_was_blind_for() -> None:
    server = Server()
    server.watches = [
        [{"type": "ADDED", "object": thing("a", 11)}, "drop"],
        [status(500, "InternalError")],
        [status(500, "InternalError")],
        [{"type": "ADDED", "object": thing("b", 12)}],
    ]
    gaps: dict[str, int] = {}

    async def scenario() -> None:
        async with serving(server.handle) as client:

            def on_change(change: Change, old: Plain | None, new: Plain | None) -> None:
                assert new is not None
                gaps[new.metadata.name] = reflector.gap_ms()

            reflector: Reflector[Plain] = Reflector(client, NAMESPACES, on_change, rng=random.Random(2))
            task = asyncio.create_task(reflector.run())
            async with asyncio.timeout(8):
                while "b" not in gaps:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(1.1)
            assert reflector.gap_ms() == 0  # on a live stream a change is told as it happens
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    assert gaps["a"] < 100  # nearly nothing
    assert 300 < gaps["b"] < 5_000  # three waits of at least 0.1, 0.2 and 0.4 s halved


@pytest.mark.parametrize("how", ["event", "answer"])
def test_410_lists_again_and_tells_the_difference(how: str) -> None:
    server = Server()
    server.items = {"a": thing("a", 1), "b": thing("b", 2), "c": thing("c", 3)}
    refusal = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    server.watches = [[refusal] if how == "event" else [status(410, "Expired")]]

    def later(reflector: Reflector[Plain]) -> None:
        server.items = {
            "a": thing("a", 1),
            "b": thing("b", 20),
            "c": thing("c", 30, uid="another"),
            "d": thing("d", 25),
        }
        server.version = 40

    async def scenario() -> tuple[Any, Told]:
        server.list_failures = []
        return await follow(server, lambda r, t: r.relists >= 2 and len(server.watched) >= 2, after=later)

    reflector, told = asyncio.run(scenario())
    assert told[3:] == [("DELETED", "c", "3"), ("MODIFIED", "b", "20"), ("ADDED", "c", "30"), ("ADDED", "d", "25")]
    assert server.watched[1]["resourceVersion"] == "40"
    held = reflector.store.get("c")
    assert held is not None
    assert held.metadata.uid == "another"


def test_errors_of_the_server_are_waited_out() -> None:
    server = Server()
    server.items = {"a": thing("a", 1)}
    server.list_failures = [status(500, "InternalError") for _ in range(3)]
    server.watches = [[status(429, "TooManyRequests")], [status(500, "InternalError")]]
    started = monotonic_ms()
    reflector, told = asyncio.run(follow(server, lambda r, t: len(server.watched) == 3))
    assert told == [("ADDED", "a", "1")]
    assert monotonic_ms() - started < 8_000
    assert len(server.lists) == 4
    assert reflector.relists == 1


def test_our_own_write_is_not_undone_by_an_older_event() -> None:
    events = [
        {"type": "MODIFIED", "object": thing("a", 12)},  # before our write
        {"type": "MODIFIED", "object": thing("a", 20)},  # our write itself
        {"type": "MODIFIED", "object": thing("a", 21)},
        {"type": "DELETED", "object": thing("a", 22)},
    ]

    async def scenario() -> tuple[list[Any], Told]:
        told: Told = []

        def on_change(change: Change, old: Plain | None, new: Plain | None) -> None:
            seen = new or old
            assert seen is not None
            told.append((change.value, seen.metadata.name, seen.metadata.resource_version))

        reflector: Reflector[Plain] = Reflector(None, NAMESPACES, on_change, rng=random.Random(1))  # type: ignore[arg-type]
        reflector._line(json.dumps({"type": "ADDED", "object": thing("a", 5)}).encode())
        reflector.note_write(Plain(metadata=Meta(name="a", uid="uid-a", resource_version="20")))
        for event in events:
            reflector._line(json.dumps(event).encode())
        reflector.note_write(
            Plain(metadata=Meta(name="a", uid="uid-a", resource_version="20"))
        )  # an answer that was slow
        return list(reflector.store), told

    held, told = asyncio.run(scenario())
    assert told == [("ADDED", "a", "5"), ("MODIFIED", "a", "20"), ("MODIFIED", "a", "21"), ("DELETED", "a", "22")]
    assert held == []


def test_one_object_that_cannot_be_read_spoils_no_other() -> None:
    server = Server()
    bad = {"metadata": {"name": "bad", "uid": "uid-bad", "resourceVersion": "2", "labels": 7}}
    server.items = {"a": thing("a", 1), "bad": bad, "b": thing("b", 3)}
    reflector, told = asyncio.run(follow(server, lambda r, t: len(server.watched) == 1))
    assert [name for _, name, _ in told] == ["a", "b"]
    assert reflector.undecodable == 1
