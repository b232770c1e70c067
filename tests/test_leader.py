"""The election under a clock of our own: no two write at once, whatever is slow, lost or stopped."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from fairlead.errors import Unreachable
from fairlead_operator.kube_client import ApiError
from fairlead_operator.leader import Elector, Terms


class Clock:
    """Time that moves when nobody can run; `sleep` waits for it."""

    def __init__(self) -> None:
        self.ms = 1_000_000
        self.sleepers: list[tuple[int, int, asyncio.Event]] = []
        self.count = 0

    def now(self) -> int:
        return self.ms

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        self.count += 1
        self.sleepers.append((self.ms + max(1, int(seconds * 1000)), self.count, event))
        await event.wait()

    async def run_to(self, until_ms: int) -> None:
        while True:
            for _ in range(20):
                await asyncio.sleep(0)
            self.sleepers.sort(key=lambda entry: entry[:2])
            if not self.sleepers or self.sleepers[0][0] > until_ms:
                self.ms = max(self.ms, until_ms)
                return
            due, _, event = self.sleepers.pop(0)
            self.ms = max(self.ms, due)
            event.set()


class Door:
    """One elector's way to the shared Lease; may be slow, cut off, or lose answers."""

    def __init__(self, server: Server, clock: Clock) -> None:
        self.server, self.clock = server, clock
        self.cut = False
        self.lose_answers = False
        self.slow_s = 0.0

    async def request(self, method: str, path: str, body: Any = None, **options: Any) -> bytes:
        assert options["retry"] is False
        if self.cut:
            await self.clock.sleep(options["deadline_s"])
            raise Unreachable("cut")
        if self.slow_s:
            await self.clock.sleep(self.slow_s)
        answer = self.server.handle(method, body)
        if self.lose_answers and method != "GET":
            await self.clock.sleep(options["deadline_s"])
            raise Unreachable("no answer")
        return answer


class Server:
    """The Lease with compare-and-swap."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    def handle(self, method: str, body: Any) -> bytes:
        if method == "GET":
            if self.lease is None:
                raise ApiError(404, "NotFound", "none")
            return json.dumps(self.lease).encode()
        if method == "POST" and self.lease is not None:
            raise ApiError(409, "AlreadyExists", "there")
        if method == "PUT":
            assert self.lease is not None
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", "changed")
        self.version += 1
        self.lease = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return b"{}"

    @property
    def holder(self) -> str:
        return "" if self.lease is None else str(self.lease["spec"]["holderIdentity"])


class Stage:
    """A server and electors that run as tasks."""

    def __init__(self, **terms: float) -> None:
        self.clock, self.server = Clock(), Server()
        self.terms = Terms(**terms)
        self.told: list[tuple[str, bool, int]] = []
        self.doors: dict[str, Door] = {}
        self.electors: dict[str, Elector] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def add(self, name: str) -> Elector:
        self.doors[name] = Door(self.server, self.clock)
        elector = Elector(
            self.doors[name],
            namespace="ns",
            name="lease",
            identity=name,
            rng=random.Random(name),
            terms=self.terms,
            on_change=lambda leading: self.told.append((name, leading, self.clock.ms)),
            mono_ms=self.clock.now,
            wall_ms=self.clock.now,
            sleep=self.clock.sleep,
        )
        self.electors[name] = elector
        self.tasks.append(asyncio.create_task(elector.run()))
        return elector

    async def run(self, seconds: float) -> None:
        """Move on, and at every step see that at most one elector may write."""
        end = self.clock.ms + int(seconds * 1000)
        while self.clock.ms < end:
            await self.clock.run_to(min(end, self.clock.ms + 100))
            writers = [name for name, elector in self.electors.items() if elector.is_leader()]
            assert len(writers) <= 1, writers

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def play(scenario: Any) -> None:
    async def whole() -> None:
        stage = Stage()
        try:
            await scenario(stage)
        finally:
            await stage.close()

    asyncio.run(whole())


def test_the_first_wins_settles_and_keeps_it() -> None:
    async def scenario(stage: Stage) -> None:
        start = stage.clock.ms
        one = stage.add("one")
        await stage.run(1)
        assert one.is_leader()
        assert not one.leading.is_set()  # the admission policy has to notice first
        await stage.run(60)
        assert stage.told == [("one", True, start + 2_000)]
        stage.add("two")
        await stage.run(60)
        assert stage.server.holder == "one"
        assert len(stage.told) == 1
        assert stage.server.lease is not None
        assert stage.server.lease["spec"]["leaseTransitions"] == 1

    play(scenario)


def test_the_fence_counts_from_before_the_renewal_left() -> None:
    async def scenario(stage: Stage) -> None:
        one = stage.add("one")
        stage.doors["one"].slow_s = 1.0
        await stage.run(2.5)  # GET took 1 s, then POST left at 1 s and answered at 2 s
        sent_ms = 1_000_000 + 1_000
        assert one.write_until() == pytest.approx((sent_ms + 12_000) / 1000)

    play(scenario)


def test_cut_off_it_stops_writing_before_a_rival_can_take_over() -> None:
    async def scenario(stage: Stage) -> None:
        one = stage.add("one")
        await stage.run(10)
        two = stage.add("two")
        await stage.run(10)
        stage.doors["one"].cut = True
        await stage.run(40)
        assert stage.server.holder == "two"
        assert [(name, leading) for name, leading, _ in stage.told] == [("one", True), ("one", False), ("two", True)]
        lost, won = stage.told[1][2], stage.told[2][2]
        assert won - lost >= 3_000  # the margin and the time to settle lie between them
        assert not one.is_leader()
        assert one.write_until() == 0.0
        assert two.is_leader()
        stage.doors["one"].cut = False
        await stage.run(30)
        assert stage.server.holder == "two"

    play(scenario)


def test_a_process_that_was_stopped_finds_its_time_over() -> None:
    async def scenario(stage: Stage) -> None:
        one = stage.add("one")
        await stage.run(10)
        fence = one.write_until()
        stage.clock.ms += 60_000  # SIGSTOP: nothing of ours ran
        assert not one.is_leader()
        assert fence == one.write_until() < stage.clock.ms / 1000
        await stage.run(0.5)
        assert ("one", False) in [(name, leading) for name, leading, _ in stage.told]

    play(scenario)


def test_lost_answers_do_not_make_it_believe_more_than_it_was_told() -> None:
    async def scenario(stage: Stage) -> None:
        one = stage.add("one")
        await stage.run(10)
        before = one.write_until()
        stage.doors["one"].lose_answers = True  # the server renews, we never hear of it
        await stage.run(8)
        assert one.write_until() in (before, 0.0)
        stage.doors["one"].lose_answers = False
        await stage.run(20)
        assert one.is_leader()

    play(scenario)


def test_a_lease_that_another_has_is_given_up_at_once() -> None:
    async def scenario(stage: Stage) -> None:
        one = stage.add("one")
        await stage.run(10)
        assert stage.server.lease is not None
        stage.server.lease["spec"]["holderIdentity"] = "by-hand"
        stage.server.lease["metadata"]["resourceVersion"] = "777"
        await stage.run(6)
        assert not one.is_leader()
        await stage.run(4)
        assert stage.server.holder == "by-hand"  # its time has not run out
        await stage.run(20)
        assert stage.server.holder == "one"

    play(scenario)


def test_a_lease_given_back_is_taken_without_waiting() -> None:
    async def scenario(stage: Stage) -> None:
        one = stage.add("one")
        await stage.run(10)
        two = stage.add("two")
        await stage.run(5)
        stage.tasks[0].cancel()
        await asyncio.sleep(0)
        await one.release()
        assert stage.server.holder == ""
        assert one.write_until() == 0.0
        await stage.run(3)
        assert two.is_leader()

    play(scenario)
