"""Inventories, paths and sets as text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairlead.units import pace_text

if TYPE_CHECKING:
    import networkx as nx

    from fairlead.model.fabric import Inventory, NamedMachine
    from fairlead.topology.queries import PathAnswer, SetAnswer

MOST_MACHINES = 20
"""How many machines `show` describes one by one; of more only the first, and how many there are."""


def summary(inventory: Inventory) -> list[str]:
    """Return a few lines a machine: devices, islands, the paths of GPU pairs and NICs."""
    from fairlead.topology.graph import devices_of
    from fairlead.topology.islands import islands
    from fairlead.topology.queries import nic_choices

    lines: list[str] = []
    described = [found for found in inventory.machines if devices_of(found.machine) or found.machine.numa_nodes]
    bare = len(inventory.machines) - len(described)
    for found in described[:MOST_MACHINES]:
        machine = found.machine
        kinds = ", ".join(dict.fromkeys(gpu.model for gpu in machine.gpus if gpu.model))
        lines.append(
            f"{found.name}: {len(machine.gpus)} GPUs{f' ({kinds})' if kinds else ''}, {len(machine.nics)} NICs, "
            f"{len(machine.numa_nodes)} NUMA nodes, from {', '.join(kind for kind, _ in found.sources)}"
        )
        for island in islands(machine):
            whole = "" if island.complete else f", slowest pair {pace_text(island.pace)}"
            lines.append(
                f"  island {island.name}: {', '.join(island.members)} at {pace_text(island.bytes_per_s)}{whole}"
            )
        choices = nic_choices(machine)
        for gpu in machine.gpus:
            near = choices[gpu.id]
            best = [f"{c.nic} ({c.path})" for c in near if c.path and c.path == near[0].path][:4]
            place = f"NUMA {gpu.numa}" if gpu.numa >= 0 else "NUMA unknown"
            lines.append(f"  {gpu.id}  {gpu.pci or '-'}  {place}  nearest NICs: {', '.join(best) or 'none known'}")
    if len(described) > MOST_MACHINES:
        lines.append(f"… and {len(described) - MOST_MACHINES} more machines")
    lines += [f"{bare} machines of which only the name is known"] if bare else []
    return lines + fabric_lines(inventory)


def fabric_lines(inventory: Inventory) -> list[str]:
    """Return switches by tier, then the groups of nodes by kind."""
    from fairlead.model.fabric import TIERS
    from fairlead.topology.fabric_paths import FabricPaths

    paths = FabricPaths(inventory.fabric)
    lines: list[str] = []
    tiers = sorted({v.tier for v in inventory.fabric.vertices if v.kind == "switch"})
    for tier in tiers:
        names = [v.id for v in inventory.fabric.vertices if v.kind == "switch" and v.tier == tier]
        lines.append(f"{len(names)} {TIERS.get(tier, f'tier-{tier}')} switches: {_some(names)}")
    for kind in dict.fromkeys(v.kind for v in inventory.fabric.vertices if v.kind != "switch"):
        groups = [v for v in inventory.fabric.vertices if v.kind == kind]
        shown = [f"{v.id} ({len(paths.nodes_below(v.key))} nodes)" for v in groups]
        lines.append(f"{len(groups)} {kind}: {_some(shown)}")
    return lines


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" … and {len(names) - most} more" if len(names) > most else "")


def tree(inventory: Inventory) -> list[str]:
    """Return every machine as an indented tree."""
    lines: list[str] = []
    for found in inventory.machines[:MOST_MACHINES]:
        lines += [found.name, *_machine_tree(found)]
    if len(inventory.machines) > MOST_MACHINES:
        lines.append(f"… and {len(inventory.machines) - MOST_MACHINES} more machines")
    return lines + fabric_lines(inventory)


def _machine_tree(found: NamedMachine) -> list[str]:
    from fairlead.topology.graph import ROOT, device_graph

    graph = device_graph(found.machine)
    below: dict[str, list[str]] = {}
    for a, b, facts in graph.edges(data=True):
        if facts["kind"] == "tree":
            below.setdefault(facts["above"], []).append(b if facts["above"] == a else a)
    models = {gpu.id: gpu.model for gpu in found.machine.gpus}
    lines: list[str] = []
    todo = [(child, "", at == 0) for at, child in enumerate(reversed(below.get(ROOT, [])))]
    while todo:
        vertex, indent, last = todo.pop()
        lines.append(f"{indent}{'└─ ' if last else '├─ '}{_vertex(graph, vertex, models)}")
        inner = indent + ("   " if last else "│  ")
        todo += [(child, inner, at == 0) for at, child in enumerate(reversed(below.get(vertex, [])))]
    return lines


def _vertex(graph: nx.MultiGraph[str], vertex: str, models: dict[str, str]) -> str:
    kind = str(graph.nodes[vertex]["kind"])
    name = vertex.partition(":")[2].rpartition("/")[2] if kind in ("package", "numa", "root", "switch") else vertex
    words = {"package": "package", "numa": "NUMA node", "root": "PCIe root", "switch": "PCIe switch"}
    text = f"{words[kind]} {name}" if kind in words else f"{name} {models.get(vertex, '')}".strip()
    edge = next((e["tree"] for e in graph.adj[vertex].values() if "tree" in e and e["tree"]["above"] != vertex), None)
    if edge is None or not edge["generation"]:
        return text
    over = int(edge["oversubscription"])
    more = f", {over / 1_000_000:.1f} times over" if over > 1_000_000 else ""
    return f"{text}  (PCIe {edge['generation']} x{edge['lanes']}, {pace_text(edge['bytes_per_s'])}{more})"


def path_lines(answer: PathAnswer) -> list[str]:
    """Return what is between two devices."""
    pace = pace_text(answer.bytes_per_s) if answer.bytes_per_s else "unknown"
    lines = [f"{answer.a} to {answer.b}: {answer.path or 'no known path'}, {pace}"]
    if answer.via:
        lines.append(f"  by way of   {', '.join(answer.via)}")
    if answer.bottleneck:
        lines.append(f"  bottleneck  {answer.bottleneck}")
    if answer.bytes_per_s < answer.theory_bytes_per_s:
        lines.append(f"  measured below its theory of {pace_text(answer.theory_bytes_per_s)}")
    return lines


def set_lines(answer: SetAnswer) -> list[str]:
    """Return what a set of devices is worth together."""
    lines = [", ".join(answer.devices)]
    if answer.weakest is not None:
        pace = pace_text(answer.weakest.bytes_per_s) if answer.weakest.bytes_per_s else "unknown"
        where = f"{answer.weakest.a} to {answer.weakest.b} ({answer.weakest.path or 'unknown'})"
        lines.append(f"  slowest pair  {where}, {pace}")
    span = f"{answer.islands} islands, {answer.numa_nodes} NUMA nodes, {answer.nodes} nodes"
    lines.append(f"  spans         {span}" + (f", {answer.fabric_hops} switches" if answer.fabric_hops else ""))
    return lines + [f"  contention    {flag}" for flag in answer.contention]
