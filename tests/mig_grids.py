"""Grids and GPUs for tests of MIG, by product name."""

from __future__ import annotations

from dataclasses import replace

from fairlead.discovery.mig_tables import profiles_of
from fairlead.model.hardware import Gpu
from fairlead.model.partitions import MigGeometry, MigInstance, device_text
from fairlead.topology.mig_grid import full_grid, grid_of

A100_40, A100_80 = "NVIDIA A100-SXM4-40GB", "NVIDIA A100-SXM4-80GB"
RTX = "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
PRODUCTS = (
    A100_40,
    A100_80,
    "NVIDIA H100 80GB HBM3",
    "NVIDIA H100 NVL",
    "NVIDIA B200",
    "NVIDIA GB300",
    "NVIDIA A30",
    RTX,
)
PLAIN = ("1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
HOUR = 3_600_000


def plain_gpu(model):
    return Gpu(id="GPU0", index=0, device="gpu-0", model=model)


def grid(model=A100_80, only=()):
    """The grid of a product, with some of its profiles."""
    found = full_grid(tuple(p for p in profiles_of(model) if not only or p.name in only))
    assert found is not None
    return found


def cut_grid(model, *layout):
    """The grid of a GPU in static mode, cut like this."""
    profiles = profiles_of(model)
    number = {p.name: p for p in profiles}
    instances = tuple(
        MigInstance(id=at, profile=number[name].id, start=start, size=number[name].size)
        for at, (name, start) in enumerate(layout)
    )
    return grid_of(MigGeometry(enabled=True, pending=True, profiles=profiles, instances=instances))


def cut_gpus(gpus: tuple[Gpu, ...], text: str) -> tuple[Gpu, ...]:
    cuts = text.split("/")
    return tuple(cut_gpu(gpu, cuts[min(i, len(cuts) - 1)]) for i, gpu in enumerate(gpus))


def cut_gpu(gpu: Gpu, text: str) -> Gpu:
    """Cut one GPU: ``dynamic``, ``-`` for whole, ``""`` for MIG mode without instances, or 3g.40gb@0,1g.10gb@4."""
    if text == "-":
        return gpu
    profiles = profiles_of(gpu.model)
    number = {p.name: p for p in profiles}
    dynamic = text == "dynamic"
    found = () if dynamic else tuple(part.split("@") for part in text.split(",") if part)
    instances = tuple(
        MigInstance(
            id=at,
            profile=number[name].id,
            start=int(start),
            size=number[name].size,
            device=f"{gpu.device}-mig-{device_text(name)}-{number[name].id}-{start}",
        )
        for at, (name, start) in enumerate(found)
    )
    geometry = MigGeometry(enabled=True, pending=True, profiles=profiles, instances=instances, dynamic=dynamic)
    return replace(gpu, mig=geometry, mig_enabled=True, whole=dynamic)
