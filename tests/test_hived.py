"""HiveD's virtual clusters: what is guaranteed to a queue comes back in the shape it asks for.

The cases are HiveD's own where the data folder is there; the small ones are written here. The page
`docs/explanation/peer-cases.md` says what is law, and where HiveD promises more.
"""

from __future__ import annotations

import json
import random
from typing import Any

import yaml
from builders import Stage
from hived_cells import OPPORTUNISTIC, Cells
from topology_files import data_file

from fairlead.model.effects import Phase, Place, Stop
from fairlead.model.gang import Gang, GangId, TopologyRequest
from fairlead.model.reasons import Kind

POOLS = """
physicalCluster:
  cellTypes:
    SWITCH: {childCellType: K80, childCellNumber: 2}
    NODE: {childCellType: SWITCH, childCellNumber: 2, isNodeLevel: true}
    POOL: {childCellType: NODE, childCellNumber: 4}
  physicalCells:
  - cellType: POOL
    cellChildren: [{cellAddress: a}, {cellAddress: b}, {cellAddress: c}, {cellAddress: d}]
virtualClusters:
  vc1: {virtualCells: [{cellType: POOL.NODE, cellNumber: 1}]}
  vc2: {virtualCells: [{cellType: POOL.NODE, cellNumber: 2}]}
"""


class Play:
    """A stage on which the cluster does at once what it is told."""

    def __init__(self, cells: Cells) -> None:
        self.cells, self.stage = cells, Stage(cells.nodes, cells.queues())
        self.slices = 0
        self.stopped: list[str] = []

    def submit(self, gang: Gang) -> list[str]:
        """Submit, and go on until nothing happens any more; return who was stopped."""
        before = len(self.stopped)
        self.stage.now_ms += 1_000
        self.stage.seen(gang)
        self.settle()
        return self.stopped[before:]

    def settle(self) -> None:
        for _ in range(20):
            effects = self.stage.settle()
            self.slices += 1
            if not any(isinstance(effect, Place | Stop) for effect in effects):
                return
            for effect in effects:
                if isinstance(effect, Stop):
                    self.stopped.append(effect.gang)
                    self.stage.release(effect.gang)
                elif isinstance(effect, Place):
                    self.stage.run(effect.gang)
            self.stage.now_ms += 1_000
        raise AssertionError("the world does not become quiet")

    def nodes(self, gang: str) -> list[str]:
        """Where a gang runs; nowhere: []."""
        record = self.stage.state.gangs[GangId(gang)]
        if record.phase is not Phase.RUNNING or record.current is None:
            return []
        return [str(member.node) for member in record.current.placement.members]

    def end(self, gang: str) -> None:
        self.stage.delete(gang)
        self.settle()


def small() -> Play:
    return Play(Cells(yaml.safe_load(POOLS)))


def fill(play: Play, cluster: str, count: int, gpus: int = 1) -> list[str]:
    """Opportunistic jobs on everything."""
    names = [f"spare-{cluster}-{at}" for at in range(count)]
    for name in names:
        play.submit(play.cells.gang(name, [(1, gpus)], play.stage.now_ms, cluster=cluster, priority=OPPORTUNISTIC))
    return names


# --- HiveD's own cases ------------------------------------------------------------------------------------------------


def dev() -> tuple[dict[str, Any], Cells]:
    cases = json.loads(data_file("hived/testcases_dev.json").read_text(encoding="utf-8"))
    config = yaml.safe_load(data_file("hived/config/design.yaml").read_text(encoding="utf-8"))
    return cases, Cells(config)


def group_of(cases: dict[str, Any], pod: str, cells: Cells, at: int) -> Gang:
    spec = cases["pods"][pod]
    members = cases["affinityGroups"][spec["affinityGroup"]]
    return cells.gang(
        spec["affinityGroup"],
        [(one["podNumber"], one["leafCellNumber"]) for one in members],
        at,
        cluster=spec["virtualCluster"],
        priority=spec["priority"],
        kind=spec["leafCellType"],
        pin=spec["pinnedCellId"],
    )


def test_the_normal_operations_bind_and_preempt_as_hived_does() -> None:
    cases, cells = dev()
    play = Play(cells)
    groups: dict[str, list[str]] = {}
    for pod in cases["sequences"]["normal_operations"]["schedule_in_order"]:
        groups.setdefault(cases["pods"][pod]["affinityGroup"], []).append(pod)
    for name, pods in groups.items():
        wanted = {
            cases["pods"][pod]["affinityGroup"] for one in pods for pod in cases["expectedPreemptVictims"].get(one, ())
        }
        stopped = play.submit(group_of(cases, pods[0], cells, play.stage.now_ms))
        assert set(stopped) == wanted, name
        binds = wanted or all(pod in cases["expectedBind"] for pod in pods)
        nodes = play.nodes(name)
        if binds:
            assert len(nodes) == len(pods), (name, play.stage.reason(name))
        elif nodes:  # what the queue's cells do not have, idle hardware has: it waits there, it may run here
            play.end(name)
        pins = {cells.pinned[node] for node in nodes}
        pin = cases["pods"][pods[0]]["pinnedCellId"]
        assert pins <= {pin} or cases["pods"][pods[0]]["priority"] == OPPORTUNISTIC, (name, nodes)
    uneven = play.stage.attempt("group9").placement.members
    assert sorted(len(member.devices) for member in uneven) == [5, 7]
    assert len({member.node for member in uneven}) == 2


def test_what_hived_calls_an_error_of_the_user_is_refused_for_good() -> None:
    cases, cells = dev()
    play = Play(cells)
    for pod in ("pod13", "pod14"):  # no such virtual cluster, no such pinned cell
        gang = group_of(cases, pod, cells, play.stage.now_ms)
        play.submit(gang)
        refusal = play.stage.view(gang.id).refusal
        assert refusal is not None
        assert refusal.reason.kind in (Kind.INVALID, Kind.NEVER), (pod, refusal.message)
        play.end(gang.id)


def test_every_cell_of_every_cluster_comes_back_from_a_fleet_full_of_opportunistic_jobs() -> None:
    _, cells = dev()
    for seed in range(5):
        play = Play(cells)
        for cluster in cells.clusters:
            for kind in sorted({gpu.model.strip("<>") for node in cells.nodes for gpu in node.machine.gpus}):
                total = sum(gpu.model == f"<{kind}>" for node in cells.nodes for gpu in node.machine.gpus)
                for at in range(total // len(cells.clusters)):
                    name = f"{cluster}-{kind}-{at}"
                    spec = cells.gang(name, [(1, 1)], 0, cluster=cluster, priority=OPPORTUNISTIC, kind=kind)
                    play.stage.seen(spec)
        play.settle()
        wanted = list(cells_of(cells))
        random.Random(seed).shuffle(wanted)
        for gang in wanted:
            stopped = play.submit(gang)
            assert all(name.startswith(tuple(cells.clusters)) and "cell" not in name for name in stopped), stopped
        waiting = [gang.id for gang in wanted if not play.nodes(gang.id)]
        assert waiting == [], (seed, [play.stage.view(name).refusal for name in waiting])


def cells_of(cells: Cells) -> list[Gang]:
    """A gang of the shape of every virtual cell: whole nodes, parts of one, several nodes of one rack."""
    found: list[Gang] = []
    for cluster in cells.clusters:
        for kind, number in cells.own(cluster):
            gpus, leaf = cells.leaves(kind), cells.leaf(kind)
            per_node = max(
                cells.leaves(k) for k, t in cells.types.items() if t.get("isNodeLevel") and cells.leaf(k) == leaf
            )
            pods = [(gpus // per_node, per_node)] if gpus >= per_node else [(1, gpus)]
            rack = TopologyRequest(within=kind) if gpus > per_node else None
            for at in range(number):
                name = f"cell-{cluster}-{kind}-{at}-{len(found)}"
                found.append(cells.gang(name, pods, 0, cluster=cluster, kind=leaf, topology=rack))
        for pin, gpus in cells.pins(cluster):
            nodes = [node for node in cells.nodes if cells.pinned[node.name] == pin]
            if nodes:
                leaf = nodes[0].machine.gpus[0].model.strip("<>")
                pods = [(len(nodes), gpus // len(nodes))]
                found.append(cells.gang(f"cell-{cluster}-{pin}", pods, 0, cluster=cluster, kind=leaf, pin=pin))
    return found


# --- small ones -------------------------------------------------------------------------------------------------------


def test_jobs_of_a_cluster_pack_into_its_node_and_leave_whole_ones_to_others() -> None:
    play = small()
    for at in range(4):
        play.submit(play.cells.gang(f"one-{at}", [(1, 1)], play.stage.now_ms, cluster="vc1"))
    assert len({play.nodes(f"one-{at}")[0] for at in range(4)}) == 1
    for at in range(2):
        assert play.submit(play.cells.gang(f"node-{at}", [(1, 4)], play.stage.now_ms, cluster="vc2")) == []
        assert play.nodes(f"node-{at}")
    pair = play.cells.gang("pair", [(2, 1)], play.stage.now_ms, cluster="vc1")
    play.submit(pair)
    assert len(set(play.nodes("pair"))) == 1, "two GPUs of one gang are buddies"


def test_a_guaranteed_node_is_taken_back_whole_and_from_one_node() -> None:
    play = small()
    fill(play, "vc1", 16)
    stopped = play.submit(play.cells.gang("node", [(1, 4)], play.stage.now_ms, cluster="vc2"))
    assert len(stopped) == 4, "a node has four GPUs, and no fifth job is stopped"
    (node,) = play.nodes("node")
    assert all(not set(play.nodes(name)) & {node} for name in (f"spare-vc1-{at}" for at in range(16)))
    assert play.slices < 60, "at once: the same cycle that sees the demand stops who is in the way"


def test_guaranteed_jobs_of_others_are_never_stopped_and_opportunistic_ones_take_nothing_back() -> None:
    play = small()
    play.submit(play.cells.gang("mine", [(1, 4)], play.stage.now_ms, cluster="vc1"))
    fill(play, "vc1", 12)
    for at in range(2):
        stopped = play.submit(play.cells.gang(f"theirs-{at}", [(1, 4)], play.stage.now_ms, cluster="vc2", priority=9))
        assert "mine" not in stopped
        assert play.nodes(f"theirs-{at}")
    before = list(play.stopped)
    play.submit(play.cells.gang("more", [(1, 4)], play.stage.now_ms, cluster="vc1", priority=OPPORTUNISTIC))
    assert play.stopped == before
    assert not play.nodes("more")


def test_a_lower_priority_of_the_cluster_yields_only_where_nothing_is_idle() -> None:
    play = small()
    play.submit(play.cells.gang("low", [(1, 4)], play.stage.now_ms, cluster="vc1"))
    high = play.cells.gang("high", [(1, 4)], play.stage.now_ms, cluster="vc1", priority=100)
    assert play.submit(high) == [], (
        "HiveD downgrades the other one: it goes on as long as nobody is in need of the room"
    )
    prod = play.cells.gang("prod", [(3, 4)], play.stage.now_ms, cluster="vc2", priority=100)
    stopped = play.submit(prod)
    assert (stopped, play.nodes("prod")) == ([], []), "three nodes are more than vc2 is guaranteed"
    play.end("prod")
    two = play.cells.gang("two", [(2, 4)], play.stage.now_ms, cluster="vc2")
    assert play.submit(two) == []
    third = play.cells.gang("third", [(1, 4)], play.stage.now_ms, cluster="vc1", priority=200)
    play.submit(third)
    assert [bool(play.nodes(name)) for name in ("low", "high", "third", "two")] == [False, True, True, True]


def test_a_node_that_is_bad_is_no_cell_and_another_one_of_its_kind_is_taken_back() -> None:
    play = small()
    fill(play, "vc1", 16)
    play.stage.change_node("a", not_ready_since_ms=play.stage.now_ms)
    stopped = play.submit(play.cells.gang("node", [(1, 4)], play.stage.now_ms, cluster="vc2"))
    assert len(stopped) == 4
    assert play.nodes("node") not in ([], ["a"])


def test_the_shape_of_a_guarantee_can_be_lost_to_jobs_that_are_within_theirs() -> None:
    """Where HiveD promises more: a queue's guarantee is a number of GPUs, a virtual cell is a node."""
    play = small()
    for at in range(16):
        play.submit(play.cells.gang(f"one-{at}", [(1, 1)], play.stage.now_ms, cluster="vc1"))
    kept: dict[str, str] = {}
    for at in range(16):
        kept.setdefault(play.nodes(f"one-{at}")[0], f"one-{at}")
    for at in range(16):
        if f"one-{at}" not in kept.values():
            play.end(f"one-{at}")
    assert len(kept) == 4, "one job of four GPUs' worth of guarantee on each of four nodes"
    stopped = play.submit(play.cells.gang("node", [(1, 4)], play.stage.now_ms, cluster="vc2"))
    assert (stopped, play.nodes("node")) == ([], [])


def test_a_preemption_that_is_under_way_ends_with_the_highest_priority_on_the_cell() -> None:
    play = small()
    play.submit(play.cells.gang("one", [(1, 4)], play.stage.now_ms, cluster="vc1", priority=1))
    fill_with = play.cells.gang("rest", [(3, 4)], play.stage.now_ms, cluster="vc2", priority=1)
    play.stage.change_node("d", unschedulable=True)
    play.stage.seen(fill_with)
    play.stage.change_node("d", unschedulable=False)
    play.settle()
    stage = play.stage
    stage.seen(play.cells.gang("two", [(1, 4)], stage.now_ms, cluster="vc1", priority=2))
    told = [effect for effect in stage.settle() if isinstance(effect, Stop)]
    assert [effect.gang for effect in told] == ["one"]
    stage.now_ms += 1_000
    stage.seen(play.cells.gang("three", [(1, 4)], stage.now_ms, cluster="vc1", priority=3))
    assert [e for e in stage.settle() if isinstance(e, Stop)] == [], "the room is being made already"
    stage.release("one")
    play.settle()
    assert play.nodes("three"), "whoever came first may have begun; the highest priority has the cell in the end"
    assert not play.nodes("two")


def test_as_long_as_a_cluster_holds_more_than_its_own_no_spread_of_its_jobs_keeps_a_whole_node_from_others() -> None:
    for seed in range(20):
        play, rng = small(), random.Random(seed)
        for at in range(16):  # guaranteed jobs of one cluster on every GPU of the fleet: four are its own
            play.submit(play.cells.gang(f"one-{at}", [(1, 1)], play.stage.now_ms, cluster="vc1"))
        going = rng.sample(range(16), k=rng.randint(0, 8))
        for at in going:
            play.end(f"one-{at}")
        for at in range(2):
            play.submit(play.cells.gang(f"node-{at}", [(1, 4)], play.stage.now_ms, cluster="vc2"))
            assert play.nodes(f"node-{at}"), (seed, going)
        assert sum(bool(play.nodes(f"one-{at}")) for at in range(16) if at not in going) >= 4, "its guarantee"
