"""Machines for a cluster's nodes: read from files of real ones or built in, and what drivers and agents say of them."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fairlead.discovery import nccl_xml, nvidia_smi_topo
from fairlead.model.hardware import Machine
from fairlead.topology import fleet_machines
from fairlead.topology.fleet_machines import GIB

DRIVER = "gpu.nvidia.com"
DATA = Path(os.environ.get("FAIRLEAD_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
# (file below FAIRLEAD_DATA, model, memory in bytes): matrices and NCCL files say nothing of the last two.
REAL = (
    ("nvidia-smi-topo/dgx-a100-12hca.txt", "NVIDIA A100-SXM4-80GB", 80 * GIB),
    ("nvidia-smi-topo/hgx-h100-8nic.txt", "NVIDIA H100 80GB HBM3", 81_559 << 20),
    ("nccl-topo/azure/ndv4-topo.xml", "NVIDIA A100-SXM4-40GB", 40 * GIB),
)


def data_file(name: str) -> bytes:
    """Read a file below FAIRLEAD_DATA; skip the test where it is absent, unless CI=true."""
    file = DATA / name
    if not file.is_file():
        assert os.environ.get("CI") != "true", f"{name} is missing; set FAIRLEAD_DATA"
        pytest.skip(f"no {name}; set FAIRLEAD_DATA to the data folder")
    return file.read_bytes()


def real_machines() -> list[Machine]:
    """Return a DGX A100, an HGX H100 and an A100 server of a cloud, as our own discovery reads their files."""
    machines = []
    for name, model, memory_bytes in REAL:
        data = data_file(name)
        if name.endswith(".xml"):
            machine, _ = nccl_xml.parse(data, name=name)
        else:
            machine, _ = nvidia_smi_topo.parse(data.decode(), name=name)
        gpus = tuple(replace(gpu, model=model, memory_bytes=memory_bytes) for gpu in machine.gpus)
        assert len(gpus) == 8, name
        machines.append(replace(machine, gpus=gpus))
    return machines


def built_in_machines() -> list[Machine]:
    """Return machines of our own writing, for tests that do not depend on real files."""
    return [fleet_machines.dgx_a100(), fleet_machines.hgx_h100()]


def resource_slice(node: str, machine: Machine) -> dict[str, Any]:
    """Build the slice that NVIDIA's DRA driver publishes for a node, one device a GPU."""
    devices = [
        {
            "name": gpu.device,
            "attributes": {
                "type": {"string": "gpu"},
                "uuid": {"string": gpu.uuid},
                "productName": {"string": gpu.model},
                "resource.kubernetes.io/pciBusID": {"string": gpu.pci},
            },
            "capacity": {"memory": {"value": str(gpu.memory_bytes)}},
        }
        for gpu in machine.gpus
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices}
    return {"metadata": {"name": f"{node}-{DRIVER}"}, "spec": spec}


def topology_spec(machine: Machine) -> dict[str, Any]:
    """Build the spec of a NodeTopology as the agent writes it; what is unknown is left out."""
    gpus = [
        _known(
            id=g.id, index=g.index, device=g.device, uuid=g.uuid, pci=g.pci, model=g.model,
            memoryBytes=g.memory_bytes, numa=g.numa, pcieRoot=g.pcie_root, pcieSwitch=g.pcie_switch,
        )
        for g in machine.gpus
    ]  # fmt: skip
    nics = [
        _known(
            id=n.id, pci=n.pci, numa=n.numa, pcieRoot=n.pcie_root, pcieSwitch=n.pcie_switch,
            bytesPerSecond=n.bytes_per_s, rail=n.rail,
        )
        for n in machine.nics
    ]  # fmt: skip
    numa = [
        _known(id=n.id, cpus=n.cpus, memoryBytes=n.memory_bytes, distances=list(n.distances) or "")
        for n in machine.numa_nodes
    ]
    links = [{"a": x.a, "b": x.b, "class": x.path, "bytesPerSecond": x.bytes_per_s} for x in machine.links]
    whole = {"gpus": gpus, "nics": nics, "numaNodes": numa, "links": links}
    return {"source": machine.source[:60], "observedAtMs": time.time_ns() // 1_000_000, **whole}


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value != ""}
