"""Documents for tests of topology: slices, nodes and a model, small and of the shape that the real ones have."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("FAIRLEAD_DATA", Path(__file__).resolve().parents[1] / "../shared/data"))


def data_files(folder: str) -> list[Path]:
    """Every file below a data folder; none where the data is not there."""
    return sorted(path for path in (DATA / folder).rglob("*") if path.is_file())


def data_file(path: str) -> Path:
    """A file of the data folder; skips where it is absent, except in continuous integration."""
    file = DATA / path
    if not file.is_file():
        assert os.environ.get("CI") != "true", f"{path} is missing; set FAIRLEAD_DATA"
        pytest.skip(f"no {path}; set FAIRLEAD_DATA to the data folder")
    return file


def gpu_device(index: int, *, numa: int = 0, root: str = "pci0000:64", **more: Any) -> dict[str, Any]:
    """A whole GPU as gpu.nvidia.com publishes it."""
    bus = 0x65 + index
    return {
        "name": f"gpu-{index}",
        "attributes": {
            "type": {"string": "gpu"},
            "uuid": {"string": f"GPU-{index:08x}-0000-0000-0000-000000000000"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "architecture": {"string": "Hopper"},
            "cudaComputeCapability": {"version": "9.0.0"},
            "driverVersion": {"version": "580.65.6"},
            "resource.kubernetes.io/pciBusID": {"string": f"0000:{bus:02x}:00.0"},
            "resource.kubernetes.io/pcieRoot": {"string": root},
            "resource.kubernetes.io/numaNode": {"int": numa},
        },
        "capacity": {"memory": {"value": "81559Mi"}},
        **more,
    }


def nic_device(index: int, *, numa: int = 0, root: str = "pci0000:64") -> dict[str, Any]:
    """A NIC as dranet publishes it."""
    return {
        "name": f"pci-0000-{0x60 + index:02x}-00-0",
        "attributes": {
            "dra.net/ifName": {"string": f"eth{index}"},
            "dra.net/rdmaDevice": {"string": f"mlx5_{index}"},
            "dra.net/state": {"string": "up"},
            "dra.net/encapsulation": {"string": "ether"},
            "dra.net/numaNode": {"int": numa},
            "resource.kubernetes.io/pcieRoot": {"string": root},
            "dra.net/pciAddress": {"string": f"0000:{0x60 + index:02x}:00.0"},
        },
    }


def resource_slice(
    node: str, devices: list[dict[str, Any]], *, driver: str = "gpu.nvidia.com", generation: int = 1, count: int = 1
) -> dict[str, Any]:
    """One ResourceSlice."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-{driver}-{generation}"},
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": count},
            "devices": devices,
        },
    }


def node_object(name: str, **labels: str) -> dict[str, Any]:
    """A Node with labels; ``__`` in a keyword stands for ``/`` and nothing else is changed."""
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def as_bytes(*documents: dict[str, Any]) -> bytes:
    """Documents as kubectl prints them: a List in JSON."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(documents)}).encode()


MODEL = b"""\
switches:
  core:
    labels: {topology.kubernetes.io/region: here}
    switches: [s1, s2]
  s1: {switches: [l1, l2]}
  s2: {switches: [l3]}
blocks:
- switch: l1
  nodes: ["n[08-10]"]
  annotations: {accelerator.topology.test/domain: d1}
- switch: l2
  nodes: [n11]
  annotations: {accelerator.topology.test/domain: d1}
- switch: l3
  nodes: [n12]
"""
