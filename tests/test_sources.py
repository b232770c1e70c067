"""Slices, labels and models become one inventory; what disagrees is said, what is damaged is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from topology_files import (
    MODEL,
    as_bytes,
    data_file,
    data_files,
    gpu_device,
    nic_device,
    node_object,
    resource_slice,
)

from fairlead.discovery import measurements, sources, topograph
from fairlead.discovery.merge import merge
from fairlead.discovery.sources import kind_of, machine_name, read_bytes, read_path
from fairlead.errors import UnreadableInput
from fairlead.model.fabric import Inventory

MATRIX = (
    b"\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\n"
    b"GPU0\t X \tNV18\tPIX\t0-7\t0\t\tN/A\n"
    b"GPU1\tNV18\t X \tSYS\t8-15\t1\t\tN/A\n"
    b"NIC0\tPIX\tSYS\t X \t\t\t\n\nNIC Legend:\n\n  NIC0: mlx5_0\n"
)


def read(data: bytes, name: str = "f") -> Inventory:
    return read_bytes(data, name=name, machine="box")


def whats(inventory: Inventory) -> str:
    return "\n".join(f"{warning.where}: {warning.what}" for warning in inventory.warnings)


# --- ResourceSlices


def test_slices_give_devices_with_root_and_numa_node() -> None:
    inventory = read(
        as_bytes(
            resource_slice("n1", [gpu_device(1, numa=1, root="pci0000:a0"), gpu_device(0)]),
            resource_slice("n1", [nic_device(0)], driver="dra.net"),
        )
    )
    machine = inventory.machines[0].machine
    assert [(g.id, g.numa, g.pcie_root, g.compute, g.memory_bytes) for g in machine.gpus] == [
        ("gpu-0", 0, "pci0000:64", "9.0", 81559 << 20),
        ("gpu-1", 1, "pci0000:a0", "9.0", 81559 << 20),
    ]
    assert [(n.rdma, n.netdevs, n.kind, n.state) for n in machine.nics] == [("mlx5_0", ("eth0",), "ethernet", "up")]
    assert {(link.a, link.b): link.path for link in machine.links} == {
        ("gpu-0", "gpu-1"): "SYS",
        ("gpu-0", "pci-0000-60-00-0"): "PHB",
        ("gpu-1", "pci-0000-60-00-0"): "SYS",
    }
    assert inventory.warnings == ()


def test_only_the_newest_generation_counts_and_a_missing_slice_is_said() -> None:
    inventory = read(
        as_bytes(
            resource_slice("n1", [gpu_device(0), gpu_device(1)], generation=3),
            resource_slice("n1", [gpu_device(0)], generation=4, count=2),
        )
    )
    assert [g.id for g in inventory.machines[0].machine.gpus] == ["gpu-0"]
    assert "1 of 2 slices" in whats(inventory)


def test_parts_of_a_gpu_only_say_how_it_can_be_cut_and_taints_make_it_unhealthy() -> None:
    part = {"name": "gpu-0-mig-1g10gb-19-0", "attributes": {"type": {"string": "mig"}, "profile": {"string": "1g.10gb"},
            "parentUUID": {"string": "GPU-00000000-0000-0000-0000-000000000000"}}}  # fmt: skip
    taint = {"taints": [{"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoExecute"}]}
    machine = read(as_bytes(resource_slice("n1", [gpu_device(0, **taint), part]))).machines[0].machine
    assert len(machine.gpus) == 1
    assert machine.gpus[0].mig_profiles == ("1g.10gb",)
    assert (machine.gpus[0].healthy, machine.gpus[0].health_reason) == (False, "gpu.nvidia.com/xid=79")


def test_unknown_drivers_and_addresses_that_are_none_are_said() -> None:
    broken = gpu_device(0)
    broken["attributes"]["resource.kubernetes.io/pciBusID"] = {"string": "65:00"}
    inventory = read(as_bytes(resource_slice("n1", [broken]), resource_slice("n1", [], driver="example.com")))
    assert "pciBusID '65:00' is no PCI address" in whats(inventory)
    assert "driver 'example.com' is not read here" in whats(inventory)
    assert inventory.machines[0].machine.gpus[0].pci == ""


# --- node labels


def test_labels_make_gpus_groups_and_tiers() -> None:
    labels = {
        "nvidia.com/gpu.count": "4",
        "nvidia.com/gpu.product": "NVIDIA-GB200",
        "nvidia.com/gpu.memory": "189471",
        "nvidia.com/gpu.clique": "7b2c.1",
        "fairlead.dev/rack": "r1",
        "fairlead.dev/power-domain": "pdu-a",
        "topology.kubernetes.io/zone": "z",
        "network.topology.nvidia.com/leaf": "l1",
        "network.topology.nvidia.com/spine": "s1",
    }
    inventory = read(as_bytes(node_object("n1", **labels), node_object("n2", **labels)))
    assert len(inventory.machines[1].machine.gpus) == 4
    assert inventory.machines[0].machine.gpus[0].model == "NVIDIA GB200"
    keys = {vertex.key: vertex.tier for vertex in inventory.fabric.vertices}
    assert keys == {"nvl-domain:7b2c.1": 0, "rack:r1": 0, "power-domain:pdu-a": 0, "zone:z": 0,
                    "switch:l1": 1, "switch:s1": 2}  # fmt: skip
    assert ("switch:l1", "switch:s1") in {(link.a, link.b) for link in inventory.fabric.links}


@pytest.mark.parametrize(
    "labels",
    [
        {"topology.k8s.aws/network-node-layer-3": "c", "topology.k8s.aws/network-node-layer-2": "b",
         "topology.k8s.aws/network-node-layer-1": "a"},
        {"oci.oraclecloud.com/rdma.local_block_id": "c", "oci.oraclecloud.com/rdma.network_block_id": "b",
         "oci.oraclecloud.com/rdma.hpc_island_id": "a"},
        {"fabric.topograph.run/tier-0": "c", "fabric.topograph.run/tier-1": "b", "fabric.topograph.run/tier-2": "a"},
    ],
)  # fmt: skip
def test_each_provider_names_its_tiers_in_its_own_words(labels: dict[str, str]) -> None:
    found = read(as_bytes(node_object("n1", **labels))).fabric
    assert [(v.id, v.tier) for v in found.vertices] == [("c", 1), ("b", 2), ("a", 3)]


def test_labels_that_contradict_each_other_are_said() -> None:
    inventory = read(
        as_bytes(
            node_object("n1", **{"fairlead.dev/rack": "r1", "topology.kubernetes.io/rack": "r9",
                                 "nvidia.com/gpu.count": "many", "fabric.topograph.run/tier-0": "l1",
                                 "fabric.topograph.run/tier-1": "s1"}),
            node_object("n2", **{"fabric.topograph.run/tier-0": "l1", "fabric.topograph.run/tier-1": "s2"}),
        )
    )  # fmt: skip
    said = whats(inventory)
    assert "fairlead.dev/rack says r1, topology.kubernetes.io/rack says r9" in said
    assert "nvidia.com/gpu.count 'many' is no number" in said
    assert "switch:l1 hangs on switch:s2 here and on switch:s1 elsewhere" in said


# --- fabric models


def test_a_model_gives_nodes_tiers_and_domains() -> None:
    inventory = read(MODEL)
    assert [m.name for m in inventory.machines] == ["n08", "n09", "n10", "n11", "n12"]
    tiers = {v.id: v.tier for v in inventory.fabric.vertices if v.kind == "switch"}
    assert tiers == {"core": 3, "s1": 2, "s2": 2, "l1": 1, "l2": 1, "l3": 1}
    members = [link.a for link in inventory.fabric.links if link.b == "nvl-domain:d1"]
    assert members == ["node:n08", "node:n09", "node:n10", "node:n11"]
    assert sum(link.b == "region:here" for link in inventory.fabric.links) == 5


def test_the_older_layout_of_models_is_read_too() -> None:
    old = b"""\
switches: [{name: top, switches: [leaf]}, {name: leaf, capacity_blocks: [cb1]}]
capacity_blocks: [{name: cb1, type: H100, nvlink: nv1, nodes: [a, b]}, {name: cb2, nodes: [c]}]
"""
    inventory = read(old)
    links = {(link.a, link.b) for link in inventory.fabric.links}
    assert {("node:a", "switch:leaf"), ("switch:leaf", "switch:top"), ("node:b", "nvl-domain:nv1")} <= links
    assert not any(a == "node:c" for a, _ in links)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"n[08-10]", b"n[10-08]", "blocks.0.nodes: range '10-08' in 'n[10-08]' runs backwards"),
        (b"n[08-10]", b"n[08-10", "is no node and no range"),
        (b"n[08-10]", b"n[1-999999999]", "names too many nodes"),
        (b"s2: {switches: [l3]}", b"s2: {switches: [core]}", "the switches above it lead back to it"),
        (b"nodes: [n11]", b"nodes: n11", "blocks.1.nodes: expected a list, found text"),
        (b"core:", b"core: &a", "expected a mapping"),
    ],
)
def test_damaged_models_are_refused_by_field(old: bytes, new: bytes, says: str) -> None:
    broken = MODEL.replace(old, new)
    if new.endswith(b"&a"):
        broken = broken.replace(b"l2: ", b"").replace(b"  s1: {switches: [l1, l2]}", b"  s1: [l1]")
    with pytest.raises(UnreadableInput) as refused:
        read(broken)
    assert says in str(refused.value)


def test_the_nvl72_model_has_four_domains_of_eighteen_below_four_leaves_and_two_spines() -> None:
    fabric = read_path(data_file("topograph/models/nvl72.yaml")).fabric
    tiers = [v.tier for v in fabric.vertices if v.kind == "switch"]
    assert (tiers.count(1), tiers.count(2)) == (4, 2)
    domains = [v.key for v in fabric.vertices if v.kind == "nvl-domain"]
    assert [sum(link.b == key for link in fabric.links) for key in domains] == [18] * 4


# --- one inventory of many


def test_sources_of_one_machine_are_joined_and_each_fact_knows_where_it_is_from(tmp_path: Path) -> None:
    (tmp_path / "n1.topo.txt").write_bytes(MATRIX)
    devices = [gpu_device(0), gpu_device(1, numa=1)]
    (tmp_path / "slices.json").write_bytes(as_bytes(resource_slice("n1", devices)))
    (tmp_path / "nodes.json").write_bytes(as_bytes(node_object("n1", **{"nvidia.com/gpu.clique": "c.0"})))
    (tmp_path / "notes.md").write_text("nothing of ours")
    inventory = read_path(tmp_path)
    assert len(inventory.machines) == 1
    found = inventory.machines[0]
    assert [kind for kind, _ in found.sources] == ["nvidia-smi-topo", "resource-slices", "node-labels"]
    gpu = found.machine.gpus[0]
    assert (gpu.id, gpu.pci, gpu.model) == ("GPU0", "0000:65:00.0", "NVIDIA H100 80GB HBM3")
    assert {link.path for link in found.machine.links} == {"NV18", "PIX", "SYS"}
    assert found.machine.clique == "c.0"
    sources_of = {(f.subject, f.fact): f.source for f in found.machine.facts}
    assert sources_of["GPU0", "uuid"].endswith("slices.json")
    assert [w.where.rpartition("/")[2] for w in inventory.warnings if "left out" in w.what] == ["notes.md"]


def test_disagreements_are_said_and_the_more_trusted_source_is_taken() -> None:
    matrix = read(MATRIX, "m.txt")
    slices = read(as_bytes(resource_slice("box", [gpu_device(0, numa=1), gpu_device(1, numa=1)])), "s.json")
    labels = read(as_bytes(node_object("box", **{"nvidia.com/gpu.count": "8"})), "l.json")
    joined = merge([labels, slices, matrix], source="all")
    assert joined.machines[0].machine.gpus[0].numa == 0
    assert "GPU0 numa: 0 by nvidia-smi-topo (m.txt), 1 by resource-slices (s.json); the first is taken" in whats(joined)
    assert "2 GPUs by nvidia-smi-topo (m.txt), 8 by node-labels (l.json); none are joined" in whats(joined)
    assert "NV18" in {link.path for link in joined.machines[0].machine.links}, "PCIe alone contradicts no NVLink"


def test_a_gpu_that_one_source_lacks_is_said() -> None:
    one = read(as_bytes(resource_slice("box", [gpu_device(0), gpu_device(1)])), "a")
    other = read(as_bytes(resource_slice("box", [gpu_device(0), gpu_device(2)])), "b")
    said = whats(merge([one, other], source="all"))
    assert "gpu-2 (0000:67:00.0) of resource-slices (b) is not in resource-slices (a)" in said
    assert "gpu-1 (0000:66:00.0) of resource-slices (a) is not in resource-slices (b)" in said


def test_a_label_and_a_model_that_name_different_domains_are_said() -> None:
    model = read(MODEL, "model")
    labels = read(as_bytes(node_object("n08", **{"nvidia.com/gpu.clique": "d7"})), "nodes")
    joined = merge([model, labels], source="all")
    assert "node:n08 is in nvl-domain:d7, by model in nvl-domain:d1; the first is taken" in whats(joined)


def test_a_node_topology_is_read_as_the_agent_writes_it() -> None:
    document = {
        "apiVersion": "fairlead.dev/v1alpha1", "kind": "NodeTopology", "metadata": {"name": "n1"},
        "spec": {"source": "agent", "observedAtMs": 5, "clique": "c.1",
                 "gpus": [{"id": "GPU0", "index": 0, "pci": "0000:01:00.0", "numa": 0, "healthy": False}],
                 "links": [{"a": "GPU0", "b": "NIC0", "class": "PIX", "bytesPerSecond": 7}],
                 "nics": [{"id": "NIC0", "bytesPerSecond": 9}], "numaNodes": [{"id": 0, "distances": [10]}]},
    }  # fmt: skip
    inventory = read(as_bytes(document))
    machine = inventory.machines[0].machine
    assert (machine.gpus[0].healthy, machine.observed_at_ms, machine.links[0].path) == (False, 5, "PIX")
    assert [v.key for v in inventory.fabric.vertices] == ["nvl-domain:c.1"]


# --- what is no source


def test_names_of_files_become_names_of_machines() -> None:
    assert machine_name(Path("a/n1.topo.txt")) == "n1"
    assert machine_name(Path("gpu1.example.com.xml")) == "gpu1.example.com"
    assert machine_name(Path("16em64t-4s2c2t-offlines.tar.bz2")) == "16em64t-4s2c2t-offlines"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "of no kind that is read here"),
        (b"kind: Pod\nmetadata: {name: x}\n", "no Node, ResourceSlice, NodeTopology or fabric model in it, but Pod"),
        (b"kind: Node\n" + b"a: {" * 100, "nested deeper than 64"),
        (b'{"kind": ' + b"[" * 100_000, "f: nested too deep|nested deeper"),
        (b"kind: &a Node\nmetadata: *a\n", "f:2: an alias (*a) is not read"),
        (b"kind: Node\nmetadata: []\n", "f: Node[0].metadata: expected a mapping of names to values, found a list"),
        (b"kind: Node\nmetadata: {}\n", "f: Node[0].metadata.name: a Node needs a name"),
        (b"kind: ResourceSlice\nspec: {nodeName: n, pool: {generation: x}}\n",
         "spec.pool.generation: expected a whole number, found 'x'"),
        (b"\xff\xfe kind", "of no kind|is not UTF-8"),
        (b"switches: {a: {switches: b}}\nblocks: []", "switches.a.switches: expected a list, found text"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_file_and_field(data: bytes, says: str) -> None:
    with pytest.raises(UnreadableInput) as refused:
        read(data)
    assert any(part in str(refused.value) for part in says.split("|"))


def test_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableInput, match="no such file or directory"):
        read_path(tmp_path / "nothing")
    with pytest.raises(UnreadableInput, match="nothing in it can be read"):
        read_path(tmp_path)
    with pytest.raises(UnreadableInput, match="kind 'x' is not known"):
        read_path(tmp_path, kind="x")


def test_measurements_name_their_fields() -> None:
    found = measurements.parse(b'{"measurements": [{"a": "GPU0", "b": "GPU1", "bytes_per_s": 5}]}', name="f")
    assert (found[0].a, found[0].bytes_per_s, found[0].machine) == ("GPU0", 5, "")
    for data, says in ((b"a: 1", "measurements: is required"), (b"measurements: [{a: x}]", "a and b are required"),
                       (b"measurements: [{a: x, b: y, bytes_per_s: -1}]", "cannot be negative")):  # fmt: skip
        with pytest.raises(UnreadableInput, match=says):
            measurements.parse(data, name="f")


# --- real files, whole and damaged


FOLDERS = ("hwloc", "nvidia-smi-topo", "nccl-topo", "topograph")
REAL = [path for folder in FOLDERS for path in data_files(folder)]
SOURCES = [path for path in REAL if path.suffix in (".txt", ".xml", ".yaml", ".bz2")]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_every_real_file_is_read_or_refused_by_name(path: Path) -> None:
    if path in SOURCES:
        assert read_path(path).machines
    else:
        with pytest.raises(UnreadableInput) as refused:
            read_path(path)
        assert str(refused.value).startswith(str(path))
        assert "\n" not in str(refused.value)


def test_all_of_a_folder_is_one_inventory() -> None:
    inventory = read_path(data_file("nvidia-smi-topo/dgx1-v100.txt").parent)
    assert len(inventory.machines) == 13
    assert any("SOURCE.md" in warning.where for warning in inventory.warnings)


WORDS = [b"", b"\t", b"[", b"{", b"- ", b": ", b"null", b"\x00", b"-1", b"99999999999", b"GPU0", b'"', b"\n", b"\xff",
         b"}", b"[1-9]", b"true"]  # fmt: skip
SEEDS = [MODEL, MATRIX,
         as_bytes(resource_slice("n1", [gpu_device(0)]), resource_slice("n1", [nic_device(0)], driver="dra.net")),
         as_bytes(node_object("n1", **{"nvidia.com/gpu.count": "2", "fabric.topograph.run/tier-0": "l"})),
         *(path.read_bytes() for path in SOURCES if path.suffix != ".bz2" and "hwloc" not in str(path))]  # fmt: skip


@settings(max_examples=300, deadline=5_000)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    found = data.draw(st.sampled_from(SEEDS))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(found)))
        until = min(len(found), at + data.draw(st.integers(0, 40)))
        found = found[:at] + data.draw(st.sampled_from(WORDS)) + found[until:]
    kind = data.draw(st.sampled_from(["", kind_of(found), *sources.KINDS]))
    inventory, refused = attempt(found, kind)
    assert refused.startswith("f") if inventory is None else all(warning.what for warning in inventory.warnings)


def attempt(data: bytes, kind: str) -> tuple[Inventory | None, str]:
    """The inventory, or why it was refused; any other exception is a failure."""
    try:
        return read_bytes(data, name="f", machine="box", kind=kind), ""
    except UnreadableInput as refused:
        return None, str(refused)


@settings(max_examples=150, deadline=2_000)
@given(value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["kind", "spec", "metadata", "name", "labels", "switches", "blocks", "nodes", "devices",
                         "attributes", "pool", "items", "gpus"]), inner, max_size=4),
    max_leaves=20))  # fmt: skip
def test_documents_of_any_shape_are_read_or_refused(value: object) -> None:
    for kind in ("Node", "ResourceSlice", "NodeTopology", "List", None):
        document = {**value, "kind": kind} if isinstance(value, dict) else value
        if kind is None and isinstance(document, dict):
            document = {"switches": value, "blocks": value}
        inventory, refused = attempt(json.dumps(document).encode(), "documents")
        assert inventory is not None or refused.startswith("f")


def test_ranges_keep_their_width() -> None:
    assert topograph.expand("n[8-10,12]-ib", where="") == ["n8-ib", "n9-ib", "n10-ib", "n12-ib"]
    assert topograph.expand("[1101-1102]", where="") == ["1101", "1102"]
