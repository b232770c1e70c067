"""Read NodeTopology objects, which the agent publishes, as files."""

from __future__ import annotations

from typing import Any

from fairlead.discovery.documents import Mapping, integer, listing, mapping, text
from fairlead.errors import UnreadableInput
from fairlead.model.fabric import Inventory, NamedMachine, Warned
from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode
from fairlead.model.partitions import MigGeometry, MigInstance, MigProfile


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


def _profile(entry: Mapping, where: str) -> MigProfile:
    def number(key: str) -> int:
        return integer(entry.get(key), f"{where}.{key}", 0)

    return MigProfile(
        id=number("id"),
        name=text(entry.get("name"), f"{where}.name"),
        size=number("size"),
        starts=tuple(integer(start, f"{where}.starts") for start in listing(entry.get("starts"), f"{where}.starts")),
        most=number("most"),
        memory_bytes=number("memoryBytes"),
        multiprocessors=number("multiprocessors"),
        compute=number("computeSlices"),
        copy_engines=number("copyEngines"),
        decoders=number("decoders"),
        encoders=number("encoders"),
        jpegs=number("jpegs"),
        ofas=number("ofas"),
    )


def _mig(gpu: Mapping, profiles: list[tuple[str, MigProfile]], where: str) -> dict[str, Any]:
    """Return the fields of a GPU that say how it is cut; {} where the agent said nothing."""
    if gpu.get("mig") is None:
        return {}
    mig = mapping(gpu.get("mig"), f"{where}.mig")
    model = text(gpu.get("model"), f"{where}.model")
    geometry = MigGeometry(
        enabled=text(mig.get("enabled"), f"{where}.mig.enabled") == "true",
        pending=text(mig.get("pending"), f"{where}.mig.pending") == "true",
        profiles=tuple(profile for owner, profile in profiles if owner == model[:128]),
        instances=tuple(
            MigInstance(
                id=integer(i.get("id"), f"{at}.id", 0),
                profile=integer(i.get("profile"), f"{at}.profile", 0),
                start=integer(i.get("start"), f"{at}.start", 0),
                size=integer(i.get("size"), f"{at}.size", 0),
            )
            for at, i in _entries(mig, "instances", f"{where}.mig")
        ),
    )
    names = tuple(sorted(p.name for p in geometry.profiles))
    return {"mig": geometry, "mig_enabled": geometry.enabled, "mig_profiles": names}


def _gpu(g: Mapping, profiles: list[tuple[str, MigProfile]], at: str) -> Gpu:
    def said(key: str) -> str:
        return text(g.get(key), f"{at}.{key}")

    index = integer(g.get("index"), f"{at}.index", 0)
    return Gpu(
        id=said("id") or f"GPU{index}",
        index=index,
        device=said("device") or f"gpu-{index}",
        uuid=said("uuid"),
        pci=said("pci"),
        model=said("model"),
        memory_bytes=integer(g.get("memoryBytes"), f"{at}.memoryBytes", 0),
        numa=integer(g.get("numa"), f"{at}.numa", -1),
        pcie_root=said("pcieRoot"),
        pcie_switch=said("pcieSwitch"),
        healthy=said("healthy") != "false",
        health_reason=said("healthReason"),
        **_mig(g, profiles, at),
    )


def _machine(spec: Mapping, where: str, name: str) -> Machine:
    def said(entry: Mapping, key: str, here: str) -> str:
        return text(entry.get(key), f"{here}.{key}")

    def number(entry: Mapping, key: str, here: str, default: int = -1) -> int:
        return integer(entry.get(key), f"{here}.{key}", default)

    profiles = [(said(p, "model", at), _profile(p, at)) for at, p in _entries(spec, "migProfiles", where)]
    gpus = tuple(_gpu(g, profiles, at) for at, g in _entries(spec, "gpus", where))
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
