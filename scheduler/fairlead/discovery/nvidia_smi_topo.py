"""Read the matrix that ``nvidia-smi topo -m`` prints, as people keep and post it.

Columns are found by counting cells, which lost tabs and run-together cells break. So a row counts only while it proves
itself: its ``X`` must stand in its own column, and after the first unreadable cell nothing of the row is believed. What
a dropped row would have said is taken from the other device's row where that is whole. All that is dropped is in the
warnings, by line and column.

The matrix says nothing about PCI addresses, UUIDs, models or rates: paces are theoretical by class (PCIe 4, 25 GB/s an
NVLink). Switches and roots are inferred from the classes: PIX is one switch, PXB a chain of them, PHB one host bridge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fairlead.errors import UnreadableInput
from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode, NvSwitch
from fairlead.topology.paths import CLASSES, nvlinks, theoretical_pace

_LONGEST = 4 << 20
_MOST_DEVICES = 256
_ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_AFFINITY = re.compile(r"CPU Affinity|NUMA Affinity|GPU NUMA ID", re.IGNORECASE)
_GPU = re.compile(r"GPU([0-9]{1,4})")
_CLASS = re.compile(r"X|NV[1-9][0-9]{0,2}|PIX|PXB|PHB|NODE|SYS|SOC")
_RUN_TOGETHER = re.compile(r"(?:PIX?|PXB?|PHB?|NODE?|NO|SYS?|SOC?|NV[0-9]*|[PNS])[0-9][0-9,-]*")
_CPUS = re.compile(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*")
_LEGEND = re.compile(r"\s*(NIC[0-9]{1,4}):\s*([A-Za-z0-9_.-]{1,64})\s*")
_RULER = re.compile(r"[\s|+:-]+")
_NEAR = ("PIX", "PXB", "PHB", "NODE")


@dataclass(slots=True)
class _Matrix:
    """The header's devices, believed cells by (row, column), affinities by row, and what was dropped."""

    name: str
    devices: list[str]
    tail: list[str]
    tabs: bool
    cells: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    cpus: dict[str, str] = field(default_factory=dict[str, str])
    numa: dict[str, int] = field(default_factory=dict[str, int])
    gpu_numa: dict[str, int] = field(default_factory=dict[str, int])
    nic_names: dict[str, str] = field(default_factory=dict[str, str])
    rows: set[str] = field(default_factory=set[str])
    warnings: list[str] = field(default_factory=list[str])

    def warn(self, line: int, what: str) -> None:
        self.warnings.append(f"{self.name}:{line}: {what}")


def parse(text: str, *, name: str) -> tuple[Machine, tuple[str, ...]]:
    """Return (machine, warnings ``name:line: what``) for the text of one ``nvidia-smi topo -m``.

    Ids are the matrix's own (``GPU0``, ``NIC3``, ``mlx5_0``); devices are called ``gpu-0`` as NVIDIA's DRA driver does.
    ``SOC`` of old drivers is read as ``SYS``. A NIC is on a GPU's NUMA node when the class between them says so.

    Raises
    ------
    UnreadableInput
        No header with GPU columns, a device named twice in it, or not one readable row.
    """
    if len(text) > _LONGEST:
        raise UnreadableInput(
            f"{name}: {len(text)} characters are no topology matrix; give the output of topo -m alone"
        )
    lines = [_plain(line) for line in _ESCAPE.sub("", text).replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    start = next((i for i, line in enumerate(lines) if _is_header(line)), None)
    if start is None:
        raise UnreadableInput(
            f"{name}: no line with GPU columns (GPU0 GPU1 …); give the output of `nvidia-smi topo -m` with its header"
        )
    matrix = _header(name, start + 1, lines[start])
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if line.strip().lower().startswith(("legend", "nic legend")):
            _legend(matrix, lines[number:])
            break
        if line.strip():
            _row(matrix, number, line)
    for device in matrix.devices:
        if device not in matrix.rows:
            matrix.warn(start + 1, f"{device}: no readable row; only what the other rows say of it is kept")
    if not matrix.rows:
        raise UnreadableInput(f"{name}:{start + 2}: no readable row below the header; is the output cut off?")
    return _machine(matrix, _settled(matrix, start + 1)), tuple(matrix.warnings)


def _plain(line: str) -> str:
    """Take off what quoting and tables of Markdown put around a line."""
    quoted = line[1:].removeprefix(" ") if line.startswith(">") else line
    if quoted.lstrip().startswith("|"):
        return "" if _RULER.fullmatch(quoted) else quoted.replace("|", " ")
    return quoted


def _legend(matrix: _Matrix, lines: list[str]) -> None:
    """Read which RDMA device each NIC column is."""
    for line in lines:
        match = _LEGEND.fullmatch(line)
        if match and match[1] in matrix.devices:
            matrix.nic_names.setdefault(match[1], match[2])


def _is_header(line: str) -> bool:
    words = line.split()
    return bool(words) and bool(_GPU.fullmatch(words[0])) and (len(words) == 1 or not _CLASS.fullmatch(words[1]))


def _header(name: str, number: int, line: str) -> _Matrix:
    found = _AFFINITY.search(line)
    devices = line[: found.start() if found else len(line)].split()
    tail = [match.group().upper() for match in _AFFINITY.finditer(line)]
    for device in devices:
        if devices.count(device) > 1:
            raise UnreadableInput(
                f"{name}:{number}: column {device} is there twice; one of the header's cells is damaged"
            )
    if len(devices) > _MOST_DEVICES:
        raise UnreadableInput(f"{name}:{number}: {len(devices)} columns; a machine has at most {_MOST_DEVICES} devices")
    return _Matrix(name, devices, tail, tabs="\t" in line.strip())


def _row(matrix: _Matrix, number: int, line: str) -> None:
    """Believe what one row proves; warn about the rest."""
    cells = [c.strip() for c in line.strip().split("\t")] if matrix.tabs and "\t" in line else line.split()
    label, cells = cells[0], cells[1:]
    if label not in matrix.devices:
        matrix.warn(number, f"row {label!r} is no device of the header; the row is dropped")
        return
    if label in matrix.rows:
        matrix.warn(number, f"{label}: a second row; the row is dropped")
        return
    count = len(matrix.devices)
    good = next((i for i, cell in enumerate(cells[:count]) if not _CLASS.fullmatch(cell)), min(len(cells), count))
    own = matrix.devices.index(label)
    crosses = [i for i, cell in enumerate(cells[:good]) if cell == "X"]
    if crosses != [own]:
        where = f"X is in column {crosses[0] + 1}" if crosses else "there is no readable X"
        matrix.warn(number, f"{label}: {where}, expected in column {own + 1}; the row is dropped")
        return
    if good < count:
        column, cell = matrix.devices[good], cells[good] if good < len(cells) else ""
        # A cell that ran together with the next proves that none before it is missing; anything else may be a shift.
        if not (matrix.tabs and _RUN_TOGETHER.fullmatch(cell)):
            matrix.warn(number, f"{label}, column {column}: {cell!r} is no path class; the row is dropped")
            return
        matrix.warn(number, f"{label}, column {column}: {cell!r} is no path class; the rest of the row is dropped")
    matrix.rows.add(label)
    for column, cell in zip(matrix.devices, cells[:good], strict=False):
        matrix.cells[label, column] = "SYS" if cell == "SOC" else cell
    if good == count:
        _affinity(matrix, number, label, cells[count:])


def _affinity(matrix: _Matrix, number: int, label: str, cells: list[str]) -> None:
    """Read CPU and NUMA affinity; later columns are known to be ragged and are not needed."""
    if not any(cells):
        return
    if not matrix.tabs and len(cells) < min(2, len(matrix.tail)):
        matrix.warn(number, f"{label}: {len(cells)} affinity cells for {len(matrix.tail)} columns; they are dropped")
        return
    later = [cell for cell in cells[2:] if cell]  # an empty cell stands before the GPU's own node, or not
    if "GPU NUMA ID" in matrix.tail and len(later) == 1 and later[0].isdecimal() and len(later[0]) < 6:
        matrix.gpu_numa[label] = int(later[0])
    for column, cell in zip(matrix.tail, cells, strict=False):
        if column == "CPU AFFINITY" and _CPUS.fullmatch(cell):
            matrix.cpus[label] = cell
        elif column == "NUMA AFFINITY" and cell.isdecimal() and len(cell) < 6:
            matrix.numa[label] = int(cell)
        elif column != "GPU NUMA ID" and cell not in ("", "N/A"):
            several = (
                " names several NUMA nodes" if column == "NUMA AFFINITY" and _CPUS.fullmatch(cell) else " is unreadable"
            )
            matrix.warn(number, f"{label}, {column.title()}: {cell!r}{several}; it is unknown now")


def _settled(matrix: _Matrix, header: int) -> dict[tuple[str, str], str]:
    """Return one class per pair of devices; pairs whose two cells differ are dropped."""
    pairs: dict[tuple[str, str], str] = {}
    for at, a in enumerate(matrix.devices):
        for b in matrix.devices[at + 1 :]:
            there, back = matrix.cells.get((a, b)), matrix.cells.get((b, a))
            if there and back and there != back:
                matrix.warn(header, f"{a} and {b} are {there} in one row and {back} in the other; the pair is dropped")
            elif there or back:
                pairs[a, b] = there or back or ""
            else:
                matrix.warn(header, f"{a} and {b}: no readable cell; their path is unknown")
    return pairs


def _machine(matrix: _Matrix, pairs: dict[tuple[str, str], str]) -> Machine:
    switches = _groups(matrix.devices, pairs, ("PIX",))
    chains = _groups(matrix.devices, pairs, ("PIX", "PXB"))
    roots = _groups(matrix.devices, pairs, ("PIX", "PXB", "PHB"))

    def switch(device: str) -> str:
        if device not in chains:
            return ""
        cascaded = any(path == "PXB" and device in pair for pair, path in pairs.items())
        return f"{chains[device]}/{switches.get(device, device)}" if cascaded else chains[device]

    numa = _numa(matrix, pairs)
    gpus: list[Gpu] = []
    nics: list[Nic] = []
    nvswitches: list[NvSwitch] = []
    for device in matrix.devices:
        match = _GPU.fullmatch(device)
        place, root, below = numa.get(device, -1), roots.get(device, ""), switch(device)
        if match:
            index = int(match[1])
            gpus.append(
                Gpu(
                    id=device,
                    index=index,
                    device=f"gpu-{index}",
                    numa=place,
                    pcie_root=root,
                    pcie_switch=below,
                    memory_numa=matrix.gpu_numa.get(device, -1),
                )
            )
        elif device.lower().startswith("nvswitch"):
            nvswitches.append(NvSwitch(id=device, numa=place, pcie_root=root))
        else:
            rdma = matrix.nic_names.get(device, device if device.startswith("mlx") else "")
            nics.append(Nic(id=device, numa=place, pcie_root=root, pcie_switch=below, rdma=rdma))
    cpus = {
        matrix.numa[device]: matrix.cpus.get(device, "") for device in reversed(matrix.devices) if device in matrix.numa
    }
    return Machine(
        source=matrix.name,
        gpus=tuple(gpus),
        nics=tuple(nics),
        nvswitches=tuple(nvswitches),
        numa_nodes=tuple(NumaNode(id=node, cpus=cpus[node]) for node in sorted(cpus)),
        links=tuple(
            Link(a=a, b=b, path=path, bytes_per_s=theoretical_pace(path))
            for (a, b), path in pairs.items()
            if (path in CLASSES or nvlinks(path)) and not {a, b} & {switch.id for switch in nvswitches}
        ),
    )


def _numa(matrix: _Matrix, pairs: dict[tuple[str, str], str]) -> dict[str, int]:
    """Return NUMA nodes by device: as the rows say, and a NIC's where the classes to GPUs leave only one."""
    numa = dict(matrix.numa)
    for device in matrix.devices:
        if not _GPU.fullmatch(device) and device not in numa:
            near = {
                matrix.numa[other]
                for pair, path in pairs.items()
                if device in pair and path in _NEAR
                for other in pair
                if other != device and other in matrix.numa
            }
            if len(near) == 1:
                numa[device] = near.pop()
    return numa


def _groups(devices: list[str], pairs: dict[tuple[str, str], str], classes: tuple[str, ...]) -> dict[str, str]:
    """Return device -> group of those joined by `classes`, named after its first device; loners are left out."""
    first = {device: device for device in devices}
    for (a, b), path in pairs.items():
        if path in classes and first[a] != first[b]:
            low, high = sorted((first[a], first[b]), key=devices.index)
            for device, group in first.items():
                if group == high:
                    first[device] = low
    members = list(first.values())
    return {device: group for device, group in first.items() if members.count(group) > 1}
