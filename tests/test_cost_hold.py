"""A queue whose costs alarm starts nothing new: when exactly, who lifts it, and that both opinions agree on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import builders
import pytest
from cap_worlds import CHAINS, NOW, QUEUES, above, world_of
from cost_books import DAY, Days

from fairlead.errors import UnreadableInput
from fairlead.model import codec
from fairlead.model.events import CostAlarmed, QueueSeen
from fairlead.model.gang import Tier
from fairlead.model.queue_caps import Acknowledged, OnCostAnomaly, QueueCaps, acknowledged
from fairlead.model.reasons import Reason
from fairlead.model.tenancy import Queue
from fairlead.planning.caps import Caps
from fairlead.planning.verify_caps import check_admission, starting_nothing
from fairlead.service.congestion import CAUSES
from fairlead.service.cost_watch import CostWatch, spending
from fairlead.service.standing_views import queue_views
from fairlead.service.view_json import queue_doc
from fairlead.simulation import gangjob_yaml
from fairlead.world.retell import facts_of
from fairlead_operator.custom_objects import AcknowledgedSpec, QueueSpec
from fairlead_operator.decode_queues import queue_caps
from fairlead_operator.overviews import Standing, queue_status

HOLD = QueueCaps(on_cost_anomaly=OnCostAnomaly.HOLD)
TOLD = CostAlarmed(queue="org", day="2026-11-20", what="spend", until_ms=NOW + 1, at_ms=0)


def seen(through: str) -> QueueCaps:
    return replace(HOLD, acknowledged=Acknowledged(through=through, actor="ops", reason="a campaign"))


@pytest.mark.parametrize(
    ("caps", "told", "holds"),
    [
        (HOLD, TOLD, True),
        (HOLD, replace(TOLD, until_ms=NOW), False),
        (QueueCaps(), TOLD, False),
        (HOLD, replace(TOLD, queue="alone"), False),
        (seen("2026-11-19"), TOLD, True),
        (seen("2026-11-20"), TOLD, False),
        (seen("2026-12-01"), TOLD, False),
    ],
)
def test_both_opinions_agree_on_what_is_held(caps: QueueCaps, told: CostAlarmed, holds: bool) -> None:
    world = world_of([], {"org": caps}, alarms=[told])
    held = {"org", "team", "lab"} if holds else set()
    gang, counted = builders.gang("new"), Caps(world, CHAINS)
    assert {name for name in QUEUES if counted.starts_nothing(name)} == starting_nothing(world) == held
    refusal = counted.refusal(gang, 1_000)
    assert (refusal is not None and refusal.reason is Reason.COST_ANOMALY) is holds
    complaints = list(check_admission(gang, 1_000, world, above))
    assert complaints == (["team/new: started although the costs of queue org alarm"] if holds else [])
    assert counted.may_grow(gang, 1_000) is not holds
    assert counted.refusal(gang, 0) is None
    assert list(check_admission(gang, 0, world, above)) == []


def test_a_refusal_says_who_can_lift_it_and_when_it_ends() -> None:
    refusal = Caps(world_of([], {"org": HOLD}, alarms=[TOLD]), CHAINS).refusal(builders.gang("new"), 1_000)
    assert refusal is not None
    assert refusal.retry_at_ms == TOLD.until_ms
    assert "an administrator sets spec.costAnomalyAcknowledged of the Queue through 2026-11-20" in refusal.message
    assert CAUSES[Reason.COST_ANOMALY] == "cost-alarm"


def test_what_journals_have_of_queues_keeps_its_bytes() -> None:
    plain = codec.encode(QueueSeen(queue=Queue(name="team"), at_ms=0))
    assert b"cost_anomaly" not in plain
    assert b"acknowledged" not in plain
    fact = QueueSeen(queue=Queue(name="team", caps=seen("2026-11-20")), at_ms=0)
    assert codec.decode(codec.encode(fact)) == fact
    assert codec.decode(codec.encode(TOLD)) == TOLD
    assert codec.subject(TOLD) == "org"


def test_a_dry_run_and_a_restart_know_what_is_held() -> None:
    stage = builders.Stage([builders.node("n1", "8")], [builders.queue("team", "costs=hold")])
    told = replace(TOLD, queue="team", until_ms=stage.now_ms + DAY, at_ms=stage.now_ms)
    stage.take(told)
    assert told in list(facts_of(stage.state, stage.now_ms))


def test_a_queue_that_is_held_shows_it() -> None:
    stage = builders.Stage([builders.node("n1", "8")], [builders.queue("team", "costs=hold")])
    stage.take(replace(TOLD, queue="team", until_ms=1_800_057_600_000, at_ms=stage.now_ms))
    (view,) = queue_views(stage.state, stage.engine.world(stage.now_ms))
    said = "starts nothing new until 2027-01-16T00:00:00Z: what it cost on 2026-11-20 alarms (spend)"
    assert queue_doc(view)["notes"] == [view.cost_hold] == [said]
    status, _ = queue_status(view, Standing(), None, {}, NOW, "it cost more")
    (condition,) = [one for one in status["conditions"] if one["type"] == "CostAnomaly"]
    assert (condition["status"], condition["reason"], condition["message"]) == ("True", "Held", f"it cost more. {said}")
    status, _ = queue_status(view, Standing(), None, {}, NOW)
    assert [one["message"] for one in status["conditions"] if one["type"] == "CostAnomaly"] == [said]


SPEC = """
apiVersion: fairlead.dev/v1alpha1
kind: Queue
metadata: {name: team}
spec:
  resources: [{name: gpu, guaranteed: 1}]
  onCostAnomaly: hold
  costAnomalyAcknowledged: {through: "2026-11-20", actor: ops, reason: a campaign}
"""


def test_it_is_written_as_in_a_queue() -> None:
    (queue,) = gangjob_yaml.read(SPEC, now_ms=0, new_id=lambda *_: "x").queues
    given = AcknowledgedSpec(through="2026-11-20", actor="ops", reason="a campaign")
    spec = QueueSpec(on_cost_anomaly="hold", cost_anomaly_acknowledged=given)
    assert queue.caps == queue_caps("team", spec) == seen("2026-11-20")
    with pytest.raises(UnreadableInput, match=r"spec.onCostAnomaly: 'stop' is not known; use one of: notify, hold"):
        queue_caps("team", QueueSpec(on_cost_anomaly="stop"))


@pytest.mark.parametrize(
    ("through", "actor", "reason", "message"),
    [
        ("2026-11-31", "ops", "x", "at.through: '2026-11-31' is no day"),
        ("20261120", "ops", "x", "at.through: '20261120' is no day"),
        ("2026-11-20", " ", "x", "at.actor: is empty"),
        ("2026-11-20", "ops", "", "at.reason: is empty"),
    ],
)
def test_what_acknowledges_nothing_is_refused(through: str, actor: str, reason: str, message: str) -> None:
    with pytest.raises(UnreadableInput, match=message):
        acknowledged(through, actor, reason, field="at")


def test_the_scheduler_is_told_of_the_last_day_that_alarms_until_a_day_after_it(tmp_path: Any) -> None:
    days = Days(tmp_path).usual(8).holds((20, Tier.IN_QUOTA)).holds((20, Tier.IN_QUOTA))
    watch = CostWatch(days.books)
    assert watch.facts({}, days.now) == []
    assert watch.look()
    assert len(watch.alarms) == 2
    (fact,) = watch.facts({}, days.now)
    assert fact == CostAlarmed(
        queue="vision", day="2026-11-10", what="spend", until_ms=days.now + DAY, at_ms=days.now
    )  # fmt: skip
    assert watch.facts({"vision": replace(fact, day="2026-11-09")}, days.now) == [fact]
    assert watch.facts({"vision": fact}, days.now) == []
    assert watch.facts({}, fact.until_ms) == []
    stage = builders.Stage([builders.node("n1", "8")], [builders.queue("vision", "costs=hold")])
    world = replace(stage.engine.world(stage.now_ms), now_ms=days.now)
    assert spending(days.books)(world) == [fact]
    days.books.close()
