"""What a new leader reads back from claims, pods and statuses."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from fairlead.model.events import (
    GangSeen,
    Intended,
    MemberEnded,
    MemberReleased,
    Nominated,
    Recovered,
    Remembered,
    StopIntended,
)
from fairlead.model.gang import Gang, Member, Placement, Role, Tier
from fairlead.model.reasons import Reason
from fairlead.model.rules import Rules
from fairlead.world.state import ClusterState
from fairlead_operator import pods
from fairlead_operator.custom_objects import GangJob
from fairlead_operator.device_objects import Claim
from fairlead_operator.objects import Pod
from fairlead_operator.recover import recover

NOW = 1_767_225_700_000


def placement(nodes=("n1", "n2"), gpus=2):
    devices = tuple(f"gpu-{i}" for i in range(gpus))
    members = tuple(Member(role="worker", index=i, rank=i, node=n, devices=devices) for i, n in enumerate(nodes))
    return Placement(members=members, level="rack", domain="r1", pace_bytes_per_s=7)


class Cluster:
    """Builds the objects that placing writes, and lets a test spoil them."""

    def __init__(self) -> None:
        self.jobs: list[dict] = []
        self.pods: list[dict] = []
        self.claims: list[dict] = []

    def job(self, name="a", attempt=1, phase="Running", place=None, **status):
        template = {"spec": {"containers": [{"name": "main", "image": "example"}]}}
        made = pods.Attempt(
            number=attempt, placement=place or placement(), tier=Tier.BORROWED, placed_at_ms=NOW - 60_000
        )
        roles = [{"name": "worker", "replicas": 2, "devices": {"count": 2}, "template": template}]
        self.jobs.append(
            {
                "metadata": {"name": name, "namespace": "team", "uid": f"uid-{name}"},
                "spec": {"queue": "research", "roles": roles},
                "status": {"phase": phase, "attempt": attempt, "allocation": pods.allocation_status(made), **status},
            }
        )
        return self

    def objects(self, name="a", attempt=1, place=None, bound=2, phase="Running", born="2026-01-01T00:00:00Z"):
        place = place or placement()
        template = {"spec": {"containers": [{"name": "main", "image": "example"}]}}
        sheet = pods.JobSheet(
            uid=f"uid-{name}", namespace="team", name=name, queue="research", templates={"worker": template}
        )
        made = pods.Attempt(number=attempt, placement=place, tier=Tier.BORROWED, placed_at_ms=NOW - 60_000)
        for member in place.members:
            pod, claim = pods.pod_manifest(sheet, member, made), pods.claim_manifest(sheet, member, made, "gpu")
            pod["metadata"] |= {"uid": f"pod-{name}-{attempt}-{member.rank}", "creationTimestamp": born}
            claim["metadata"] |= {"uid": f"claim-{name}-{attempt}-{member.rank}", "creationTimestamp": born}
            if member.rank < bound:
                pod["spec"]["nodeName"] = member.node
                pod["status"] = {"phase": phase}
            else:
                pod["status"] = {"phase": "Pending"}
            claim["status"] = pods.claim_status(
                member.node, member.devices, pod["metadata"]["name"], "x", "gpu.nvidia.com", member.node
            )
            self.pods.append(pod)
            self.claims.append(claim)
        return self

    def recover(self):
        def many(items, kind):
            return [msgspec.json.decode(msgspec.json.encode(item), type=kind) for item in items]

        return recover(many(self.jobs, GangJob), many(self.pods, Pod), many(self.claims, Claim), NOW)


@pytest.fixture
def cluster():
    return Cluster()


def facts(recovery, kind):
    return [fact for fact in recovery.facts if isinstance(fact, kind)]


def apply(recovery, *names):
    """Give the facts to a state that has seen the gangs; it must take all of them."""
    state = ClusterState(Rules())
    for name in names:
        role = Role(name="worker", replicas=2, gpus=2)
        gang = Gang(id=f"uid-{name}", namespace="team", name=name, queue="research", roles=(role,))
        state.apply(GangSeen(gang=gang, at_ms=NOW))
    state.apply_all(recovery.facts)
    return state


def test_a_running_gang_goes_on(cluster):
    recovery = cluster.job().objects().recover()
    found = facts(recovery, Recovered)[0]
    assert (found.attempt, found.bound, found.holding, found.running) == (1, True, (0, 1), (0, 1))
    assert found.placement == placement()
    assert (found.tier, found.since_ms) == (Tier.BORROWED, NOW - 60_000)
    assert not recovery.undo
    assert not recovery.stop
    state = apply(recovery, "a")
    assert len(state.holds) == 2
    assert state.gangs["uid-a"].phase.value == "Running"


def test_a_half_bound_gang_is_undone_whole(cluster):
    recovery = cluster.job(phase="Placing").objects(bound=1).recover()
    found = facts(recovery, Recovered)[0]
    assert not found.bound
    assert found.holding == (0, 1)
    (trip,) = recovery.undo
    assert [step.binding_tried for step in trip.steps] == [True, False]
    assert apply(recovery, "a").gangs["uid-a"].phase.value == "Placing"


def test_a_gang_with_a_missing_pod_is_undone_whole(cluster):
    cluster.job().objects()
    del cluster.pods[1]
    assert len(cluster.recover().undo) == 1


def test_claims_say_what_is_held_not_the_status(cluster):
    cluster.job().objects()
    cluster.claims[0]["status"] = {}
    assert facts(cluster.recover(), Recovered)[0].holding == (1,)


def test_a_gang_that_was_leaving_goes_on_leaving(cluster):
    cluster.job(phase="Stopping", reason="Reclaimed").objects()
    cluster.pods[0]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
    recovery = cluster.recover()
    stop = facts(recovery, StopIntended)[0]
    assert stop.requeue
    assert [keep for _, keep in recovery.stop] == [False]
    assert apply(recovery, "a").gangs["uid-a"].phase.value == "Stopping"


@pytest.mark.parametrize("reason", [Reason.OVERRUN, Reason.IDLE])
def test_a_gang_that_was_ended_for_good_is_not_requeued(cluster, reason):
    stop = facts(cluster.job(phase="Stopping", reason=reason.token).objects().recover(), StopIntended)[0]
    assert (stop.cause.reason, stop.requeue) == (reason, False)
    assert stop.cause.message


def test_a_status_of_the_attempt_before_that_came_late_ends_nothing(cluster):
    """A slow server may take in the last words on an attempt after the next one's allocation was written."""
    cluster.job(phase="Stopping", reason="Reclaimed").objects()
    cluster.jobs[0]["status"]["attempt"] -= 1
    recovery = cluster.recover()
    assert facts(recovery, StopIntended) == []
    assert (recovery.stop, recovery.undo) == ([], [])


def test_members_that_have_ended_are_told(cluster):
    cluster.job().objects(phase="Succeeded")
    cluster.pods[1]["status"]["phase"] = "Failed"
    ended = facts(cluster.recover(), MemberEnded)
    assert [(fact.rank, fact.succeeded) for fact in ended] == [(0, True), (1, False)]


def test_of_two_gangs_with_one_device_the_younger_goes(cluster):
    cluster.job("a").objects("a").job("b").objects("b", born="2026-01-01T00:05:00Z")
    recovery = cluster.recover()
    (stop,) = facts(recovery, StopIntended)
    assert (stop.gang, stop.cause.reason, stop.requeue) == ("uid-b", Reason.RESOLVED_DOUBLE, True)
    assert [trip.gang for trip, _ in recovery.stop] == ["uid-b"]
    apply(recovery, "a", "b")


def test_a_device_that_a_foreigner_holds_too_is_given_up_even_if_we_were_first(cluster):
    cluster.job().objects()
    result = {"request": "x", "driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-0"}
    cluster.claims.append(
        {
            "metadata": {"name": "t", "namespace": "z", "uid": "t", "creationTimestamp": "2026-02-01T00:00:00Z"},
            "status": {"allocation": {"devices": {"results": [result]}}},
        }
    )
    assert [fact.gang for fact in facts(cluster.recover(), StopIntended)] == ["uid-a"]


def test_leftovers_of_a_gangjob_that_is_gone_are_taken_away_and_still_held_till_then(cluster):
    recovery = cluster.objects("gone").recover()
    found = facts(recovery, Recovered)[0]
    assert (found.gang, found.holding) == ("uid-gone", (0, 1))
    assert found.placement.members == placement().members
    assert found.since_ms == NOW - 60_000
    (trip, keep) = recovery.stop[0]
    assert [step.pod for step in trip.steps] == ["gone-worker-0-1", "gone-worker-1-1"]
    assert keep is False
    state = apply(recovery)
    assert len(state.holds) == 2


def test_an_attempt_left_on_a_dead_node_is_taken_away_beside_the_new_one(cluster):
    cluster.job(attempt=2, place=placement(("n3", "n4")))
    cluster.objects(attempt=1).objects(attempt=2, place=placement(("n3", "n4")))
    recovery = cluster.recover()
    assert [fact.attempt for fact in facts(recovery, Recovered)] == [2, 1]
    assert [trip.attempt.number for trip, _ in recovery.stop] == [1]
    assert [trip.attempt.number for trip in recovery.trips] == [2, 1]
    state = apply(recovery, "a")
    assert state.gangs["uid-a"].current.number == 2
    assert state.gangs["uid-a"].phase.value == "Running"
    # What the dead nodes still hold is nobody's to give away, and charged to nobody.
    assert {node: sorted(holds) for node, holds in state.holds_on.items()} == {
        "n1": [("uid-a", 1, 0)],
        "n2": [("uid-a", 1, 1)],
        "n3": [("uid-a", 2, 0)],
        "n4": [("uid-a", 2, 1)],
    }
    assert state.queue_gpu_milli == {"research": 4000}
    state.apply(MemberReleased(gang="uid-a", attempt=1, rank=0, at_ms=NOW))
    assert "n1" not in state.holds_on
    assert state.queue_gpu_milli == {"research": 4000}


def test_an_old_attempt_of_a_gang_that_waits_again_does_not_come_back_to_life(cluster):
    cluster.job(attempt=2, phase="Pending", allocation=None).objects(attempt=1)
    recovery = cluster.recover()
    assert [(trip.attempt.number, keep) for trip, keep in recovery.stop] == [(1, False)]
    state = apply(recovery, "a")
    record = state.gangs["uid-a"]
    assert (record.phase.value, record.current, record.attempts) == ("Pending", None, 2)
    assert sorted(state.holds_on) == ["n1", "n2"]
    assert not state.queue_gpu_milli.get("research")


def test_of_a_gangjob_that_is_gone_an_older_attempt_may_be_all_that_holds(cluster):
    cluster.objects("gone", attempt=1).objects("gone", attempt=2, place=placement(("n3", "n4")), phase="Failed")
    for claim in cluster.claims[2:]:
        claim["status"] = {}
    recovery = cluster.recover()
    assert [fact.attempt for fact in facts(recovery, Recovered)] == [1]
    assert sorted(trip.attempt.number for trip, _ in recovery.stop) == [1, 2]
    state = apply(recovery)
    assert sorted(state.holds_on) == ["n1", "n2"]
    assert state.gangs["uid-gone"].phase.value == "Stopping"
    for rank in (0, 1):
        state.apply(MemberReleased(gang="uid-gone", attempt=1, rank=rank, at_ms=NOW))
    assert not state.gangs


def test_what_holds_nothing_any_more_is_said_again_so_that_it_is_let_go(cluster):
    cluster.job(phase="Stopping").objects(phase="Failed")
    for claim in cluster.claims:
        claim["status"] = {}
    assert [fact.rank for fact in facts(cluster.recover(), MemberReleased)] == [0, 1]


def test_the_pods_of_a_finished_gang_are_kept(cluster):
    cluster.job(phase="Succeeded").objects(phase="Succeeded")
    recovery = cluster.recover()
    assert [keep for _, keep in recovery.stop] == [True]
    assert not facts(recovery, Remembered)


def test_attempt_numbers_are_never_used_twice(cluster):
    cluster.jobs.append(
        {
            "metadata": {"name": "a", "namespace": "team", "uid": "uid-a"},
            "spec": {"queue": "research", "roles": []},
            "status": {"phase": "Pending", "attempt": 4, "restarts": 2, "usage": {"gpuMs": 77}, "lostGpuMs": 7},
        }
    )
    state = apply(cluster.recover(), "a")
    record = state.gangs["uid-a"]
    assert (record.attempts, record.restarts, record.past_gpu_ms, record.lost_gpu_ms) == (4, 2, 77, 7)
    state.apply(
        Intended(gang="uid-a", attempt=4, placement=placement(), tier=Tier.IN_QUOTA, at_ms=NOW, deadline_ms=NOW)
    )
    assert record.current is None


def test_what_the_current_attempt_used_is_counted_by_the_members_that_it_has(cluster):
    """One of two members was placed: 2 GPUs for 60 s of the 4 that status.gpus tells, before them 1,000 GPU-ms."""
    usage = {"gpuMs": 1_000 + 60_000 * 2, "asOf": "2026-01-01T00:01:40Z"}
    cluster.job(place=placement(nodes=("n1",)), gpus=4, usage=usage)
    (remembered,) = facts(cluster.recover(), Remembered)
    assert remembered.past_gpu_ms == 1_000


def test_cores_nics_and_parts_of_gpus_come_back_from_status_and_from_the_objects_alone(cluster):
    one, two = placement().members
    one = replace(one, devices=("gpu-1", "gpu-0"), cpus="0-47", nics=("mlx5_0", "mlx5_1"))
    two = replace(two, devices=("gpu-5",), share_milli=143, mig_start=4)
    held = replace(
        placement(), members=(one, two), span=(("node", 2), ("rack", 1)), penalties=("a NIC is reached over SYS",)
    )
    cluster.job(place=held).objects(place=held)
    (recovered,) = facts(cluster.recover(), Recovered)
    assert recovered.placement == held
    cluster.jobs.clear()
    (recovered,) = facts(cluster.recover(), Recovered)
    assert recovered.placement.members == held.members


def nominated(cluster, until):
    cluster.job("v").objects("v").job("w")
    hole = {"domain": "r1", "level": "rack", "pace": 7, "members": [{"node": "n9", "pods": ["worker-0=gpu-[0-7]"]}]}
    cluster.jobs.append(
        {
            "metadata": {"name": "a", "namespace": "team", "uid": "uid-a"},
            "spec": {"queue": "research", "roles": []},
            "status": {"phase": "Pending", "nomination": {**hole, "victims": ["team/v#1", "uid-v#1"], "until": until}},
        }
    )
    return facts(cluster.recover(), Nominated)


def test_a_nomination_is_kept_through_a_restart(cluster):
    (fact,) = nominated(cluster, "2026-01-01T01:00:00.500000Z")
    assert fact.victims == (("uid-v", 1), ("uid-v", 1))  # by name, and by uid as those of other namespaces are
    assert fact.placement.members[0].devices == tuple(f"gpu-{i}" for i in range(8))
    assert fact.until_ms == 1_767_229_200_500


def test_a_nomination_that_has_lapsed_is_not(cluster):
    assert nominated(cluster, "2026-01-01T00:00:01Z") == []


def test_objects_with_our_labels_in_another_namespace_are_ignored(cluster):
    cluster.job().objects()
    for item in (cluster.pods[0], cluster.claims[0]):
        item["metadata"]["namespace"] = "elsewhere"
    assert facts(cluster.recover(), Recovered)[0].holding == (1,)


def test_objects_that_only_look_like_ours_are_ignored(cluster):
    cluster.pods.append({"metadata": {"name": "x", "uid": "x", "labels": {"fairlead.dev/gang-uid": "u"}}})
    assert cluster.recover().facts == []
