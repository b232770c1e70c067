"""Read NodeTopology objects, which the agent publishes, as files."""

from __future__ import annotations

from fairlead.discovery.documents import Mapping, integer, listing, mapping, text
from fairlead.errors import UnreadableInput
from fairlead.model.fabric import Inventory, NamedMachine, Warned
from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode


def parse(documents: list[Mapping], *, name: str) -> Inventory:
    """Return a machine a NodeTopology document.

    Raises
    ------
    UnreadableInput
        A field has the wrong kind; the message names it.
    """
    machines: dict[str, NamedMachine] = {}
    warnings: list[Warned] = []
    for at, document in enumerate(documents):
        where = f"{name}: NodeTopology[{at}]"
        node = text(mapping(document.get("metadata"), f"{where}.metadata").get("name"), f"{where}.metadata.name")
        if not node:
            raise UnreadableInput(f"{where}.metadata.name: a NodeTopology needs a name")
        if node in machines:
            warnings.append(Warned(where=f"{name}: {node}", what="a second NodeTopology; the first counts"))
            continue
        machine = _machine(mapping(document.get("spec"), f"{where}.spec"), f"{where}.spec", name)
        machines[node] = NamedMachine(name=node, machine=machine, sources=(("node-topology", name),))
    return Inventory(source=name, machines=tuple(machines.values()), warnings=tuple(warnings))


def _entries(spec: Mapping, key: str, where: str) -> list[tuple[str, Mapping]]:
    return [
        (f"{where}.{key}[{at}]", mapping(item, f"{where}.{key}[{at}]"))
        for at, item in enumerate(listing(spec.get(key), f"{where}.{key}"))
    ]


def _machine(spec: Mapping, where: str, name: str) -> Machine:
    def said(entry: Mapping, key: str, here: str) -> str:
        return text(entry.get(key), f"{here}.{key}")

    def number(entry: Mapping, key: str, here: str, default: int = -1) -> int:
        return integer(entry.get(key), f"{here}.{key}", default)

    gpus = tuple(
        Gpu(
            id=said(g, "id", at) or f"GPU{number(g, 'index', at, 0)}",
            index=number(g, "index", at, 0),
            device=said(g, "device", at) or f"gpu-{number(g, 'index', at, 0)}",
            uuid=said(g, "uuid", at),
            pci=said(g, "pci", at),
            model=said(g, "model", at),
            memory_bytes=number(g, "memoryBytes", at, 0),
            numa=number(g, "numa", at),
            pcie_root=said(g, "pcieRoot", at),
            pcie_switch=said(g, "pcieSwitch", at),
            healthy=said(g, "healthy", at) != "false",
            health_reason=said(g, "healthReason", at),
        )
        for at, g in _entries(spec, "gpus", where)
    )
    nics = tuple(
        Nic(
            id=said(n, "id", at),
            pci=said(n, "pci", at),
            numa=number(n, "numa", at),
            pcie_root=said(n, "pcieRoot", at),
            pcie_switch=said(n, "pcieSwitch", at),
            bytes_per_s=number(n, "bytesPerSecond", at, 0),
            rail=number(n, "rail", at),
        )
        for at, n in _entries(spec, "nics", where)
    )
    numa_nodes = tuple(
        NumaNode(
            id=number(n, "id", at, 0),
            cpus=said(n, "cpus", at),
            memory_bytes=number(n, "memoryBytes", at, 0),
            distances=tuple(integer(d, at) for d in listing(n.get("distances"), f"{at}.distances")),
        )
        for at, n in _entries(spec, "numaNodes", where)
    )
    links = tuple(
        Link(a=said(k, "a", at), b=said(k, "b", at), path=said(k, "class", at),
             bytes_per_s=number(k, "bytesPerSecond", at, 0))
        for at, k in _entries(spec, "links", where)
    )  # fmt: skip
    return Machine(
        source=text(spec.get("source"), f"{where}.source") or name,
        gpus=gpus,
        nics=nics,
        numa_nodes=numa_nodes,
        links=links,
        clique=text(spec.get("clique"), f"{where}.clique"),
        observed_at_ms=integer(spec.get("observedAtMs"), f"{where}.observedAtMs"),
    )
