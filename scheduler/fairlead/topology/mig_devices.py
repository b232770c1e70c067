"""From a GPU to its grid, and between (profile, start) and the names by which claims hold MIG devices."""

from __future__ import annotations

from collections.abc import Iterable

from fairlead.discovery.mig_slices import canonical
from fairlead.model.hardware import Gpu
from fairlead.model.partitions import parse_device
from fairlead.topology.mig_grid import Grid, grid_of


def grid_of_gpu(gpu: Gpu) -> Grid | None:
    """Return the grid from which a GPU's instances are given out, None for one that gives none.

    GPUs of one geometry get the same object, so it may be compared with `is` and numbered.
    """
    return None if gpu.mig is None else grid_of(gpu.mig)


def device_name(gpu: Gpu, profile: str, start: int) -> str:
    """Return the name by which a claim holds an instance: the slice's own where it exists, else the driver's for it.

    Raises
    ------
    KeyError
        The GPU has no such instance, or could have none.
    """
    found = None if gpu.mig is None else next((p for p in gpu.mig.profiles if p.name == profile), None)
    if gpu.mig is not None and found is not None:
        if gpu.mig.dynamic and start in found.starts:
            return canonical(gpu, found, start)
        for instance in () if gpu.mig.dynamic else gpu.mig.instances:
            if (instance.profile, instance.start) == (found.id, start) and instance.device:
                return instance.device
    raise KeyError(f"{gpu.device} has no {profile} at {start}")


def part_of(gpus: Iterable[Gpu], device: str) -> tuple[Gpu, str, int] | None:
    """Return (GPU, profile, start) of a MIG device's name, None where no GPU here has such a part.

    This is how allocations that were read from the cluster are turned back into states.
    """
    name = parse_device(device)
    for gpu in gpus:
        if gpu.mig is None:
            continue
        names = {p.id: p.name for p in gpu.mig.profiles}
        if gpu.mig.dynamic:
            if name is not None and gpu.device == f"gpu-{name.minor}" and name.profile in names:
                return gpu, names[name.profile], name.start
            continue
        for instance in gpu.mig.instances:
            if instance.device == device and instance.profile in names:
                return gpu, names[instance.profile], instance.start
    return None
