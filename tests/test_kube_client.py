"""The HTTP session against a small server on loopback: what is tried again, what is not, and the leader's fence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fairlead.clock import monotonic_ms
from fairlead.errors import Unreachable, UnreadableInput
from fairlead_operator.kube_client import MERGE_PATCH, ApiError, Hooks, KubeClient, NotLeader
from fairlead_operator.kube_config import KubeConfig, load_config
from fairlead_operator.objects import NAMESPACES

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def thing(name: str, version: int, uid: str = "", **labels: str) -> dict[str, Any]:
    meta = {"name": name, "uid": uid or f"uid-{name}", "resourceVersion": str(version), "labels": labels}
    return {"kind": "Namespace", "metadata": meta}


def status(code: int, reason: str, message: str = "no") -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "reason": reason, "message": message}, status=code)


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


class Answers:
    """Gives the next of `answers` to each request and remembers them."""

    def __init__(self, *answers: web.Response | float | str) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.types: list[str] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, dict(request.query), await request.read()))
        self.types.append(request.headers.get("Content-Type", ""))
        answer = self.answers.pop(0) if self.answers else web.json_response(thing("a", 1))
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return web.json_response(thing("late", 1))
        if isinstance(answer, str):
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answer


def ask(answers: Answers, call: Callable[[KubeClient], Awaitable[Any]], **options: Any) -> Any:
    async def scenario() -> Any:
        async with serving(answers.handle, **options) as client:
            return await call(client)

    return asyncio.run(scenario())


def test_reads_and_puts_are_tried_again_after_500_and_broken_connections() -> None:
    answers = Answers(status(500, "InternalError"), "drop", status(503, "ServiceUnavailable"))
    assert ask(answers, lambda c: c.get(NAMESPACES, "a")).metadata.name == "a"
    assert len(answers.seen) == 4
    answers = Answers(status(500, "InternalError"))
    ask(answers, lambda c: c.replace(NAMESPACES, "a", {"metadata": {}}, sub="status"))
    assert [method for method, _, _ in answers.seen] == ["PUT", "PUT"]


def test_a_create_is_tried_again_only_where_it_was_surely_not_carried_out() -> None:
    answers = Answers(status(429, "TooManyRequests"))
    ask(answers, lambda c: c.create(NAMESPACES, {}))
    assert len(answers.seen) == 2
    answers = Answers(status(500, "InternalError"))
    with pytest.raises(ApiError, match="InternalError"):
        ask(answers, lambda c: c.create(NAMESPACES, {}))
    assert len(answers.seen) == 1
    answers = Answers("drop")
    with pytest.raises(Unreachable):
        ask(answers, lambda c: c.create(NAMESPACES, {}))
    assert len(answers.seen) == 1


def test_retry_after_is_honoured_and_bounded_by_the_deadline() -> None:
    slow = status(429, "TooManyRequests")
    slow.headers["Retry-After"] = "1"
    answers, started = Answers(slow), monotonic_ms()
    ask(answers, lambda c: c.get(NAMESPACES, "a"))
    assert monotonic_ms() - started >= 1_000
    never = status(429, "TooManyRequests")
    never.headers["Retry-After"] = "100"
    answers, started = Answers(never), monotonic_ms()
    with pytest.raises(ApiError) as caught:
        ask(answers, lambda c: c.get(NAMESPACES, "a"))
    assert caught.value.retry_after_s == 100
    assert monotonic_ms() - started < 5_000


def test_retries_have_a_bound() -> None:
    answers = Answers(*(status(500, "InternalError") for _ in range(20)))
    with pytest.raises(ApiError):
        ask(answers, lambda c: c.get(NAMESPACES, "a"), retries=2)
    assert len(answers.seen) == 3


def test_what_the_server_says_is_typed_and_counted() -> None:
    seen: list[Any] = []
    hooks = Hooks(
        write_error=lambda method, code: seen.append((method, code)), conflict=lambda method: seen.append(method)
    )
    answers = Answers(
        status(409, "Conflict", "changed"), status(422, "Invalid", "spec.x"), web.Response(status=404, text="?")
    )

    async def three(client: KubeClient) -> list[ApiError]:
        errors: list[ApiError] = []
        for name in "abc":
            try:
                await client.patch_merge(NAMESPACES, name, {})
            except ApiError as error:
                errors.append(error)
        return errors

    errors = ask(answers, three, hooks=hooks)
    assert [(e.status, e.reason) for e in errors] == [(409, "Conflict"), (422, "Invalid"), (404, "Unknown")]
    assert seen == ["PATCH", ("PATCH", 422)]
    assert errors[2].exit_code == 4
    assert answers.types[0] == MERGE_PATCH


def test_no_write_passes_the_fence() -> None:
    answers = Answers()
    with pytest.raises(NotLeader):
        ask(answers, lambda c: c.create(NAMESPACES, {}), fence=lambda: monotonic_ms() / 1000 - 1)
    with pytest.raises(NotLeader):
        ask(answers, lambda c: c.delete(NAMESPACES, "a"), fence=lambda: 0.0)
    assert answers.seen == []
    ask(answers, lambda c: c.get(NAMESPACES, "a"), fence=lambda: 0.0)  # reading is free
    assert len(answers.seen) == 1


def test_a_write_ends_before_the_fence_and_tells_the_server_so() -> None:
    answers, started = Answers(20.0), monotonic_ms()
    with pytest.raises((Unreachable, NotLeader)):
        ask(
            answers,
            lambda c: c.replace(NAMESPACES, "a", {}),
            fence=lambda: started / 1000 + 0.6,
        )
    assert monotonic_ms() - started < 2_000
    told_ms = int(answers.seen[0][1]["timeout"].removesuffix("ms"))
    assert 0 < told_ms <= 600
    assert len(answers.seen) == 1


def test_at_most_so_many_are_in_flight() -> None:
    flying = [0, 0]

    async def handle(request: web.Request) -> web.StreamResponse:
        flying[0] += 1
        flying[1] = max(flying)
        await asyncio.sleep(0.02)
        flying[0] -= 1
        return web.json_response(thing("a", 1))

    async def scenario() -> None:
        async with serving(handle, in_flight=3) as client:
            await asyncio.gather(*(client.get(NAMESPACES, "a") for _ in range(12)))

    asyncio.run(scenario())
    assert flying[1] == 3


def test_a_token_is_read_again_from_its_file(tmp_path: Any) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    seen: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers.get("Authorization", ""))
        return status(401, "Unauthorized") if len(seen) == 1 else web.json_response(thing("a", 1))

    async def scenario() -> None:
        async with serving(handle) as client:
            client.config = KubeConfig(server=client.config.server, token_file=str(file))
            with pytest.raises(ApiError) as caught:
                await client.get(NAMESPACES, "a")
            assert caught.value.exit_code == 5
            file.write_text("two\n")
            await client.get(NAMESPACES, "a")

    asyncio.run(scenario())
    assert seen == ["Bearer one", "Bearer two"]


KUBECONFIG = """
current-context: main
contexts: [{name: main, context: {cluster: c, user: u, namespace: team}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443/", certificate-authority: ca.pem}}]
users: [{name: u, user: {tokenFile: token}}]
"""


def test_a_kubeconfig_is_read_with_what_stands_beside_it(tmp_path: Any) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG)
    (tmp_path / "ca.pem").write_text("PEM")
    got = load_config(env={"KUBECONFIG": str(file)})
    assert (got.server, got.namespace, got.ca_pem) == ("https://127.0.0.1:6443", "team", "PEM")
    assert got.token_file == str(tmp_path / "token")
    with pytest.raises(UnreadableInput, match="certificate or key cannot be read"):
        got.tls()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("tokenFile: token", "exec: {command: x}"), "exec is not supported"),
        (("current-context: main", "current-context: other"), "contexts has no entry 'other'"),
        (
            ("certificate-authority: ca.pem", "certificate-authority-data: '***'"),
            "authority-data is not base64",
        ),
        (("users: [", "users: ["), "ca.pem: cannot be read"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_why(tmp_path: Any, change: tuple[str, str], says: str) -> None:
    file = tmp_path / "config"
    file.write_text(KUBECONFIG.replace(*change))
    with pytest.raises(UnreadableInput, match=says):
        load_config(str(file))


def test_without_any_server_it_says_what_to_set(tmp_path: Any) -> None:
    with pytest.raises(UnreadableInput, match="set KUBECONFIG"):
        load_config(env={"HOME": str(tmp_path)})
