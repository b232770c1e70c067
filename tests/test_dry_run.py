"""A dry run of a change of policy: it says what the change would do, and does nothing."""

from __future__ import annotations

import asyncio
import json

import httpx
import msgspec
import pytest
from builders import Stage, node, queue, tell
from typer.testing import CliRunner

from fairlead.cli.main import app as cli
from fairlead.errors import UnreadableInput
from fairlead.model.gang import GangId
from fairlead.service.engine import Engine
from fairlead.service.http_api import build_app
from fairlead.simulation import gangjob_yaml
from fairlead.simulation.dry_run import changes_of, dry_run
from fairlead.simulation.embedded import Embedded
from fairlead.world.retell import facts_of

API = "fairlead.dev/v1alpha1"


def document(kind: str, name: str, **spec) -> dict:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def a_queue(name: str, **quota) -> dict:
    more = {key: quota.pop(key) for key in ("parent", "maxJobs") if key in quota}
    return document("Queue", name, resources=[{"name": "gpu", **quota}], namespaces={"names": [name]}, **more)


def text_of(*documents: dict) -> str:
    return "\n---\n".join(msgspec.json.encode(one).decode() for one in documents)


def a_stage() -> Stage:
    """Bob holds both nodes; alice waits for one."""
    stage = Stage([node("n1", "8"), node("n2", "8")], [queue("alice", "weight=1"), queue("bob", "weight=3")])
    stage.submit("b1", "1x8 queue=bob")
    stage.submit("b2", "1x8 queue=bob")
    stage.settle()
    stage.run("b1", "b2")
    stage.submit("a", "1x8 queue=alice")
    stage.submit("b3", "1x8 queue=bob")
    stage.settle()
    return stage


def tried(stage: Stage, text: str, *deleted: str) -> dict:
    found = gangjob_yaml.read(text, now_ms=stage.now_ms, new_id=lambda _, name: GangId(name))
    changes = changes_of(found, deleted, stage.state, stage.now_ms)
    return dry_run(facts_of(stage.state, stage.now_ms), changes, stage.state.plain_rules, stage.now_ms)


def test_a_guarantee_would_stop_a_borrower_and_say_so_with_both_entitlements() -> None:
    stage = a_stage()
    version, before = stage.state.version, stage.engine.gang_views(stage.now_ms)
    found = tried(stage, text_of(a_queue("alice", guaranteed=8)))
    (stopped,) = found["stopped"]
    assert (stopped["job"], stopped["reason"], stopped["by"]) == ("bob/b1", "Reclaimed", "alice/a")
    assert (found["placed"], found["displaced"]) == (["alice/a"], ["bob/b1"])
    alice = next(one for one in found["queues"] if one["queue"] == "alice")
    assert (alice["before"]["entitled"], alice["after"]["entitled"]) == (4, 8)
    assert (alice["before"]["guaranteed"], alice["after"]["guaranteed"]) == (0, 8)
    assert (found["settled"], found["violations"]) == (True, [])
    assert stage.state.version == version
    assert stage.engine.gang_views(stage.now_ms) == before


def test_a_change_that_changes_nothing_would_do_nothing() -> None:
    stage = a_stage()
    found = tried(stage, text_of(a_queue("bob", weight=3)))
    assert [found[word] for word in ("stopped", "spared", "placed", "displaced", "refused", "problems")] == [[]] * 6
    assert all(one["before"] == one["after"] for one in found["queues"])


def test_a_limit_below_what_is_held_stops_nobody_and_refuses_what_waits() -> None:
    stage = a_stage()
    stage.delete("a")
    found = tried(stage, text_of(a_queue("bob", weight=3, limit=8)))
    assert found["stopped"] == []
    assert [(one["job"], one["reason"]) for one in found["refused"]] == [("bob/b3", "QueueAtLimit")]


def test_an_exception_or_a_switch_is_tried_like_a_queue() -> None:
    stage = a_stage()
    change = {"guaranteed": 8}
    more = document(
        "QuotaException", "more", queue="alice", change=change, owner="o", reason="r", expires="2030-01-01T00:00:00Z"
    )
    assert [one["job"] for one in tried(stage, text_of(more))["stopped"]] == ["bob/b1"]
    off = document("Switchboard", "cluster", reclaim="Off")
    assert tried(stage, text_of(more, off))["stopped"] == []


def test_a_queue_that_would_be_taken_away_takes_nobody_in() -> None:
    found = tried(a_stage(), "", "Queue/bob")
    assert ("bob/b3", "UnknownQueue") in [(one["job"], one["reason"]) for one in found["refused"]]
    assert next(one for one in found["queues"] if one["queue"] == "bob")["after"] is None


def test_a_tree_that_would_not_be_sound_is_said() -> None:
    found = tried(a_stage(), text_of(a_queue("bob", weight=3, parent="nobody")))
    assert found["problems"] == ["spec.parent: there is no queue 'nobody'; create it, or name another parent, or none"]


@pytest.mark.parametrize(
    ("text", "deleted", "says"),
    [
        ("", (), "the change is empty"),
        ("", ("Queue/none",), "there is no Queue 'none'"),
        ("", ("Node/n1",), "delete: 'Node/n1' names nothing"),
        (text_of(document("Job", "x")), (), "kind: 'Job' is not one of"),
    ],
)
def test_what_is_no_change_of_policy_is_refused(text, deleted, says) -> None:
    with pytest.raises(UnreadableInput, match=says):
        tried(a_stage(), text, *deleted)


def test_a_job_is_no_change_of_policy() -> None:
    role = {"name": "w", "replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}
    with pytest.raises(UnreadableInput, match="no GangJobs"):
        tried(a_stage(), text_of(document("GangJob", "x", queue="bob", roles=[role])))


# --- the copy ---------------------------------------------------------------------------------------------------------


def test_a_copy_stands_where_the_original_does_and_decides_the_same() -> None:
    stage = a_stage()
    stage.take(*changes_of(gangjob_yaml.read(
        text_of(a_queue("alice", guaranteed=8)), now_ms=0, new_id=lambda _, name: GangId(name)
    ), (), stage.state, stage.now_ms))  # fmt: skip
    for step in (lambda: None, stage.settle, lambda: stage.release("b1"), stage.settle):
        step()
        copy = Engine(stage.state.plain_rules)
        copy.take(facts_of(stage.state, stage.now_ms))
        phases = [{view.id: (view.phase, view.attempt) for view in one.gang_views(stage.now_ms)} for one in
                  (stage.engine, copy)]  # fmt: skip
        assert phases[0] == phases[1]
        assert copy.state.queue_gpu_milli == stage.state.queue_gpu_milli
        assert [view.entitled_gpus for view in copy.queue_views()] == [
            view.entitled_gpus for view in stage.engine.queue_views()
        ]
    assert {tell(effect) for effect in copy.cycle(stage.now_ms).effects} <= {"place a on n1"}


# --- the doors --------------------------------------------------------------------------------------------------------

SCENARIO = {
    "fleet": {"nodes": [{"name": "n", "count": 2, "gpus": 8}]},
    "queues": [{"name": "alice"}, {"name": "bob", "weight": 3}],
    "running": [
        {"name": name, "queue": "bob", "roles": [{"replicas": 1, "gpus": 8}], "members": [{"node": at}]}
        for name, at in (("b1", "n-1"), ("b2", "n-2"))
    ],
    "waiting": [{"name": "a", "queue": "alice", "roles": [{"replicas": 1, "gpus": 8}]}],
}  # fmt: skip


def test_the_command_asks_about_a_scenario_file(tmp_path) -> None:
    scenario, change = tmp_path / "world.yaml", tmp_path / "change.yaml"
    scenario.write_text(json.dumps(SCENARIO))
    change.write_text(text_of(a_queue("alice", guaranteed=8)))
    ran = CliRunner().invoke(cli, ["dry-run", str(change), "--scenario", str(scenario)])
    assert ran.exit_code == 1, ran.output
    assert "would be stopped: bob/b1, for alice/a: 8 borrowed GPUs were reclaimed" in ran.output
    assert "0 -> 8" in ran.output
    change.write_text(text_of(a_queue("bob", weight=3)))
    ran = CliRunner().invoke(cli, ["dry-run", str(change), "--scenario", str(scenario), "--json"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.output)["stopped"] == []


class Doors:
    """A stage behind the HTTP API."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    def dry_run(self, text, deleted):
        return lambda: tried(self.stage, text, *deleted)


def test_the_http_api_answers_and_refuses() -> None:
    stage = a_stage()
    app = build_app(stage.engine, now_ms=lambda: stage.now_ms, submissions=Doors(stage))

    async def call(path: str, text: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
            return await client.post(path, content=text)

    answer = asyncio.run(call("/v1/dry-run", text_of(a_queue("alice", guaranteed=8))))
    assert answer.status_code == 200
    assert [one["job"] for one in answer.json()["stopped"]] == ["bob/b1"]
    assert asyncio.run(call("/v1/dry-run?delete=Queue/alice,Queue/bob", "")).json()["stopped"] == []


class NoBooks:
    """Keep nothing."""

    def record(self, facts, now_ms):
        return ()

    def full(self, now_ms):
        return False


def test_a_fleet_in_memory_is_asked_without_being_touched() -> None:
    fleet = Embedded("hgx-h100", books=NoBooks(), start_ms=1_800_000_000_000, nodes=2)
    work = fleet.dry_run(text_of(a_queue("alice", guaranteed=8)), ())
    assert work()["queues"][0]["after"]["guaranteed"] == 8
    assert fleet.engine.state.queues == {}
