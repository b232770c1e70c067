"""Every way to place a small gang, tried one after another: what the engine's answers are compared with.

It knows nothing of the engine. Pods of one role are alike, so a way is a number of pods per role and node; whether
devices of the right kind are there for all of them on one node is decided by trying the devices one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise

from fairlead.model.gang import Gang, Role
from fairlead.model.hardware import Node


def can_be_placed(gang: Gang, nodes: list[Node], busy: dict[str, set[str]] | None = None) -> bool:
    """Whether any way keeps every wish that is required; `busy` are the devices that others hold."""
    return next(ways(gang, nodes, busy or {}), None) is not None


def ways(gang: Gang, nodes: list[Node], busy: dict[str, set[str]]) -> Iterator[list[dict[str, int]]]:
    """Yield per role: node -> pods."""
    for models in model_choices(gang, nodes):
        yield from _extend(gang, nodes, busy, models, [])


def model_choices(gang: Gang, nodes: list[Node]) -> list[set[str] | None]:
    """All members that accept a common model get the same one, unless the gang says that mixed ones will do."""
    taking = [role for role in gang.roles if role.gpus]
    if gang.mixed_models or sum(role.replicas for role in taking) < 2:
        return [None]
    everything = {gpu.model for node in nodes for gpu in node.machine.gpus}
    accepted = [{m for m in everything if accepts(role, m)} for role in taking]
    shared = set.intersection(*accepted)
    return [{model} for model in sorted(shared)] if shared else [None]


def accepts(role: Role, model: str) -> bool:
    wanted = role.gpu_model.casefold().split("|")
    return any(part in model.casefold() for part in wanted)


def _extend(gang, nodes, busy, models, chosen) -> Iterator[list[dict[str, int]]]:
    if len(chosen) == len(gang.roles):
        if _one_domain(gang.topology, [c for counts in chosen for c in counts], nodes):
            yield chosen
        return
    role = gang.roles[len(chosen)]
    for counts in _spread(role.replicas, [node.name for node in nodes]):
        together = [*chosen, counts]
        if not _sliced(gang, role, counts, nodes):
            continue
        if role.topology is not None and not _one_domain(role.topology, list(counts), nodes):
            continue
        if all(_fits(node, gang.roles, together, busy.get(node.name, set()), models) for node in nodes):
            yield from _extend(gang, nodes, busy, models, together)


def _spread(count: int, names: list[str]) -> Iterator[dict[str, int]]:
    """Yield every way to put `count` equal pods on named nodes."""
    for bars in combinations(range(count + len(names) - 1), len(names) - 1):
        edges = (-1, *bars, count + len(names) - 1)
        parts = [b - a - 1 for a, b in pairwise(edges)]
        yield {name: part for name, part in zip(names, parts, strict=True) if part}


def domain_of(node: Node, level: str) -> str | None:
    if level == "cluster":
        return ""
    return str(node.name) if level == "node" else dict(node.levels).get(level)


def _one_domain(wish, names: list[str], nodes: list[Node]) -> bool:
    if wish is None or not wish.required:
        return True
    by_name = {node.name: node for node in nodes}
    domains = {domain_of(by_name[name], wish.within) for name in names}
    return len(domains) <= 1 and None not in domains


def _sliced(gang: Gang, role: Role, counts: dict[str, int], nodes: list[Node]) -> bool:
    """Every domain of a slice's level holds whole slices."""
    wishes = [role.topology, gang.topology if len(gang.roles) == 1 else None]
    for part in (part for wish in wishes if wish is not None for part in wish.slices):
        held: dict[str | None, int] = {}
        for node in nodes:
            domain = domain_of(node, part.within)
            held[domain] = held.get(domain, 0) + counts.get(node.name, 0)
        if held.get(None) or any(number % part.size for number in held.values()):
            return False
    return True


def _fits(node: Node, roles, chosen, busy: set[str], models) -> bool:
    """Whether one node has devices, CPU, memory and pod slots for all pods that a way puts there."""
    here = [(role, counts.get(node.name, 0)) for role, counts in zip(roles, chosen, strict=False)]
    here = [(role, number) for role, number in here if number]
    if not here:
        return True
    if node.unschedulable or not node.ready or not node.pool:
        return False
    offered = node.allocatable
    for amount, asked in (
        (offered.cpu_milli, [role.pod.requests.cpu_milli * n for role, n in here]),
        (offered.memory_bytes, [role.pod.requests.memory_bytes * n for role, n in here]),
        (offered.pods, [max(1, role.pod.requests.pods) * n for role, n in here]),
    ):
        if sum(asked) > amount:
            return False
    free = [gpu for gpu in node.machine.gpus if gpu.healthy and gpu.device not in busy]
    wants = [role for role, number in here for _ in range(number * role.gpus)]
    return _match(wants, free, models)


def _match(wants: list[Role], free: list, models) -> bool:
    """Whether every wanted device can be another one: tried one by one."""
    if not wants:
        return True
    role, *rest = wants
    for at, gpu in enumerate(free):
        right = accepts(role, gpu.model) and gpu.memory_bytes >= role.gpu_memory_bytes
        if right and (models is None or gpu.model in models) and _match(rest, [*free[:at], *free[at + 1 :]], models):
            return True
    return False


def broken_wishes(gang: Gang, placement, nodes: list[Node], busy: dict[str, set[str]]) -> list[str]:
    """What a placement breaks of all that was required; empty where it is one of the ways there are."""
    roles = {role.name: role for role in gang.roles}
    counts = [{} for _ in gang.roles]
    order = {role.name: at for at, role in enumerate(gang.roles)}
    for member in placement.members:
        here = counts[order[member.role]]
        here[member.node] = here.get(member.node, 0) + 1
    wrong = [
        f"{r.name}: {sum(c.values())}" for r, c in zip(gang.roles, counts, strict=True) if sum(c.values()) != r.replicas
    ]
    for role, held in zip(gang.roles, counts, strict=True):
        wrong += [] if _sliced(gang, role, held, nodes) else [f"{role.name}: slices are cut: {held}"]
        wrong += [] if _one_domain(role.topology, list(held), nodes) else [f"{role.name}: not in one domain: {held}"]
    wrong += [] if _one_domain(gang.topology, [n for held in counts for n in held], nodes) else ["not in one domain"]
    by_name = {node.name: node for node in nodes}
    given: set[tuple[str, str]] = set()
    models: set[str] = set()
    for member in placement.members:
        gpus = {gpu.device: gpu for gpu in by_name[member.node].machine.gpus}
        for device in member.devices:
            if (member.node, device) in given or device in busy.get(str(member.node), set()):
                wrong.append(f"{member.node}/{device} is not free")
            given.add((member.node, device))
            models.add(gpus[device].model)
            if not accepts(roles[member.role], gpus[device].model):
                wrong.append(f"{member.node}/{device} is a {gpus[device].model}")
        if len(member.devices) != roles[member.role].gpus:
            wrong.append(f"{member.role} has {len(member.devices)} devices")
    for node in nodes:
        if not _fits(node, gang.roles, counts, busy.get(str(node.name), set()), None):
            wrong.append(f"{node.name} is too full")
    choices = model_choices(gang, nodes)
    if choices != [None] and not any(models <= choice for choice in choices):
        wrong.append(f"mixed models: {models}")
    return wrong
