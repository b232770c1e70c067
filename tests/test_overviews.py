"""Statuses of Queues, Pools and QueueViews: what they say, when they are written, and where they go away again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fairlead.errors import Unreachable
from fairlead.model.effects import Phase
from fairlead.model.gang import GangId
from fairlead.model.hardware import Node
from fairlead.model.queue_tree import tree_problems
from fairlead.model.tenancy import Pool, Queue
from fairlead.reports.queue_usage import QueueUsage
from fairlead.service.metrics import Metrics
from fairlead.world.views import GangView, PoolView, QueueView, ResourceView
from fairlead_operator import overview_writer
from fairlead_operator.decode_nodes import overlap_sentence
from fairlead_operator.overview_writer import Overview, OverviewWriter
from fairlead_operator.overviews import Standing, pool_status, pool_troubles, queue_status, queue_view_status
from fairlead_operator.statuses import Condition

from .fake_kube import FakeKube

NOW = 1_767_225_700_000
SINCE = "2026-01-01T00:01:40Z"
EARLIER = "2025-12-24T12:00:00Z"


def queue(name="research", **more):
    given = {"used_gpus": 4, "borrowed_gpus": 0, "pending_gangs": 2, "pending_gpus": 16, "running_gangs": 1}
    given |= {"guaranteed_gpus": 8, "limit_gpus": 16, "weight": 1, "entitled_gpus": 8, "over_limit": False} | more
    return QueueView(name=name, parent="", tenant=name, **given)


def pool(name="main", **more):
    return PoolView(name=name, **{"nodes": 2, "gpus": 16, "free": 8, "held": 8, "foreign": 0, "down": 0} | more)


def gang(name, namespace="team", position=1, queue="research"):
    return GangView(
        id=GangId(f"uid-{name}"), namespace=namespace, name=name, queue=queue, priority=0, gpus=8, members=1,
        phase=Phase.PENDING, position=position,
    )  # fmt: skip


def by_type(status):
    return {c["type"]: c for c in status["conditions"]}


def test_a_queue_that_was_never_taken_over_says_why():
    status, _ = queue_status(None, Standing(generation=3, problem="Queue a: mend it"), 7, {}, NOW)
    assert sorted(status) == ["conditions", "observedGeneration"]
    (accepted,) = status["conditions"]
    assert (accepted["status"], accepted["reason"], accepted["message"]) == ("False", "InvalidSpec", "Queue a: mend it")
    assert accepted["observedGeneration"] == status["observedGeneration"] == 3
    known, _ = queue_status(queue(), Standing(problem="Queue a: mend it"), 7, {}, NOW)
    assert by_type(known)["Accepted"]["message"] == "Queue a: mend it; what it said before goes on"
    assert known["usageGpuMs"] == 7


def test_what_of_its_costs_alarms_stands_in_a_queue_and_in_its_views():
    assert "CostAnomaly" not in by_type(queue_status(queue(), Standing(), None, {}, NOW)[0])  # nobody has looked yet
    status, _ = queue_status(queue(), Standing(), None, {}, NOW, "")
    assert by_type(status)["CostAnomaly"]["status"] == "False"
    status, _ = queue_status(queue(), Standing(), None, {}, NOW, "it costs more")
    said = by_type(status)["CostAnomaly"]
    assert (said["status"], said["reason"], said["message"]) == ("True", "Alarm", "it costs more")


def test_a_condition_keeps_its_time_while_it_holds_even_over_a_restart():
    written = tuple(Condition(kind, "False", "WithinLimit", "", EARLIER) for kind in ("Accepted", "OverLimit"))
    status, made = queue_status(queue(), Standing(conditions=written), None, {}, NOW)
    assert by_type(status)["OverLimit"]["lastTransitionTime"] == EARLIER
    assert by_type(status)["Accepted"]["lastTransitionTime"] == SINCE
    assert "usageGpuMs" not in status  # not known yet
    over, _ = queue_status(queue(over_limit=True, used_gpus=17), Standing(), None, made, NOW + 60_000)
    assert by_type(over)["OverLimit"]["message"] == "holds 17 GPUs; the limit is 16"
    assert by_type(over)["OverLimit"]["lastTransitionTime"] == "2026-01-01T00:02:40Z"
    assert by_type(over)["Accepted"]["lastTransitionTime"] == SINCE


def test_pools_tell_of_overlaps_and_of_sources_that_differ():
    pools = (
        Pool(name="a", node_selector=(("gpu", "yes"),)),
        Pool(name="b", node_selector=(("rack", "r1"),)),
        Pool(name="c", node_selector=(("rack", "r9"),)),
    )
    overlap = overlap_sentence(pools[:2])
    nodes = [
        Node(name="n2", pool="a", labels=(("gpu", "yes"), ("rack", "r1")), conflicts=(overlap, "two GPUs are one")),
        Node(name="n1", pool="a", labels=(("gpu", "yes"), ("rack", "r1")), conflicts=(overlap,)),
        Node(name="n3", pool="a", labels=(("gpu", "yes"),)),
        Node(name="n4", labels=(), conflicts=("nobody's",)),
    ]
    found = pool_troubles(nodes, pools)
    assert found["a"].overlaps == {"n1": ("b",), "n2": ("b",)}
    assert found["b"].overlaps == {"n1": ("a",), "n2": ("a",)}
    assert (found["a"].mismatches, found["b"].mismatches) == ({"n2": ("two GPUs are one",)}, {})
    status, _ = pool_status(pool("a", foreign=3), Standing(), found["a"], {}, NOW)
    told = by_type(status)
    assert told["Overlap"]["message"].startswith("2 nodes are selected by another pool too, such as n1 by b")
    assert told["TopologyMismatch"]["message"] == "node n2: two GPUs are one"
    assert told["ForeignAllocation"]["status"] == "True"
    quiet, _ = pool_status(pool("c"), Standing(), found["c"], {}, NOW)
    assert {kind: c["status"] for kind, c in by_type(quiet).items()} == {
        "Accepted": "True",
        "ForeignAllocation": "False",
        "Overlap": "False",
        "TopologyMismatch": "False",
    }


def test_a_view_has_the_places_of_its_own_namespace_only():
    own = [gang("second", position=7), gang("first", position=3), gang("running", position=None)]
    assert [p["gangJob"] for p in queue_view_status(queue(), own)["positions"]] == ["first", "second"]


def test_every_resource_with_a_quota_stands_in_queues_and_views():
    cores = ResourceView(name="cpu", guaranteed=4, limit=None, used=6, borrowed=2)
    wanted = [{"name": "cpu", "guaranteed": 4, "used": 6, "borrowed": 2}]
    status, _ = queue_status(queue(resources=(cores,)), Standing(), None, {}, NOW)
    assert status["resources"] == queue_view_status(queue(resources=(cores,)), [])["resources"] == wanted


def test_a_queue_that_stands_in_no_sound_tree_says_so():
    problems = tree_problems({name: Queue(name=name, parent=parent) for name, parent in {"a": "gone"}.items()})
    status, _ = queue_status(queue(), Standing(misplaced=problems["a"]), 7, {}, NOW)
    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "QueueMisplaced")
    assert accepted["message"].startswith("spec.parent: there is no queue 'gone'; create it")
    assert accepted["message"].endswith("; until then it takes nobody in")


def test_a_queue_whose_guarantees_are_cut_says_so_and_goes_on():
    tree = {"a": Queue(name="a", guaranteed_gpus=1), "b": Queue(name="b", parent="a", guaranteed_gpus=2)}
    status, _ = queue_status(queue(), Standing(misplaced=tree_problems(tree)["a"]), 7, {}, NOW)
    accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
    assert accepted["reason"] == "GuaranteeCut"
    assert "takes nobody in" not in accepted["message"]


# --- writing ----------------------------------------------------------------------------------------------------------


class Writing:
    """A writer over an API server in memory with one queue, one pool and what `overview` says."""

    def __init__(self) -> None:
        self.api = FakeKube()
        self.now = NOW
        for kind, name in (("queues", "research"), ("pools", "main")):
            self.api._store((kind, "", name), {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": {}})
        self.writer = OverviewWriter(self.api, lambda: self.now, Metrics(), writes_per_s=100_000)
        self.overview = Overview(
            queues=[queue()],
            pools=[pool()],
            gangs=[gang("a"), gang("b", namespace="other", position=2)],
            namespaces={"research": ["team", "other"]},
            standings={("Queue", "research"): Standing(uid="q1"), ("Pool", "main"): Standing(uid="p1")},
        )

    def write(self, **changed):
        """Write the overview and return the paths of the writes that it took."""
        self.overview = replace(self.overview, **changed)
        before = len(self.api.log)
        asyncio.run(self.writer.write(self.overview))
        return [path for method, path in self.api.log[before:] if method != "GET"]

    def status(self, plural, name, namespace=""):
        return self.api.objects[plural, namespace, name]["status"]


@pytest.fixture
def writing():
    return Writing()


def usage(gpu_ms, at_ms=NOW):
    return QueueUsage(
        as_of_ms=at_ms,
        period_start_ms=1_767_225_600_000,
        total={"research": gpu_ms + 5, "other": 99},
        period={"research": gpu_ms, "other": 98},
    )


def test_nothing_is_written_that_has_not_changed(writing):
    assert len(writing.write()) == 2 + 2 * 3  # each view: tried, made, written
    assert writing.write() == []
    writing.now += 60_000
    assert writing.write() == []
    assert writing.write(queues=[queue(used_gpus=5)]) != []
    assert writing.status("queueviews", "research", "team")["used"] == 5
    assert writing.status("queueviews", "research", "other")["asOf"] == "2026-01-01T00:02:40Z"


def test_what_somebody_has_deleted_comes_back_in_a_while(writing):
    writing.write()
    del writing.api.objects["queueviews", "team", "research"]
    writing.now += overview_writer.AGAIN_MS
    writing.write()
    assert writing.status("queueviews", "research", "team")["positions"] == [
        {"gangJob": "a", "position": 1}
    ]  # fmt: skip


def test_an_object_made_anew_under_its_old_name_is_written_again(writing):
    writing.write()
    made = {("Queue", "research"): Standing(uid="q2"), ("Pool", "main"): Standing(uid="p1")}
    assert [path.split("/")[-3:] for path in writing.write(standings=made)] == [["queues", "research", "status"]]


def test_usage_is_of_the_queue_and_its_moment_alone_is_no_news(writing):
    writing.write(usage=usage(10))
    assert writing.status("queues", "research")["usageGpuMs"] == 15
    assert writing.status("queueviews", "research", "team")["usage"] == {
        "periodStart": "2026-01-01T00:00:00Z",
        "gpuMs": 10,
        "asOf": SINCE,
    }
    assert writing.write(usage=usage(10, NOW + 30_000)) == []
    assert len(writing.write(usage=usage(11, NOW + 60_000))) == 3
    assert writing.status("queueviews", "research", "team")["usage"]["asOf"] == "2026-01-01T00:02:40Z"


def test_a_view_is_taken_from_a_namespace_that_is_listed_no_longer(writing):
    writing.write()
    writing.write(namespaces={"research": ["team"]})
    assert [key[1] for key in writing.api.objects if key[0] == "queueviews"] == ["team"]
    writing.write(queues=[], standings={})
    assert not writing.api.of("queueviews")
    assert writing.write() == []


def test_views_that_an_earlier_leader_left_are_taken_away_too(writing):
    left = {"metadata": {"name": "old", "namespace": "team", "uid": "v"}, "spec": {"queue": "old"}}
    writing.api._store(("queueviews", "team", "old"), left)
    writing.write()
    assert sorted(key[1:] for key in writing.api.objects if key[0] == "queueviews") == [
        ("other", "research"),
        ("team", "research"),
    ]


def test_a_write_that_fails_holds_up_no_other_and_is_tried_again(writing):
    failing = [True]
    writing.api.fault = lambda method, path, body: (
        Unreachable("away") if failing[0] and path.endswith("pools/main/status") else None
    )
    writing.write()
    assert writing.status("queues", "research")["used"] == 4
    failing[0] = False
    assert [path.split("/")[-2] for path in writing.write()] == ["main"]
