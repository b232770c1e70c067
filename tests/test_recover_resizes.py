"""What a new leader makes of a gang that was changing its size when the last one ended."""

from __future__ import annotations

from fairlead.model.effects import Phase
from fairlead.model.events import GangSeen, Recovered
from fairlead.model.gang import Gang, Role
from fairlead.model.rules import Rules
from fairlead.world.state import ClusterState

from .test_recover import NOW, Cluster, facts, placement

FOUR = placement(("n1", "n2", "n3", "n4"))


def resized(left, *, bound=4, gone=()):
    """Four members were placed; the status says who is no part of the gang."""
    cluster = Cluster().job(place=FOUR).objects(place=FOUR, bound=bound)
    cluster.jobs[0]["status"]["allocation"]["left"] = left
    for pod in cluster.pods:
        pod["status"]["containerStatuses"] = [
            {"name": "main", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        ]
    cluster.pods = [pod for at, pod in enumerate(cluster.pods) if at not in gone]
    cluster.claims = [claim for at, claim in enumerate(cluster.claims) if at not in gone]
    return cluster.recover()


def state_of(recovery):
    state = ClusterState(Rules())
    role = Role(name="worker", replicas=4, gpus=2, min_replicas=1)
    gang = Gang(id="uid-a", namespace="team", name="a", queue="research", roles=(role,), resizable=True)
    state.apply(GangSeen(gang=gang, at_ms=NOW))
    state.apply_all(recovery.facts)
    return state.gangs["uid-a"]


def test_members_that_were_leaving_go_on_leaving_and_the_gang_goes_on():
    recovery = resized([2, 3])
    (trip,) = recovery.shrink
    assert trip.left == {2, 3}
    assert not recovery.undo
    assert not recovery.stop
    (found,) = facts(recovery, Recovered)
    assert (found.bound, found.holding, found.left) == (True, (0, 1, 2, 3), (2, 3))
    record = state_of(recovery)
    assert record.phase is Phase.RUNNING
    assert sorted(record.current.leaving) == [2, 3]


def test_members_that_have_left_are_no_loss():
    recovery = resized([2, 3], gone=(2, 3))
    assert not recovery.shrink
    assert not recovery.undo
    record = state_of(recovery)
    assert record.phase is Phase.RUNNING
    assert (record.current.present, record.current.left) == (2, {2, 3})


def test_a_gang_that_was_shrunk_still_knows_since_when_it_runs():
    """Its duration would else begin anew with every leader."""
    (found,) = facts(resized([2, 3], gone=(2, 3)), Recovered)
    (whole,) = facts(resized([]), Recovered)
    assert found.all_running_ms == whole.all_running_ms
    assert found.all_running_ms is not None


def test_members_that_were_joining_are_taken_away_again_where_only_some_were_bound():
    recovery = resized([2, 3], bound=3)
    (trip,) = recovery.shrink
    assert trip.left == {2, 3}
    assert not recovery.undo
    assert state_of(recovery).phase is Phase.RUNNING


def test_members_that_were_bound_and_taken_off_the_record_have_joined():
    recovery = resized([])
    assert not recovery.shrink
    assert not recovery.undo
    assert state_of(recovery).current.present == 4


def test_a_member_that_is_not_there_and_has_not_left_undoes_the_gang():
    recovery = resized([3], bound=2)
    assert recovery.undo


def test_usage_goes_on_from_what_was_written_and_counts_nobody_twice():
    """Two of four hold for a minute more; what those who left had used is in the past already."""
    cluster = Cluster().job(place=FOUR).objects(place=FOUR, bound=4)
    cluster.jobs[0]["status"]["allocation"]["left"] = [2, 3]
    cluster.jobs[0]["status"]["usage"] = {"gpuMs": 400_000, "asOf": "2026-01-01T00:01:40Z"}
    cluster.pods, cluster.claims = cluster.pods[:2], cluster.claims[:2]
    record = state_of(cluster.recover())
    assert record.past_gpu_ms == 400_000 - 60_000 * 4
