"""Notices against an API server in memory: who is asked to save, how, and what stands in the status meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fairlead.clock import now_ms
from fairlead.model.effects import Notice, Withdraw
from fairlead.model.events import StopRefused
from fairlead.model.gang import Checkpoint
from fairlead.model.reasons import Reason, refuse

from .fake_kube import api_error
from .kube_world import UID, World, perform, place, stop

FILE, SIGNAL = Checkpoint(watches=True), Checkpoint(signal="SIGTERM")
ASKED = "fairlead.dev/checkpoint-request"


class Saving(World):
    """The gang says how it hears of a notice."""

    checkpoint = FILE

    def sheet(self, gang):
        found = super().sheet(gang)
        return found and replace(found, checkpoint=self.checkpoint, grace_ms=60_000)

    def asked(self):
        return [pod["metadata"].get("annotations", {}).get(ASKED) for pod in self.api.of("pods").values()]

    def graces(self):
        return [pod["metadata"].get("deletionGracePeriodSeconds") for pod in self.api.of("pods").values()]

    def status(self):
        return self.api.objects["gangjobs", "team", "train"]["status"].get("notice")


@pytest.fixture
def world(monkeypatch):
    return Saving(monkeypatch)


def notice(by="", after_ms=0):
    begins_ms = now_ms() + after_ms
    cause = refuse(Reason.PREEMPTED)
    return Notice(
        gang=UID, attempt=1, cause=cause, requeue=True, begins_ms=begins_ms, until_ms=begins_ms + 60_000, by=by
    )


async def until(holds):
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


def test_a_program_that_watches_a_file_is_told_by_an_annotation_and_goes_on_running(world):
    asked = notice()

    async def then():
        await until(lambda: world.asked() == [str(asked.begins_ms)] * 3)
        assert world.graces() == [None] * 3
        assert world.status()["reason"] == "Preempted"
        assert world.status()["untilMs"] == asked.until_ms

    perform(world, place(), asked, then=then)


def test_a_program_with_a_signal_is_told_by_the_deletion_of_its_pods_with_its_whole_grace(world):
    world.checkpoint = SIGNAL

    async def then():
        await until(lambda: all(world.graces()))
        assert all(59 <= grace <= 60 for grace in world.graces())
        assert world.asked() == [None] * 3
        assert not world.free()  # it saves, and holds its devices meanwhile

    perform(world, place(), notice(), then=then)


def test_nobody_is_told_before_his_turn(world):
    async def then():
        await asyncio.sleep(0.1)
        assert world.asked() == [None] * 3
        assert world.status()["attempt"] == 1
        await until(lambda: all(world.asked()))

    perform(world, place(), notice(after_ms=400), then=then)


def test_a_stop_ends_a_notice_whose_turn_has_not_come(world):
    async def then():
        await world.cluster.perform(stop(Reason.PREEMPTED))
        await asyncio.sleep(0.3)
        assert world.asked() == [None] * 3

    perform(world, place(), notice(after_ms=200), then=then)


def test_budgets_are_asked_before_the_notice_and_a_no_leaves_the_gang_in_peace(world):
    world.api.fault = lambda method, path, body: api_error(429, "TooManyRequests") if "eviction" in path else None
    facts = perform(world, place(), notice(by="other"))[1]
    assert isinstance(facts[0], StopRefused)
    assert world.status() is None
    assert world.asked() == [None] * 3


def test_a_budget_that_says_no_after_the_notice_takes_it_off_the_status_again(world):
    async def then():
        await until(lambda: all(world.asked()))
        world.api.fault = lambda method, path, body: api_error(429, "TooManyRequests") if "eviction" in path else None
        (fact,) = await world.cluster.perform(stop(Reason.PREEMPTED, by="other"))
        assert isinstance(fact, StopRefused)
        assert world.status() is None
        assert world.asked() == [None] * 3  # or the program would take the old notice for a new one
        assert world.graces() == [None] * 3

    perform(world, place(), notice(by="other"), then=then)


def test_a_server_that_does_not_answer_is_asked_again(world):
    left = [4]

    def fault(method, path, body):
        if method == "PATCH" and "/pods/" in path and left[0]:
            left[0] -= 1
            return api_error(500, "InternalError")
        return None

    world.api.fault = fault

    async def then():
        await until(lambda: all(world.asked()))

    perform(world, place(), notice(), then=then)


# --- taken back -----------------------------------------------------------------------------------------------------


def withdraw():
    return Withdraw(gang=UID, attempt=1)


def test_a_notice_that_is_withdrawn_is_taken_off_the_status_and_the_pods(world):
    async def later():
        await world.cluster.perform(notice())
        await until(lambda: all(world.asked()))
        await world.cluster.perform(withdraw())
        assert world.asked() == [None, None, None]
        assert world.status() is None
        assert world.api.of("gangjobs")["train"]["status"]["phase"] == "Running"
        assert all(grace is None for grace in world.graces())

    perform(world, place(), then=later)


def test_nobody_is_asked_whose_notice_was_withdrawn_before_its_turn(world):
    world.checkpoint = SIGNAL

    async def later():
        await world.cluster.perform(notice(after_ms=200))
        await world.cluster.perform(withdraw())
        await asyncio.sleep(0.4)
        assert all(grace is None for grace in world.graces())
        assert world.status() is None

    perform(world, place(), then=later)


def test_a_notice_and_its_withdrawal_do_not_overtake_each_other(world):
    """The notice still waits for the budgets' answers when it is taken back."""

    async def later():
        given = asyncio.create_task(world.cluster.perform(notice(by="other")))
        await asyncio.sleep(0)
        taken_back = asyncio.create_task(world.cluster.perform(withdraw()))
        await given
        await taken_back
        await asyncio.sleep(0.1)
        assert world.asked() == [None, None, None]
        assert world.status() is None

    perform(world, place(), then=later)


def test_who_was_asked_once_and_goes_on_can_be_asked_again(world):
    async def later():
        await world.cluster.perform(notice())
        await until(lambda: all(world.asked()))
        await world.cluster.perform(withdraw())
        again = notice()
        await world.cluster.perform(again)
        await until(lambda: world.asked() == [str(again.begins_ms)] * 3)

    perform(world, place(), then=later)


def test_a_withdrawal_that_nobody_knows_does_nothing(world):
    assert perform(world, withdraw()) == [()]
