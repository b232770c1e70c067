"""Path classes between two devices of a machine, in nvidia-smi's words, and what they are worth.

Best to worst: ``NV#`` (that many NVLinks), ``PIX`` (one PCIe switch), ``PXB`` (several PCIe switches), ``PHB`` (one
host bridge), ``NODE`` (host bridges of one NUMA node), ``SYS`` (another NUMA node), and "" where nobody knows.

`pcie_switch` may be a chain, the switch nearest to the root first, parts separated by ``/``: two devices below
``sw0/a`` and ``sw0/b`` are PXB to each other.
"""

from __future__ import annotations

import re

from fairlead.model.hardware import Gpu, Link, Machine, Nic

CLASSES = ("PIX", "PXB", "PHB", "NODE", "SYS")
"""PCIe path classes, best first."""

UNKNOWN_RANK = len(CLASSES)
"""What `class_rank` gives for a path that nobody knows: worse than every known one."""

NVLINK_BYTES_PER_S = 25_000_000_000
"""One NVLink in one direction: nominal for NVLink 2 to 4 (300 GB/s over 12 links, 450 over 18); NVLink 5 has twice."""

PCIE4_BYTES_PER_S = {
    "PIX": 26_000_000_000,
    "PXB": 24_000_000_000,
    "PHB": 20_000_000_000,
    "NODE": 16_000_000_000,
    "SYS": 10_000_000_000,
}
"""One direction of PCIe 4.0 x16 by class.

Assumed, not measured: the wire gives 31.5 GB/s, of which about 26 reach a peer below the same switch with 256-byte
payloads; every further bridge costs, and the socket interconnect is shared. What decides is the order, not the figure.
"""

_NVLINK = re.compile(r"NV([1-9][0-9]{0,2})")


def nvlinks(path: str) -> int:
    """Return how many NVLinks a path class names, 0 for a PCIe class or an unknown one."""
    match = _NVLINK.fullmatch(path)
    return int(match[1]) if match else 0


def class_rank(path: str) -> int:
    """Return a path class as a cost: 0 for NVLink and PIX up to 4 for SYS, `UNKNOWN_RANK` where unknown."""
    if path in CLASSES:
        return CLASSES.index(path)
    return 0 if nvlinks(path) else UNKNOWN_RANK


def latency_class(path: str) -> str:
    """Return how far apart the ends of a path are, in one word: nvlink, c2c, switch, host, socket, "" unknown."""
    if nvlinks(path):
        return "nvlink"
    words = {"C2C": "c2c", "PIX": "switch", "PXB": "switch", "PHB": "host", "NODE": "host", "SYS": "socket"}
    return words.get(path, "")


def theoretical_pace(path: str, *, pcie_generation: int = 4, nvlink_bytes_per_s: int = NVLINK_BYTES_PER_S) -> int:
    """Return bytes/s in one direction that a path of this class can give, 0 where the class is unknown.

    Each PCIe generation doubles the one before it.
    """
    links = nvlinks(path)
    if links:
        return links * nvlink_bytes_per_s
    base = PCIE4_BYTES_PER_S.get(path, 0)
    return base << (pcie_generation - 4) if pcie_generation >= 4 else base >> (4 - pcie_generation)


def effective(link: Link) -> int:
    """Return bytes/s that a link gives: what was measured where it stays below the theory, else the theory."""
    if link.measured is not None and 0 < link.measured.bytes_per_s < link.bytes_per_s:
        return link.measured.bytes_per_s
    return link.bytes_per_s or theoretical_pace(link.path)


def tree_class(a: Gpu | Nic, b: Gpu | Nic) -> str:
    """Return the PCIe class that switch, root and NUMA node of two devices imply, "" where they do not suffice.

    Only what is known counts: an empty root or NUMA node -1 never makes two devices equal or different.
    """
    if a.pcie_switch and b.pcie_switch:
        if a.pcie_switch == b.pcie_switch:
            return "PIX"
        if a.pcie_switch.split("/")[0] == b.pcie_switch.split("/")[0]:
            return "PXB"
    if a.pcie_root and a.pcie_root == b.pcie_root:
        return "PHB"
    if a.numa < 0 or b.numa < 0:
        return ""
    return "NODE" if a.numa == b.numa else "SYS"


def path_class(machine: Machine, a: str, b: str) -> str:
    """Return the best known path between two devices of `machine`, named by id: its link's, else the tree's.

    ``X`` for a device and itself, "" where nothing is known (an id that the machine does not have included).
    """
    if a == b:
        return "X"
    for link in machine.links:
        if (link.a == a and link.b == b) or (link.a == b and link.b == a):
            return link.path
    devices: dict[str, Gpu | Nic] = {gpu.id: gpu for gpu in machine.gpus}
    devices.update((nic.id, nic) for nic in machine.nics)
    if a not in devices or b not in devices:
        return ""
    return tree_class(devices[a], devices[b])
