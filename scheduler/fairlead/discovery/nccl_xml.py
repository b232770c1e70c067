"""Read NCCL's topology XML: files made for ``NCCL_TOPO_FILE`` and dumps of ``NCCL_TOPO_DUMP_FILE``.

The file nests devices below PCIe switches below CPUs. It does not tell host bridges of one CPU apart, so two devices
that share a CPU but no switch are PHB. Documents with a DOCTYPE are refused, so entities cannot be declared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

from fairlead.discovery.pci import normal_pci
from fairlead.discovery.pci_tree import pcie_link
from fairlead.errors import UnreadableInput
from fairlead.model.hardware import NO_PCIE_LINK, Gpu, Link, Machine, Nic, NumaNode, PcieLink, PciFunction
from fairlead.topology.paths import theoretical_pace, tree_class

_LARGEST = 16 << 20
_MOST_DEVICES = 256
_DEEPEST = 16  # switches in a chain
_SPEED = re.compile(r"([0-9]{1,3})(?:\.([0-9]))?\s*GT/s.*")
_GENERATIONS = {25: 1, 50: 2, 80: 3, 160: 4, 320: 5, 640: 6}
_PCIE4_X16 = 16 * 160  # lanes × tenths of GT/s: what the paces of `theoretical_pace` are for


@dataclass(slots=True)
class _Found:
    """Devices in document order. `rate` is lanes × tenths of GT/s of a device's own slot, 0 unknown."""

    name: str
    gpus: list[tuple[Gpu, int | None]] = field(default_factory=list[tuple[Gpu, int | None]])
    nics: list[Nic] = field(default_factory=list[Nic])
    numa_nodes: list[NumaNode] = field(default_factory=list[NumaNode])
    rate: dict[str, int] = field(default_factory=dict[str, int])
    pcie: list[PciFunction] = field(default_factory=list[PciFunction])
    direct: dict[str, str] = field(default_factory=dict[str, str])
    nvlinks: dict[str, list[tuple[str, str, int]]] = field(default_factory=dict[str, list[tuple[str, str, int]]])
    warnings: list[str] = field(default_factory=list[str])

    def warn(self, where: str, what: str) -> None:
        self.warnings.append(f"{self.name}: {where}: {what}")


class _NoDoctype(ElementTree.TreeBuilder):
    """A tree builder that stops at a DOCTYPE, before any entity can be declared."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise UnreadableInput("a DOCTYPE is not allowed here; remove it, NCCL writes none")


def parse(data: bytes, *, name: str) -> tuple[Machine, tuple[str, ...]]:
    """Return (machine, warnings) for the bytes of one file.

    GPUs are numbered by their ``dev`` attribute where every GPU has one, else in order of PCI address, as nvidia-smi
    numbers them; NICs take the name of their ``net``, else ``NIC<n>`` in document order. Paces are theoretical by
    class, scaled by the slower slot's ``link_speed`` × ``link_width``.

    Raises
    ------
    UnreadableInput
        Not XML, not a ``<system>``, or a device without a PCI address; the message names the place.
    """
    found = _Found(name)
    root = _document(data, name)
    for at, cpu in enumerate(root):
        where = f"cpu[{at}]"
        if cpu.tag != "cpu":
            found.warn(f"{cpu.tag}[{at}]", "only <cpu> is read here; it is dropped")
            continue
        numa = _number(cpu, "numaid", found, where)
        if any(node.id == numa for node in found.numa_nodes):
            found.warn(where, f"numaid {numa} is there twice; both count as one NUMA node")
        elif numa >= 0:
            found.numa_nodes.append(NumaNode(id=numa, cpus=_cpu_list(cpu.get("affinity", ""), found, where)))
        _below_cpu(cpu, numa, where, found)
    if not found.gpus:
        found.warn("system", "no device has the class of a GPU (0x0302 or 0x0300)")
    elif len(found.gpus) > 1 and not found.nvlinks:
        found.warn("system", "no <nvlink> below any GPU; paths between GPUs are those of PCIe alone")
    return _machine(found), tuple(found.warnings)


def _document(data: bytes, name: str) -> ElementTree.Element:
    if len(data) > _LARGEST:
        raise UnreadableInput(f"{name}: {len(data)} bytes are no NCCL topology; the limit is {_LARGEST}")
    try:
        root = ElementTree.XML(data, parser=ElementTree.XMLParser(target=_NoDoctype()))
    except UnreadableInput as refused:
        raise UnreadableInput(f"{name}: {refused}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as broken:
        raise UnreadableInput(f"{name}: not well-formed XML ({broken}); is the file cut off?") from None
    if root.tag != "system":
        raise UnreadableInput(f"{name}: the document is <{root.tag}>, expected NCCL's <system>")
    return root


def _below_cpu(cpu: ElementTree.Element, numa: int, where: str, found: _Found) -> None:
    """Walk the PCIe tree below a CPU without recursion, so that depth costs nothing."""
    todo: list[tuple[ElementTree.Element, str, str]] = [(cpu, "", where)]
    while todo:
        element, switches, path = todo.pop()
        below: list[tuple[ElementTree.Element, str, str]] = []
        for at, child in enumerate(element):
            here = f"{path}/{child.tag}[{at}]"
            if child.tag != "pci":
                if child.tag != "nic" or element is not cpu:
                    found.warn(here, f"<{child.tag}> is not known at this place; it is dropped")
                continue
            pci = normal_pci(child.get("busid", ""))
            if not pci:
                raise UnreadableInput(f"{found.name}: {here}: busid {child.get('busid')!r} is no PCI address")
            kind = child.get("class", "").lower()
            root = f"cpu{numa}" if numa >= 0 else ""
            above = switches.rpartition("/")[2] or root
            if kind.startswith("0x0604"):
                if switches.count("/") + 1 >= _DEEPEST:
                    raise UnreadableInput(f"{found.name}: {pci}: more than {_DEEPEST} switches in a chain")
                link = _pcie(child)
                found.pcie.append(PciFunction(id=pci, parent=above, kind="switch-upstream", numa=numa, link=link))
                below.append((child, f"{switches}/{pci}" if switches else pci, here))
            else:
                _device(child, pci, kind, numa, switches, here, found)
        todo += reversed(below)


def _device(
    element: ElementTree.Element, pci: str, kind: str, numa: int, switches: str, where: str, found: _Found
) -> None:
    root = f"cpu{numa}" if numa >= 0 else ""
    if len(found.gpus) + len(found.nics) >= _MOST_DEVICES:
        raise UnreadableInput(f"{found.name}: {where}: more than {_MOST_DEVICES} devices; no machine has as many")
    if pci in found.rate:
        found.warn(where, f"busid {pci} is there twice; the second is dropped")
    elif kind.startswith(("0x0302", "0x0300")):
        found.rate[pci] = _slot(element, where, found)
        gpu = element.find("gpu")
        found.direct[pci] = "" if gpu is None else gpu.get("gdr", "")
        dev = None if gpu is None or gpu.get("dev") is None else _number(gpu, "dev", found, f"{where}/gpu")
        found.gpus.append(
            (
                Gpu(
                    id=pci,
                    index=0,
                    device="",
                    pci=pci,
                    numa=numa,
                    pcie_root=root,
                    pcie_switch=switches,
                    pcie=_pcie(element),
                    compute=_compute("" if gpu is None else gpu.get("sm", "")),
                ),
                dev,
            )
        )
        for at, link in enumerate([] if gpu is None else gpu.findall("nvlink")):
            lanes = _number(link, "count", found, f"{where}/gpu/nvlink[{at}]")
            target = normal_pci(link.get("target", ""))
            found.nvlinks.setdefault(pci, []).append((target, link.get("tclass", "").lower(), max(lanes, 0)))
    elif kind.startswith(("0x0200", "0x0207")):
        found.rate[pci] = _slot(element, where, found)
        net = element.find("nic/net")
        named = net.get("name", "") if net is not None else ""
        found.direct[pci] = net.get("gdr", "") if net is not None else ""
        taken = {nic.id for nic in found.nics}
        speed = _number(net, "speed", found, f"{where}/nic/net") if net is not None and net.get("speed") else 0
        found.nics.append(
            Nic(
                id=named if named and named not in taken else f"NIC{len(found.nics)}",
                pci=pci,
                numa=numa,
                pcie_root=root,
                pcie_switch=switches,
                bytes_per_s=max(speed, 0) * 1_000_000 // 8,
                pcie=_pcie(element),
            )
        )
    else:
        what = f"class {kind} is neither GPU nor NIC nor switch" if kind else "no class, so nobody knows what it is"
        found.warn(where, f"{pci}: {what}; it is dropped")


def _number(element: ElementTree.Element, key: str, found: _Found, where: str) -> int:
    text = element.get(key, "").strip()
    if re.fullmatch(r"-?[0-9]{1,9}", text):
        return int(text)
    found.warn(where, f"{key} {text!r} is no number; it is unknown now")
    return -1


def _slot(element: ElementTree.Element, where: str, found: _Found) -> int:
    """Return lanes × tenths of GT/s, 0 where the file does not say."""
    speed, width = element.get("link_speed", ""), element.get("link_width", "")
    match = _SPEED.fullmatch(speed)
    if match and re.fullmatch(r"[0-9]{1,2}", width):
        return (int(match[1]) * 10 + int(match[2] or 0)) * int(width)
    if speed or width:
        found.warn(where, f"link_speed {speed!r} with link_width {width!r} is unreadable; PCIe 4 x16 is assumed")
    return 0


def _pcie(element: ElementTree.Element) -> PcieLink:
    """Return the slot as the file states it; virtual machines are known to state what is not so."""
    match, width = _SPEED.fullmatch(element.get("link_speed", "")), element.get("link_width", "")
    generation = _GENERATIONS.get(int(match[1]) * 10 + int(match[2] or 0), 0) if match else 0
    return (
        pcie_link(generation, int(width) if re.fullmatch(r"[0-9]{1,2}", width) else 0) if generation else NO_PCIE_LINK
    )


def _compute(sm: str) -> str:
    return f"{sm[:-1]}.{sm[-1]}" if re.fullmatch(r"[0-9]{2,3}", sm) else ""


def _cpu_list(affinity: str, found: _Found, where: str) -> str:
    """Turn an affinity mask (hexadecimal words of 32 bits, highest first) into a list such as ``0-23,48-71``."""
    words = affinity.split(",")
    if not affinity or not all(re.fullmatch(r"[0-9a-fA-F]{1,8}", word) for word in words) or len(words) > 1024:
        if affinity:
            found.warn(where, f"affinity {affinity[:40]!r} is no CPU mask; the CPUs are unknown")
        return ""
    bits = bin(int("".join(word.zfill(8) for word in words), 16))[:1:-1]
    runs = [f"{m.start()}-{m.end() - 1}" if len(m.group()) > 1 else str(m.start()) for m in re.finditer("1+", bits)]
    return ",".join(runs)


def _machine(found: _Found) -> Machine:
    devs = [dev for _, dev in found.gpus]
    numbered = None not in devs and len(set(devs)) == len(devs) and -1 not in devs
    ordered = sorted(
        found.gpus, key=lambda pair: (pair[1] if numbered and pair[1] is not None else 0, _order(pair[0].pci))
    )
    gpus: list[Gpu] = []
    for at, (gpu, dev) in enumerate(ordered):
        index = dev if numbered and dev is not None else at
        gpus.append(replace(gpu, id=f"GPU{index}", index=index, device=f"gpu-{index}"))
    links: list[Link] = []
    for at, a in enumerate(gpus):
        others: list[Gpu | Nic] = [*gpus[at + 1 :], *found.nics]
        for b in others:
            lanes = _lanes(found, a.pci, b.pci) if isinstance(b, Gpu) else 0
            path = f"NV{lanes}" if lanes else tree_class(a, b)
            pace = theoretical_pace(path)
            rates = [rate for rate in (found.rate[a.pci], found.rate[b.pci]) if rate]
            if rates and not lanes:
                pace = pace * min(rates) // _PCIE4_X16
            said = {found.direct.get(a.pci, ""), found.direct.get(b.pci, "")} if isinstance(b, Nic) else set[str]()
            direct = "absent" if "0" in said else "available" if said == {"1"} else ""
            if path:
                links.append(Link(a=a.id, b=b.id, path=path, bytes_per_s=pace, direct=direct))
    return Machine(
        source=found.name,
        gpus=tuple(gpus),
        nics=tuple(found.nics),
        numa_nodes=tuple(sorted(found.numa_nodes, key=lambda node: node.id)),
        links=tuple(links),
        pcie=_functions(found, tuple(gpus)),
    )


def _functions(found: _Found, gpus: tuple[Gpu, ...]) -> tuple[PciFunction, ...]:
    """Return the tree: CPUs as root complexes, switches as upstream ports, devices."""
    devices: list[PciFunction] = []
    both: tuple[Gpu | Nic, ...] = (*gpus, *found.nics)
    for device in both:
        above = device.pcie_switch.rpartition("/")[2] or device.pcie_root
        kind = "gpu" if isinstance(device, Gpu) else "nic"
        devices.append(PciFunction(id=device.pci, parent=above, kind=kind, numa=device.numa, link=device.pcie))
    nodes = sorted({function.numa for function in (*found.pcie, *devices)} - {-1})
    roots = [PciFunction(id=f"cpu{numa}", kind="root", numa=numa) for numa in nodes]
    return (*roots, *found.pcie, *devices)


def _order(pci: str) -> tuple[int, ...]:
    return tuple(int(part, 16) for part in re.split("[:.]", pci))


def _lanes(found: _Found, a: str, b: str) -> int:
    """Return NVLinks between two GPUs: direct ones, else what both have to NVSwitches."""

    def direct(one: str, other: str) -> int:
        return sum(lanes for target, _, lanes in found.nvlinks.get(one, ()) if target == other)

    def switched(one: str) -> int:
        return sum(lanes for _, kind, lanes in found.nvlinks.get(one, ()) if kind.startswith("0x0680"))

    return min(max(direct(a, b), direct(b, a)) or min(switched(a), switched(b)), 999)
