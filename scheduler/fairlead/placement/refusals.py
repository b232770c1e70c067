"""Why a gang has no place: never in this cluster, not now with the best domain's numbers, or the search ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fairlead.model.gang import Gang, Role
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.placement.feasible import NO_NODES, Feasibility, Fit, scarcest, slots, slots_on
from fairlead.placement.node_kinds import acceptable
from fairlead.placement.parts import nics_room
from fairlead.placement.placer import Placer
from fairlead.placement.search import Answer
from fairlead.placement.sharing import mig_refusal, share_refusal
from fairlead.placement.tree import Chains, Tree, Wish
from fairlead.placement.wishes import alternatives, named_levels, slices_of, takes_devices
from fairlead.units import gpus_of
from fairlead.world.fleet import Columns, IntColumn, Inventory, Level
from fairlead.world.snapshot import HostPorts


def unknown_level(gang: Gang, inventory: Inventory) -> Refusal | None:
    """Return a refusal where the gang names a level that no node is in, or levels that do not nest."""
    if not inventory.nodes:
        return None
    names = named_levels(gang)
    for name in sorted(names):
        if name not in inventory.levels:
            return refuse(Reason.UNKNOWN_LEVEL, level=name, known=", ".join(inventory.levels))
    if len(names) > 1 and Chains(inventory).through(names) is None:
        return refuse(Reason.LEVELS_DO_NOT_NEST, levels=", ".join(sorted(names)))
    return None


def why_never(gang: Gang, offered: Columns, inventory: Inventory, feasibility: Feasibility) -> Refusal | None:
    """Return why no state of this cluster could hold the gang; None where some state might."""
    level = _required_level(gang, inventory)
    if isinstance(level, Refusal):
        return level
    everything = replace(offered, free_mask=inventory.all_mask & ~inventory.mig.parts_only)
    for role in gang.roles:
        refusal = _role_never(role, gang, everything, inventory, feasibility)
        if refusal is not None:
            return refusal
    best = max(
        _held_in_all(gang, level, everything, inventory, feasibility, model) for model in _models(gang, feasibility)
    )
    fewest = sum(role.fewest for role in gang.roles)
    if best < fewest or _most_devices(gang, level, inventory, feasibility) < sum(r.fewest * r.gpus for r in gang.roles):
        need = gpus_of(feasibility.charge(gang))
        return refuse(Reason.TOO_BIG, need=need, level=level.name, best=min(best, fewest), members=gang.members)
    return None


def why_not_now(gang: Gang, placer: Placer, answer: Answer) -> Refusal:
    """Return why the gang has no room at present, with the best domain's numbers."""
    level = _required_level(gang, placer.inventory)
    if isinstance(level, Refusal):
        return level
    columns, ports = placer.overlay.columns, placer.overlay.ports
    held = np.zeros(len(level.names), dtype=np.int64)
    for model in _models(gang, placer.feasibility):
        total = np.zeros(len(level.names), dtype=np.int64)
        for role in gang.roles:
            kind = placer.classes.of(gang, role, model if takes_devices(role) else "")
            total += np.minimum(placer.classes.sums(kind, level), role.replicas)
        held = np.maximum(held, total)
    for role in gang.roles:
        if not placer.classes.of(gang, role).total:
            fit, nics = placer.feasibility.fit(role, gang.service_class), placer.feasibility.nics
            if role.mig and slots_on(role, fit, 0, placer.overlay, np.arange(len(fit.allowed))).any():
                return refuse(Reason.ISOLATION_KEEPS_APART)
            return refuse(Reason.NODES_FILTERED, role=role.name, detail=_scarce(role, fit, columns, ports, nics))
    if answer.ended_early:
        return refuse(Reason.SEARCH_ENDED, steps=answer.steps, members=gang.members)
    # Sums over roles and nodes say too much where roles want the same room; that it does not fit is known by now.
    held = np.minimum(held, gang.members - 1)
    top = int(held.argmax())
    if level.name == "cluster":
        return refuse(Reason.NOT_ENOUGH_FREE, members=gang.members, best=int(held[top]))
    return refuse(
        Reason.NO_DOMAIN_FITS, level=level.name, members=gang.members, domain=level.names[top], best=int(held[top])
    )


def _role_never(
    role: Role, gang: Gang, everything: Columns, inventory: Inventory, feasibility: Feasibility
) -> Refusal | None:
    fit = feasibility.fit(role, gang.service_class, ever=True)
    if (role.mig or role.share is not None) and fit.allowed.any():
        refusal = _part_never(role, fit, inventory)
        if refusal is not None:
            return refusal
    if not fit.allowed.any():
        detail = "; ".join(f"{count} nodes {rule}" for rule, count in fit.blocked[:4]) or "there are no nodes"
        return refuse(Reason.NO_NODE_MATCHES, role=role.name, detail=detail)
    largest = int(np.bitwise_count(fit.devices[fit.allowed]).max())
    needed = role.gpus or int(takes_devices(role))
    if needed > largest:
        what = " ".join(filter(None, [role.gpu_model, _memory_words(role)])) or "of any model"
        return refuse(Reason.NO_SUCH_GPU, role=role.name, gpus=needed, what=what, best=largest)
    if not _room_ever(role, fit, everything, inventory).any():
        detail = _scarce(role, fit, everything, {}, _nics_ever(inventory))
        return refuse(Reason.NO_NODE_MATCHES, role=role.name, detail=detail)
    return None


def _part_never(role: Role, fit: Fit, inventory: Inventory) -> Refusal | None:
    """Return why no device that the role may use is ever given in its kind of part."""
    gpus = [
        gpu
        for row in np.flatnonzero(fit.allowed).tolist()
        for gpu in inventory.nodes[row].machine.gpus
        if acceptable(gpu, role)
    ]
    if not gpus:
        return None  # that there is no such GPU at all is the better reason
    if role.mig:
        return None if fit.devices[fit.allowed].any() else mig_refusal(role, gpus)
    return share_refusal(role, gpus)


def _room_ever(role: Role, fit: Fit, everything: Columns, inventory: Inventory) -> IntColumn:
    """Return how many pods of a role each node holds with nothing on it and all its NICs up. Shape (nodes,)."""
    room = slots(role, fit, everything, {})
    if role.nics_per_gpu and role.gpus:
        room = np.minimum(room, nics_room(role, _nics_ever(inventory), {}, np.arange(len(room))))
    return room


def _scarce(role: Role, fit: Fit, columns: Columns, ports: Mapping[int, HostPorts], nics: IntColumn) -> str:
    """Say in words what keeps a role's pods off the nodes; `nics` are the bits of those that there are."""
    said = [scarcest(role, fit, columns, ports)]
    if role.nics_per_gpu and role.gpus:
        room = nics_room(role, nics, columns.nics, np.arange(len(nics)))
        short = int((fit.allowed & (room == 0)).sum())
        if short:
            said = [text for text in said if text != NO_NODES]
            said.append(f"{short} nodes without {role.gpus * role.nics_per_gpu} free NICs")
    return "; ".join(said)


def _nics_ever(inventory: Inventory) -> IntColumn:
    """Return the bits of all NICs, also of those that are down and may come back. Shape (nodes,)."""
    return np.array([(1 << len(node.machine.nics[:62])) - 1 for node in inventory.nodes], dtype=np.int64)


def _held_in_all(
    gang: Gang, level: Level, everything: Columns, inventory: Inventory, feasibility: Feasibility, model: str
) -> int:
    """Return the pods that the best domain of a level holds with nothing on it, no role above what it needs."""
    chain = feasibility.chains.through(named_levels(gang))
    assert chain is not None, gang
    total = np.zeros(len(level.names), dtype=np.int64)
    for role in gang.roles:
        fit = feasibility.fit(role, gang.service_class, ever=True, model=model if takes_devices(role) else "")
        room = np.minimum(_room_ever(role, fit, everything, inventory), role.replicas)
        wish = role.topology
        whole = wish.within if wish is not None and wish.required and wish.within != "cluster" else ""
        caps: Mapping[str, IntColumn] = feasibility.caps_above(role, everything)
        spread = "" if role.spread == "cluster" else role.spread
        wishes = Wish(slices=slices_of(gang, role), whole=whole, spread=spread, caps=caps)
        tree = Tree(chain, chain.order, room, room, wishes)
        held = np.array([tree.capacity]) if level.name == "cluster" else tree.caps_of(level)
        if held is None:
            inside = level.domain_of >= 0
            held = np.zeros(len(level.names), dtype=np.int64)
            np.add.at(held, level.domain_of[inside], room[inside])
        total += np.minimum(held, role.fewest)
    return int(total.max()) if len(total) else 0


def _most_devices(gang: Gang, level: Level, inventory: Inventory, feasibility: Feasibility) -> int:
    """Return the devices that any role accepts in the best domain of a level."""
    accepted = np.zeros(len(inventory.nodes), dtype=np.int64)
    for role in gang.roles:
        if role.gpus:
            fit = feasibility.fit(role, gang.service_class, ever=True)
            accepted |= np.where(fit.allowed, fit.devices, 0)
    devices = np.zeros(len(level.names), dtype=np.int64)
    inside = level.domain_of >= 0
    np.add.at(
        devices, level.domain_of[inside], np.bitwise_count(inventory.all_mask & accepted).astype(np.int64)[inside]
    )
    return int(devices.max()) if len(devices) else 0


def _models(gang: Gang, feasibility: Feasibility) -> tuple[str, ...]:
    return alternatives(gang, feasibility)


def _required_level(gang: Gang, inventory: Inventory) -> Level | Refusal:
    within = gang.topology.within if gang.topology is not None and gang.topology.required else "cluster"
    unknown = unknown_level(gang, inventory)
    if unknown is not None:
        return unknown
    if within not in inventory.levels or not inventory.levels[within].names:
        return refuse(Reason.NO_NODE_MATCHES, role=gang.roles[0].name, detail="there are no nodes")
    return inventory.levels[within]


def _memory_words(role: Role) -> str:
    return f"with {role.gpu_memory_bytes} bytes" if role.gpu_memory_bytes else ""
