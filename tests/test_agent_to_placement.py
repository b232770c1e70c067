"""From what the agent publishes to what the scheduler places: chains, silence, and a bad verdict on its whole way."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import builders
import msgspec
import pytest
from agent_rig import NODE, STEP, Rig, slices_of
from fake_machines import dgx_a100, hgx_h100
from sysfs_machines import hgx_h100 as hgx_tree

from fairlead.discovery.findings import Sample
from fairlead.model.effects import Place
from fairlead.model.events import DevicesCounted, NodeSeen
from fairlead.topology.graph import device_graph, parent
from fairlead_operator.agent.busy import BusyWindows
from fairlead_operator.agent.observe import tree_below
from fairlead_operator.custom_objects import NodeTopology, PoolObject
from fairlead_operator.decode_nodes import SILENT_MS, decode_topology, silent_since_ms
from fairlead_operator.device_objects import Slice
from fairlead_operator.facts import Intake
from fairlead_operator.objects import NodeObject
from fairlead_operator.watch import Change

ADDED, MODIFIED = Change.ADDED, Change.MODIFIED


def decoded(value, kind):
    return msgspec.json.decode(json.dumps(value), type=kind)


# --- chains -------------------------------------------------------------------------------------------------------


@pytest.fixture
def placed(tmp_path):
    """An H100 machine whose PCI tree is known, idle links slowed down."""
    tree = hgx_tree(tmp_path)
    fake = hgx_h100()
    for gpu, bus in zip(fake.gpus, (0x16, 0x38, 0x49, 0x5A, 0x98, 0xB8, 0xC8, 0xD8), strict=True):
        gpu.pci = f"0000:{bus + 3:02x}:00.0"
        for name, text in {"max_link_speed": "32.0 GT/s PCIe", "current_link_width": "16"}.items():
            (tmp_path / f"sys/bus/pci/devices/{gpu.pci}/{name}").write_text(f"{text}\n", encoding="ascii")
    idle(tmp_path, fake)
    assert tree.root == tmp_path
    return Rig(fake, tree=tree_below(tmp_path)).turn(), tmp_path


def idle(root: Path, fake, speed="2.5 GT/s PCIe"):
    for gpu in fake.gpus:
        (root / f"sys/bus/pci/devices/{gpu.pci}/current_link_speed").write_text(f"{speed}\n", encoding="ascii")


def test_the_chains_of_the_devices_are_published_and_read_back(placed):
    rig, _ = placed
    machine = decode_topology(decoded(rig.object, NodeTopology))
    ours = rig.ward.current()
    assert [(g.pcie_parent, g.pcie_switch) for g in machine.gpus] == [(g.pcie_parent, g.pcie_switch) for g in ours.gpus]
    wanted = {g.pcie_parent for g in ours.gpus} | {n.pcie_parent for n in ours.nics}
    by_id = {f.id: f for f in machine.pcie}
    assert wanted <= by_id.keys()
    assert all(f.parent in by_id or f.kind == "root" for f in machine.pcie)
    assert {f.kind for f in machine.pcie} == {"root", "root-port", "switch-upstream", "switch-downstream"}
    drives = {f.parent for f in ours.pcie if f.kind == "storage"}
    assert drives
    assert not drives & by_id.keys()  # a branch without GPU or NIC
    assert {(g.pcie.generation, g.pcie.lanes, g.pcie.bytes_per_s) for g in machine.gpus} == {(5, 16, 63_015_384_608)}
    assert [(w.a, w.b, w.count) for w in machine.wires] == [(f"GPU{n}", "nvswitch", 18) for n in range(8)]
    assert machine.wires[0].bytes_per_s == ours.links[0].bytes_per_s
    graph = device_graph(machine)
    assert parent(graph, "GPU0") == f"switch:{machine.gpus[0].pcie_switch}"


def test_an_idle_link_is_no_news(placed):
    rig, root = placed
    rig.turn(70)  # the whole machine is read again
    before = rig.object["spec"]
    idle(root, rig.fake, "32.0 GT/s PCIe")
    rig.turn(70)
    assert rig.object["spec"] == before


def test_eight_gpus_take_little(placed):
    rig, _ = placed
    size = len(json.dumps(rig.object))
    assert len(rig.object["spec"]["nics"]) == 8
    assert size <= 32 << 10, size


def test_the_slices_names_reach_the_wires(placed):
    rig, _ = placed
    node, _ = rig.scheduled()
    assert [w.a for w in node.machine.wires] == [g.id for g in node.machine.gpus]
    assert node.machine.pcie == ()  # facts about nodes stay small; `decode_topology` has the chains


def test_an_old_object_still_decodes(placed):
    rig, _ = placed
    old = json.loads(json.dumps(rig.object))
    del old["spec"]["pcie"], old["spec"]["wires"], old["status"]
    for device in (*old["spec"]["gpus"], *old["spec"]["nics"]):
        device.pop("pcie", None)
        device.pop("pcieParent", None)
    machine = decode_topology(decoded(old, NodeTopology))
    assert (machine.pcie, machine.wires, len(machine.gpus), len(machine.links)) == ((), (), 8, 92)
    assert silent_since_ms(decoded(old, NodeTopology), 10**15) is None


def test_a_pair_without_peer_access_says_why():
    fake = hgx_h100()
    fake.p2p[frozenset((0, 1))] = 4
    links = decode_topology(decoded(Rig(fake).turn().object, NodeTopology)).links
    assert {(x.a, x.b): x.p2p for x in links if x.p2p} == {("GPU0", "GPU1"): "disabled"}


def test_direct_nvlinks_are_wires_between_gpus():
    fake = dgx_a100()
    for at, gpu in enumerate(fake.gpus):
        gpu.links = [at ^ 1] * 4
    machine = decode_topology(decoded(Rig(fake).turn().object, NodeTopology))
    assert [(w.a, w.b, w.count) for w in machine.wires] == [(f"GPU{n}", f"GPU{n + 1}", 4) for n in (0, 2, 4, 6)]


# --- silence and health, as far as the placement --------------------------------------------------------------------


class Whole:
    """Agent, intake and engine; the API server's objects go from one to the next."""

    def __init__(self):
        self.rig = Rig(hgx_h100(), now=builders.T0)
        self.stage = builders.Stage(queues=[builders.queue("team")])
        self.facts, self.counted = [], []
        self.intake = Intake(
            self.facts.append, None, level_labels={}, now_ms=lambda: self.rig.now, rng=random.Random(1),
            defer=lambda call: None,
        )  # fmt: skip
        pool = {"metadata": {"name": "fleet"}, "spec": {"nodeSelector": {"pool": "p"}}}
        self.intake.on_pool(ADDED, None, decoded(pool, PoolObject))
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"}
        status = {"allocatable": {"cpu": "192", "memory": "2Ti", "pods": "110"}, "conditions": [ready]}
        found = {"metadata": {"name": NODE, "uid": "u", "labels": {"pool": "p"}}, "status": status}
        self.intake.on_node(ADDED, None, decoded(found, NodeObject))
        self.intake.on_slice(ADDED, None, decoded(slices_of(self.rig.fake), Slice))
        self.intake.open([], [])

    def turn(self, times=1):
        """The agent looks, and the operator hears of it; return the facts of nodes that this made."""
        seen = []
        for _ in range(times):
            self.rig.turn()
            seen += self.hear()
        return seen

    def hear(self):
        self.intake.on_topology(MODIFIED, None, decoded(self.rig.object, NodeTopology))
        return self.flush()

    def flush(self):
        self.intake.nodes.tick()
        self.intake.nodes.flush()
        found, self.facts[:] = list(self.facts), []
        self.stage.now_ms = self.rig.now
        self.stage.take(*found)
        self.counted += [fact for fact in found if isinstance(fact, DevicesCounted)]
        return [fact for fact in found if isinstance(fact, NodeSeen)]

    def placed(self):
        return [effect for effect in self.stage.settle() if isinstance(effect, Place)]


@pytest.fixture
def whole():
    made = Whole()
    made.turn()
    return made


def test_a_bad_verdict_keeps_placement_away_until_the_reset(whole):
    whole.rig.xid(3, 48)
    whole.turn()
    whole.stage.submit("eight", "1x8")
    whole.stage.submit("seven", "1x7")
    (place,) = whole.placed()
    (member,) = place.placement.members
    assert (place.gang, "gpu-3" in member.devices, len(member.devices)) == ("seven", False, 7)
    whole.stage.run("seven")
    whole.stage.end("seven", 0)
    whole.stage.release("seven")
    assert whole.placed() == []
    whole.rig.fake.reset(3)
    whole.turn()
    assert whole.placed() == []  # on probation
    whole.turn(3)
    (place,) = whole.placed()
    assert (place.gang, len(place.placement.members[0].devices)) == ("eight", 8)


def test_a_gpu_that_fails_under_a_gang_leaves_the_gang_alone(whole):
    whole.stage.submit("a", "1x8")
    assert len(whole.placed()) == 1
    whole.stage.run("a")
    whole.rig.fake.lose(0)
    whole.turn()
    assert whole.stage.settle() == []


def test_a_silent_agent_is_said_once_and_its_last_word_stands(whole):
    whole.rig.xid(3, 48)
    whole.turn()
    last = whole.rig.object["status"]["heartbeatMs"]
    whole.rig.now = last + SILENT_MS
    assert whole.flush() == []
    whole.rig.now += STEP
    (said,) = whole.flush()
    (conflict,) = said.node.conflicts
    assert conflict.startswith("the node agent has been silent since 20")
    assert [g.healthy for g in said.node.machine.gpus] == [n != 3 for n in range(8)]
    for _ in range(5):
        whole.rig.now += 10 * SILENT_MS
        assert whole.flush() == []  # the words do not change with the clock
        assert whole.hear() == []
    whole.stage.submit("seven", "1x7")
    assert len(whole.placed()) == 1
    (back,) = whole.turn()
    assert back.node.conflicts == ()
    assert replace(back.node, conflicts=said.node.conflicts) == said.node


def test_a_sign_of_life_alone_is_no_fact(whole):
    assert whole.turn(40) == []
    assert whole.rig.object["status"]["heartbeatMs"] > builders.T0 + 30 * STEP


def test_a_whole_quarter_of_an_hour_is_counted_once_and_told_once(whole):
    whole.rig.fake.gpus[0].busy = 100
    start = whole.rig.now // 900_000 * 900_000 + 900_000
    whole.turn(200)
    first, *more = [fact for fact in whole.counted if fact.from_ms >= start]
    assert (first.name, first.at_ms - first.from_ms, more) == (NODE, 900_000, [])
    assert dict(first.busy) == {"gpu-0": 1_000, **{f"gpu-{at}": 400 for at in range(1, 8)}}
    counted = whole.rig.object["status"]["counted"]
    assert (counted["fromMs"], counted["toMs"]) == (first.from_ms, first.at_ms)


def sample(at_ms, busy):
    return {"GPU-a": Sample(at_ms=at_ms, busy_percent=busy)}


def test_a_window_is_the_mean_of_its_looks_and_one_with_few_looks_is_none():
    windows = BusyWindows()
    for at in range(90):
        windows.saw(sample(at, 50 if at % 2 else 100), 900_000 + 10_000 * at)
    windows.saw(sample(0, 0), 1_800_000)
    assert windows.last == {"fromMs": 900_000, "toMs": 1_800_000, "gpus": [{"uuid": "GPU-a", "busy": 750}]}
    windows.saw(sample(0, 0), 2_700_000)
    assert windows.last["toMs"] == 1_800_000, "two looks say nothing of a quarter of an hour"


def test_a_clock_that_jumps_begins_a_window_anew():
    windows = BusyWindows()
    for at_ms in [*range(900_000, 1_500_000, 10_000), 99_000_000, *range(500_000, 900_001, 10_000)]:
        windows.saw(sample(at_ms, 100), at_ms)
    assert windows.last == {"fromMs": 500_000, "toMs": 900_000, "gpus": [{"uuid": "GPU-a", "busy": 1_000}]}
