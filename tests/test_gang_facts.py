"""Queues, namespaces and GangJobs become facts: judged beside the watch, told once, and never run twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from fairlead.errors import Unreachable
from fairlead.model.events import Event, GangGone, GangRefused, GangSeen, QueueGone, QueueSeen
from fairlead.model.gang import Gang, PodShape
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead_operator.custom_objects import GangJob, QueueObject
from fairlead_operator.decode import decode_gang
from fairlead_operator.facts import Intake
from fairlead_operator.gang_facts import GangFacts
from fairlead_operator.objects import Plain, PriorityClass
from fairlead_operator.watch import Change

NOW = 1_772_366_405_500
ADDED, MODIFIED, DELETED = Change.ADDED, Change.MODIFIED, Change.DELETED


def decoded(value: Any, kind: Any) -> Any:
    return msgspec.json.decode(json.dumps(value), type=kind)


class Stage:
    """An intake whose facts are collected."""

    def __init__(self, accept: Any = None) -> None:
        self.facts: list[Event] = []
        self.intake = Intake(
            self.facts.append,
            accept,
            level_labels={},
            now_ms=lambda: NOW,
            rng=random.Random(1),
            defer=lambda call: None,
        )

    def take(self) -> list[Event]:
        taken, self.facts[:] = list(self.facts), []
        return taken


def queue(name: str, **spec: Any) -> QueueObject:
    found = decoded({"metadata": {"name": name}, "spec": spec}, QueueObject)
    assert isinstance(found, QueueObject)
    return found


def space(name: str, **labels: str) -> Plain:
    found = decoded({"metadata": {"name": name, "labels": labels}}, Plain)
    assert isinstance(found, Plain)
    return found


def test_a_queue_follows_the_labels_of_namespaces() -> None:
    stage = Stage()
    stage.intake.on_queue(ADDED, None, queue("q", namespaces={"selector": {"matchLabels": {"team": "a"}}}))
    stage.intake.on_namespace(ADDED, None, space("one", team="a"))
    stage.intake.on_namespace(ADDED, None, space("two"))
    first, second = stage.take()
    assert isinstance(first, QueueSeen)
    assert isinstance(second, QueueSeen)
    assert (first.queue.namespaces, second.queue.namespaces) == ((), ("one",))
    stage.intake.on_namespace(DELETED, space("one", team="a"), None)
    (third,) = stage.take()
    assert isinstance(third, QueueSeen)
    assert third.queue.namespaces == ()
    stage.intake.on_queue(DELETED, queue("q"), None)
    assert stage.take() == [QueueGone(name="q", at_ms=NOW)]


def job(name: str = "j", generation: int = 1, **more: Any) -> GangJob:
    meta = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "generation": generation, **more.pop("meta", {})}
    spec = {"queue": "q", "roles": [{"name": "w", "replicas": 1, "template": {}}], **more.pop("spec", {})}
    found = decoded({"metadata": meta, "spec": spec, "status": more.pop("status", {})}, GangJob)
    assert isinstance(found, GangJob)
    return found


def gang(found: GangJob) -> Gang:
    got = decode_gang(found, {"w": PodShape()})
    assert isinstance(got, Gang)
    return got


Accept = Callable[[GangJob], Awaitable[Gang | Refusal]]


def judge(accept: Accept, scenario: Callable[[Stage], Awaitable[None]], **more: Any) -> list[Event]:
    async def whole() -> list[Event]:
        stage = Stage(accept)
        if more:
            stage.intake.gangs = GangFacts(stage.facts.append, accept, lambda: NOW, random.Random(1), **more)
        task = asyncio.create_task(stage.intake.gangs.run())
        try:
            async with asyncio.timeout(5):
                await scenario(stage)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return stage.facts

    return asyncio.run(whole())


def test_a_gang_is_judged_once_a_generation_and_told_once() -> None:
    asked: list[int] = []

    async def accept(found: GangJob) -> Gang | Refusal:
        asked.append(found.metadata.generation)
        return gang(found)

    async def scenario(stage: Stage) -> None:
        stage.intake.on_gangjob(ADDED, None, job())
        assert await stage.intake.gangs.settled(1)
        stage.intake.on_gangjob(MODIFIED, None, job(status={"phase": "Running"}))  # our own status write
        assert await stage.intake.gangs.settled(1)
        stage.intake.on_gangjob(MODIFIED, None, job(generation=2))  # nothing that the scheduler sees has changed
        assert await stage.intake.gangs.settled(1)
        stage.intake.on_gangjob(MODIFIED, None, job(generation=3, spec={"suspend": True}))
        assert await stage.intake.gangs.settled(1)

    facts = judge(accept, scenario)
    assert asked == [1, 2, 3]
    assert [isinstance(fact, GangSeen) and fact.gang.suspended for fact in facts] == [False, True]


def test_a_refusal_is_told_and_judged_again_by_itself() -> None:
    answers: list[Gang | Refusal] = [
        refuse(Reason.TEMPLATE_REFUSED, role="w", problem="quota"),
        refuse(Reason.TEMPLATE_REFUSED, role="w", problem="quota"),
        gang(job()),
    ]

    async def accept(found: GangJob) -> Gang | Refusal:
        return answers.pop(0)

    async def scenario(stage: Stage) -> None:
        stage.intake.on_gangjob(ADDED, None, job())
        while answers:
            await asyncio.sleep(0.01)
        assert await stage.intake.gangs.settled(1)

    refused, seen = judge(accept, scenario, recheck_s=0.02)
    assert isinstance(refused, GangRefused)
    assert (refused.namespace, refused.name, refused.queue) == ("ns", "j", "q")
    assert isinstance(seen, GangSeen)


def test_priority_classes_and_queues_that_change_make_their_gangs_judged_again() -> None:
    asked: list[str] = []

    async def accept(found: GangJob) -> Gang | Refusal:
        asked.append(found.metadata.name)
        return gang(found)

    def known(name: str, default: bool = False) -> PriorityClass:
        got = decoded({"metadata": {"name": name}, "value": 1, "globalDefault": default}, PriorityClass)
        assert isinstance(got, PriorityClass)
        return got

    async def scenario(stage: Stage) -> None:
        stage.intake.on_gangjob(ADDED, None, job("plain"))
        stage.intake.on_gangjob(ADDED, None, job("high", spec={"priorityClassName": "high"}))
        stage.intake.on_gangjob(ADDED, None, job("else", spec={"queue": "r", "priorityClassName": "low"}))
        assert await stage.intake.gangs.settled(1)
        for change in (
            lambda: stage.intake.on_priority_class(ADDED, None, known("high")),
            lambda: stage.intake.on_priority_class(ADDED, None, known("usual", True)),
            lambda: stage.intake.on_queue(ADDED, None, queue("r")),
        ):
            asked.append("|")
            change()
            assert await stage.intake.gangs.settled(1)

    judge(accept, scenario)
    assert asked == ["plain", "high", "else", "|", "high", "|", "plain", "|", "else"]


def test_a_job_that_is_deleted_is_gone_once_and_a_finished_one_does_not_run_again() -> None:
    async def accept(found: GangJob) -> Gang | Refusal:
        return gang(found)

    async def scenario(stage: Stage) -> None:
        stage.intake.on_gangjob(ADDED, None, job("old", status={"phase": "Succeeded"}))
        stage.intake.on_gangjob(ADDED, None, job())
        assert await stage.intake.gangs.settled(1)
        leaving = job(meta={"deletionTimestamp": "2026-03-01T12:00:00Z"})
        stage.intake.on_gangjob(MODIFIED, None, leaving)
        stage.intake.on_gangjob(MODIFIED, None, leaving)
        stage.intake.on_gangjob(DELETED, leaving, None)

    facts = judge(accept, scenario)
    assert [type(fact) for fact in facts] == [GangSeen, GangGone]
    assert [fact.gang.name for fact in facts if isinstance(fact, GangSeen)] == ["j"]


def test_a_job_deleted_while_it_is_judged_is_not_told_as_there() -> None:
    async def scenario(stage: Stage) -> None:
        stage.intake.on_gangjob(ADDED, None, job())
        await asyncio.sleep(0.01)
        stage.intake.on_gangjob(DELETED, job(), None)
        assert await stage.intake.gangs.settled(1)

    async def slow(found: GangJob) -> Gang | Refusal:
        await asyncio.sleep(0.05)
        return gang(found)

    assert [type(fact) for fact in judge(slow, scenario)] == [GangGone]


@pytest.mark.parametrize("trouble", [Unreachable("away"), RuntimeError("a bug")])
def test_a_job_that_cannot_be_judged_now_stops_no_other_and_is_tried_again(trouble: Exception) -> None:
    troubles = [trouble]

    async def accept(found: GangJob) -> Gang | Refusal:
        if found.metadata.name == "odd" and troubles:
            raise troubles.pop()
        return gang(found)

    async def scenario(stage: Stage) -> None:
        stage.intake.on_gangjob(ADDED, None, job("odd"))
        stage.intake.on_gangjob(ADDED, None, job("fine"))
        assert await stage.intake.gangs.settled(1)
        assert [fact.gang.name for fact in stage.facts if isinstance(fact, GangSeen)] == ["fine"]
        while len(stage.facts) < 2:
            await asyncio.sleep(0.01)

    facts = judge(accept, scenario)
    assert [fact.gang.name for fact in facts if isinstance(fact, GangSeen)] == ["fine", "odd"]
