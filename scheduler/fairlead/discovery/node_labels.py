"""Read what labels of Kubernetes nodes say: GPUs (GPU feature discovery), fabric tiers, racks, blocks, NVLink domains.

Labels name where a node is, in words that each provider has its own of. The tables below say which words are taken for
what; a key of ours comes before any other. Where two labels of one node name the same level differently, both are said.
"""

from __future__ import annotations

from collections.abc import Mapping as Labels

from fairlead.discovery.documents import Mapping, mapping, text, texts
from fairlead.errors import UnreadableInput
from fairlead.model.fabric import Fabric, FabricLink, FabricVertex, Inventory, NamedMachine, Warned
from fairlead.model.hardware import Gpu, Machine

CLIQUE = "nvidia.com/gpu.clique"
GROUP_LABELS: dict[str, tuple[str, ...]] = {
    "nvl-domain": (CLIQUE, "accelerator.topograph.run/domain", "network.topology.nvidia.com/accelerator"),
    "nvl-partition": ("accelerator.topograph.run/sub-domain",),
    "rack": (
        "fairlead.dev/rack",
        "topology.kubernetes.io/rack",
        "cloud.provider.com/topology-rack",
        "cloud.google.com/gce-topology-subblock",
    ),
    "block": ("fairlead.dev/block", "topology.kubernetes.io/block", "cloud.provider.com/topology-block",
              "cloud.google.com/gce-topology-block"),
    "power-domain": ("fairlead.dev/power-domain",),
    "cooling-zone": ("fairlead.dev/cooling-zone",),
    "failure-domain": ("fairlead.dev/failure-domain",),
    "zone": ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    "region": ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
}  # fmt: skip
"""Kind of group -> labels that name a node's one, the first that is there winning."""

SWITCH_LABELS: tuple[tuple[str, ...], ...] = (
    tuple(f"fabric.topograph.run/tier-{tier}" for tier in range(8)),
    ("network.topology.nvidia.com/leaf", "network.topology.nvidia.com/spine", "network.topology.nvidia.com/core"),
    (
        "network.topology.nvidia.com/block",
        "network.topology.nvidia.com/spine",
        "network.topology.nvidia.com/datacenter",
    ),
    ("topology.k8s.aws/network-node-layer-3", "topology.k8s.aws/network-node-layer-2",
     "topology.k8s.aws/network-node-layer-1"),
    ("oci.oraclecloud.com/rdma.local_block_id", "oci.oraclecloud.com/rdma.network_block_id",
     "oci.oraclecloud.com/rdma.hpc_island_id"),
    ("ib.coreweave.cloud/leafgroup", "ib.coreweave.cloud/superpod", "ib.coreweave.cloud/fabric"),
)  # fmt: skip
"""Families of labels that name the switches above a node, nearest first; the first family a node has is taken."""

_MOST_GPUS = 64


def parse(documents: list[Mapping], *, name: str) -> Inventory:
    """Return a machine a Node document, and the fabric that the labels of all of them name.

    Raises
    ------
    UnreadableInput
        A Node without a name, or labels that are no texts.
    """
    warnings: list[Warned] = []
    machines: dict[str, NamedMachine] = {}
    vertices: dict[str, FabricVertex] = {}
    links: dict[tuple[str, str], FabricLink] = {}
    parents: dict[str, str] = {}
    for at, document in enumerate(documents):
        where = f"{name}: Node[{at}]"
        meta = mapping(document.get("metadata"), f"{where}.metadata")
        node = text(meta.get("name"), f"{where}.metadata.name")
        if not node:
            raise UnreadableInput(f"{where}.metadata.name: a Node needs a name")
        if node in machines:
            warnings.append(Warned(where=f"{name}: {node}", what="a second Node of this name; the first counts"))
            continue
        labels = texts(meta.get("labels"), f"{where}.metadata.labels")
        here = f"{name}: {node}"
        machines[node] = NamedMachine(
            name=node,
            machine=_machine(labels, name, here, warnings),
            sources=(("node-labels", name),),
            labels=tuple(sorted(labels.items())),
        )
        for kind, keys in GROUP_LABELS.items():
            _group(kind, keys, labels, node, vertices, links, here, warnings)
        _switches(labels, node, vertices, links, parents, here, warnings)
    fabric = Fabric(vertices=tuple(vertices.values()), links=tuple(links.values()))
    return Inventory(source=name, machines=tuple(machines.values()), fabric=fabric, warnings=tuple(warnings))


def _group(
    kind: str,
    keys: tuple[str, ...],
    labels: Labels[str, str],
    node: str,
    vertices: dict[str, FabricVertex],
    links: dict[tuple[str, str], FabricLink],
    where: str,
    warnings: list[Warned],
) -> None:
    present = [key for key in keys if labels.get(key)]
    if not present:
        return
    domain = labels[present[0]]
    for other in present[1:]:
        if labels[other] != domain:
            what = f"{present[0]} says {domain}, {other} says {labels[other]}; the first is taken"
            warnings.append(Warned(where=where, what=what))
    vertex = FabricVertex(id=domain, kind=kind, source=present[0])
    vertices.setdefault(vertex.key, vertex)
    links[f"node:{node}", vertex.key] = FabricLink(a=f"node:{node}", b=vertex.key, kind="member", source=present[0])


def _switches(
    labels: Labels[str, str],
    node: str,
    vertices: dict[str, FabricVertex],
    links: dict[tuple[str, str], FabricLink],
    parents: dict[str, str],
    where: str,
    warnings: list[Warned],
) -> None:
    family = next((keys for keys in SWITCH_LABELS if labels.get(keys[0])), ())
    below = f"node:{node}"
    for tier, key in enumerate(family, 1):
        if not labels.get(key):
            break
        vertex = FabricVertex(id=labels[key], kind="switch", tier=tier, source=key)
        known = vertices.setdefault(vertex.key, vertex)
        if known.tier != tier:
            what = f"{key} names switch {labels[key]} in tier {tier}; elsewhere it is in tier {known.tier}"
            warnings.append(Warned(where=where, what=what))
            break
        parent = parents.setdefault(below, vertex.key)
        if parent != vertex.key:
            what = f"{below} hangs on {vertex.key} here and on {parent} elsewhere; the first is taken"
            warnings.append(Warned(where=where, what=what))
        links[below, parent] = FabricLink(a=below, b=parent, source=key)
        below = parent


def _machine(labels: Labels[str, str], name: str, where: str, warnings: list[Warned]) -> Machine:
    """Return as many GPUs as the labels count; all that identifies one is unknown."""

    def number(key: str, most: int) -> int:
        written = labels.get(key, "")
        if written.isdecimal() and len(written) < 10 and int(written) <= most:
            return int(written)
        if written:
            what = f"label {key} {written!r} is no number from 0 to {most}; it is unknown now"
            warnings.append(Warned(where=where, what=what))
        return 0

    count = number("nvidia.com/gpu.count", _MOST_GPUS)
    model = labels.get("nvidia.com/gpu.product", "")
    major, minor = labels.get("nvidia.com/gpu.compute.major", ""), labels.get("nvidia.com/gpu.compute.minor", "")
    memory = number("nvidia.com/gpu.memory", 10_000_000) << 20
    versions = [labels.get(f"nvidia.com/cuda.driver.{part}", "") for part in ("major", "minor", "rev")]
    return Machine(
        source=name,
        gpus=tuple(
            Gpu(
                id=f"GPU{at}",
                index=at,
                device=f"gpu-{at}",
                model=model.replace("-", " "),
                memory_bytes=memory,
                architecture=labels.get("nvidia.com/gpu.family", "").capitalize(),
                compute=f"{major}.{minor}" if major and minor else "",
                mig_enabled=labels.get("nvidia.com/mig.config", "") not in ("", "all-disabled"),
            )
            for at in range(count)
        ),
        clique=labels.get(CLIQUE, ""),
        driver_version=labels.get("nvidia.com/cuda.driver-version.full", "") or ".".join(v for v in versions if v),
        product=labels.get("nvidia.com/gpu.machine", "").replace("-", " "),
    )
