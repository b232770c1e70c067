"""The best device sets of a machine, with what each gives and what it leaves behind, for people and tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fairlead.errors import NotFound
from fairlead.model.hardware import Machine
from fairlead.topology.queries import NicChoice, contention, nic_choices
from fairlead.topology.tables import ShapeTable


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSet:
    """One set of GPUs by id. `pace` is bytes/s of the slowest pair; `nics` pairs each GPU with a NIC of its own.

    `leaves` are (count, bytes/s) of the best sets that the remaining free GPUs still hold, for every count.
    """

    devices: tuple[str, ...]
    pace: int
    numa_nodes: int
    nics: tuple[tuple[str, NicChoice], ...]
    leaves: tuple[tuple[int, int], ...]
    contention: tuple[str, ...]


def mask_of(machine: Machine, ids: Iterable[str]) -> int:
    """Return the device mask of GPUs by id, PCI address, UUID or device name.

    Raises
    ------
    NotFound
        The machine has no such GPU.
    """
    place: dict[str, int] = {}
    for at, gpu in enumerate(machine.gpus):
        for name in (gpu.id, gpu.pci, gpu.uuid, gpu.device):
            place.setdefault(name, at)
    mask = 0
    for name in ids:
        if name not in place or not name:
            raise NotFound(f"no GPU {name!r} in {machine.source}; it has {', '.join(g.id for g in machine.gpus)}")
        mask |= 1 << place[name]
    return mask


def best_set(machine: Machine, table: ShapeTable, count: int, *, free: int, required: int = 0) -> DeviceSet | None:
    """Return the best `count` GPUs out of `free`, None where there are not as many."""
    mask, pace = table.best(free, count, required)
    if not mask:
        return None
    devices = tuple(gpu.id for at, gpu in enumerate(machine.gpus) if mask >> at & 1)
    rest = free & ~mask
    leaves = [(size, table.best(rest, size)[1]) for size in range(1, rest.bit_count() + 1)]
    return DeviceSet(
        devices=devices,
        pace=pace,
        numa_nodes=table.numa_span(mask),
        nics=_paired(machine, devices),
        leaves=tuple(leaves),
        contention=contention(machine, set(devices)),
    )


def _paired(machine: Machine, devices: tuple[str, ...]) -> tuple[tuple[str, NicChoice], ...]:
    """Give each GPU its nearest NIC; of equally near ones, one that no GPU before it has."""
    choices, taken = nic_choices(machine), set[str]()
    pairs: list[tuple[str, NicChoice]] = []
    for device in devices:
        if not choices[device]:
            continue
        near = [choice for choice in choices[device] if choice.path == choices[device][0].path]
        choice = next((choice for choice in near if choice.nic not in taken), near[0])
        taken.add(choice.nic)
        pairs.append((device, choice))
    return tuple(pairs)
