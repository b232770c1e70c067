"""Which nodes could take a pod of a role, and how many: boolean and count columns, one rule each with its reason.

Fairlead is the whole scheduler for its pods, so everything that Kubernetes' scheduler would filter is filtered here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fairlead.model.gang import (
    Gang,
    PodShape,
    Role,
    ServiceClass,
)
from fairlead.model.hardware import Machine, Node
from fairlead.model.tenancy import Pool
from fairlead.placement.amounts import fixed_asked, fixed_columns
from fairlead.placement.node_kinds import device_kinds, offers, rules_of
from fairlead.placement.node_rules import PASSING, why_not
from fairlead.placement.parts import instances_on, parts_on, shares_on
from fairlead.placement.sharing import mode_of
from fairlead.placement.tree import Chains
from fairlead.world.fleet import BoolColumn, Columns, IntColumn, Inventory, Level
from fairlead.world.overlay import Overlay, Taking
from fairlead.world.snapshot import HostPorts

MANY = 1 << 40  # "as many as you like", small enough to be summed over a fleet


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What a role finds whatever is running. Shape (nodes,) each; `devices` are the bits of acceptable devices.

    Acceptable for a share is what may be shared, for a MIG instance what has its profile on its grid.
    `rules` has the rule that keeps the role off each node, "" for none; fits that differ in models alone share it.
    """

    allowed: BoolColumn
    devices: IntColumn
    rules: list[str]
    counted: list[tuple[tuple[str, int], ...]] = field(default_factory=list[tuple[tuple[str, int], ...]])

    @property
    def blocked(self) -> tuple[tuple[str, int], ...]:
        """Rules and the nodes they keep it off, most frequent first; `counted` keeps the answer while rules stay."""
        if not self.counted:
            counts = Counter(rule for rule in self.rules if rule)
            self.counted.append(tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))
        return self.counted[0]


def budgets_of(pools: Mapping[str, Pool], inventory: Inventory) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return resource -> (level, amount of each domain) of what lives above the nodes, as the pools say."""
    found: dict[str, dict[str, int]] = {}
    for name in sorted(pools):
        for budget in pools[name].budgets:
            if budget.level in inventory.levels:
                found.setdefault(budget.resource, {})[budget.level] = budget.amount
    return {resource: tuple(sorted(levels.items())) for resource, levels in found.items()}


def _nics_up(machine: Machine) -> int:
    """Return the bits of a machine's NICs that are not down, the first 62 of them."""
    return sum(1 << at for at, nic in enumerate(machine.nics[:62]) if nic.state != "down")


class Feasibility:
    """Fits of roles over one inventory, each computed once and shared by all gangs that ask alike."""

    def __init__(self, inventory: Inventory, pools: Mapping[str, Pool]) -> None:
        """Nothing is computed yet."""
        self._inventory = inventory
        self._pools = pools
        self._fits: dict[tuple[object, ...], tuple[Fit, Role, ServiceClass, bool]] = {}
        self.budgets = budgets_of(pools, inventory)
        self.chains = Chains(inventory)
        self.nics = np.array(inventory.of_kinds(_nics_up), dtype=np.int64)
        self._inside: dict[tuple[str, str], BoolColumn] = {}
        self._millis: dict[tuple[object, ...], int] = {}
        self._models: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._kinds = device_kinds(inventory)

    def inside(self, level: Level, gang: Gang) -> BoolColumn:
        """Return which domains of `level` lie whole in one domain of the level the gang requires. Shape (domains,).

        Levels need not nest: a rack may reach into two islands, and some nodes are in no island at all.
        """
        wish = gang.topology
        required = wish.within if wish is not None and wish.required else "cluster"
        known = self._inside.get((level.name, required))
        if known is None:
            inside = level.domain_of >= 0
            outer = self._inventory.levels[required].domain_of[inside]
            low = np.full(len(level.names), np.iinfo(np.int64).max)
            high = np.full(len(level.names), -1, dtype=np.int64)
            np.minimum.at(low, level.domain_of[inside], outer)
            np.maximum.at(high, level.domain_of[inside], outer)
            known = self._inside[level.name, required] = (low == high) & (low >= 0)
        return known

    def levels_above(self, gang: Gang) -> frozenset[str]:
        """Return the levels below the cluster that amounts live at which some role needs."""
        asked = {name for role in gang.roles for name, _ in role.pod.requests.extended} & self.budgets.keys()
        return frozenset(level for name in asked for level, _ in self.budgets[name]) - {"cluster", "node"}

    def caps_above(self, role: Role, columns: Columns) -> dict[str, IntColumn]:
        """Return how many pods of a role amounts above the nodes allow: level name -> shape (domains,)."""
        caps: dict[str, IntColumn] = {}
        for name, amount in role.pod.requests.extended:
            for level_name, whole in self.budgets.get(name, ()) if amount > 0 else ():
                level = self._inventory.levels[level_name]
                on_node = min(least for _, least in self.budgets[name])
                left = np.full(len(level.names), whole, dtype=np.int64)
                inside = level.domain_of >= 0
                np.add.at(left, level.domain_of[inside], columns.extended[name][inside] - on_node)
                room = np.maximum(left, 0) // amount
                caps[level_name] = np.minimum(caps[level_name], room) if level_name in caps else room
        return caps

    def fit(self, role: Role, service: ServiceClass, *, ever: bool = False, model: str = "") -> Fit:
        """Return where a role's pods may run; `ever` ignores rules that pass by themselves (not ready, cordoned).

        `model` narrows the devices to those of exactly that model.
        """
        shape = role.pod
        key = (
            role.gpu_model, role.gpu_memory_bytes, service, shape.node_selector, shape.affinity,
            shape.volume_affinity, shape.tolerations, ever, model, role.mig, mode_of(role),
        )  # fmt: skip
        found = self._fits.get(key)
        if found is None:
            found = self._fits[key] = (self._compute(role, service, ever, model), role, service, ever)
        return found[0]

    def patch(self, inventory: Inventory, rows: Sequence[int]) -> None:
        """Take over an inventory in which only some rows say something else, of the same devices."""
        self._inventory = inventory
        for row in rows:
            self.nics[row] = _nics_up(inventory.nodes[row].machine)
        for fit, role, service, ever in self._fits.values():
            for row in rows:
                rule = self._rule(inventory.nodes[row], role, service, ever)
                fit.rules[row], fit.allowed[row] = rule, not rule
            fit.counted.clear()

    def _rule(self, node: Node, role: Role, service: ServiceClass, ever: bool) -> str:
        rule = why_not(node, role, service, self._pools)
        return "" if ever and rule.startswith(PASSING) else rule

    def milli(self, role: Role, service: ServiceClass) -> int:
        """Return the most that one replica can be charged for, in thousandths of a GPU.

        A MIG instance is charged for its part of the grid that it will lie on.
        """
        if not role.mig:
            return role.gpu_milli
        key = ("milli", role.mig, role.gpu_model, role.gpu_memory_bytes, service)
        found = self._millis.get(key)
        if found is None:
            fit = self.fit(role, service, ever=True)
            devices = np.where(fit.allowed, fit.devices, 0)
            found = self._millis[key] = self._inventory.mig.milli_most(role.mig, devices) or role.gpu_milli
        return found

    def charge(self, gang: Gang, *, fewest: bool = False) -> int:
        """Return the most that a gang can be charged for, with all replicas or as few as it starts with."""
        return sum(
            (role.fewest if fewest else role.replicas) * self.milli(role, gang.service_class) for role in gang.roles
        )

    def models(self, role: Role, service: ServiceClass) -> tuple[str, ...]:
        """Return the models of the devices that a role's pods may have, by name."""
        key = ("models", role.gpu_model, role.gpu_memory_bytes, service, role.mig)
        found = self._models.get(key)
        if found is None:
            found = self._models[key] = tuple(
                sorted({gpu.model for gpus in self._kinds[0] for gpu in gpus if offers(gpu, role)})
            )
        return found

    def _compute(self, role: Role, service: ServiceClass, ever: bool, model: str) -> Fit:
        kinds, kind_of = self._kinds
        masks = [
            sum(1 << bit for bit, gpu in enumerate(gpus) if offers(gpu, role) and model in ("", gpu.model))
            for gpus in kinds
        ]
        devices = np.array(masks, dtype=np.int64)[kind_of]
        if model:  # rules know nothing of models
            whole = self.fit(role, service, ever=ever)
            return Fit(whole.allowed, devices, whole.rules)
        rules = rules_of(self._inventory.nodes, role.pod, lambda node: self._rule(node, role, service, ever))
        return Fit(np.array([not rule for rule in rules], dtype=np.bool_), devices, rules)


def slots(
    role: Role, fit: Fit, columns: Columns, ports: Mapping[int, HostPorts], healthy: IntColumn | None = None
) -> IntColumn:
    """Return how many pods of `role` each node could take on top of what is on it. Shape (nodes,).

    `healthy` masks devices that may carry shares or instances; None means all of them.
    """
    return _slots(role, fit, 0, columns, ports, healthy, np.arange(len(columns.pods)))


def slots_on(role: Role, fit: Fit, group: int, overlay: Overlay, rows: IntColumn) -> IntColumn:
    """Return how many pods of `role`, whose shares are of `group`, each of `rows` could take now. Shape (rows,)."""
    inventory = overlay.inventory
    healthy = inventory.mig_mask if role.mig else inventory.healthy_mask
    return _slots(role, fit, group, overlay.columns, overlay.ports, healthy, rows)


def _slots(
    role: Role,
    fit: Fit,
    group: int,
    columns: Columns,
    ports: Mapping[int, HostPorts],
    healthy: IntColumn | None,
    rows: IntColumn,
) -> IntColumn:
    shape = role.pod
    room = np.where(fit.allowed[rows], MANY, 0).astype(np.int64)
    if role.gpus:
        free = np.bitwise_count(columns.free_mask[rows] & fit.devices[rows]).astype(np.int64)
        room = np.minimum(room, free // role.gpus)
    elif role.share is not None or role.mig:
        devices = fit.devices[rows] & (-1 if healthy is None else healthy[rows])
        room = np.minimum(room, parts_on(role, group, columns, rows, devices).sum(axis=1))
    for amount, column in zip(fixed_asked(shape), fixed_columns(columns), strict=True):
        if amount > 0:
            room = np.minimum(room, column[rows] // amount)
    for name, amount in shape.requests.extended:  # one that lives above the nodes is capped there too, by `caps_above`
        column_of = columns.extended.get(name)
        if amount > 0:
            room = np.minimum(room, column_of[rows] // amount) if column_of is not None else np.zeros_like(room)
    if shape.host_ports:
        room = np.minimum(room, 1)
        for at, row in enumerate(rows.tolist()):
            if room[at] > 0 and ports_clash(shape.host_ports, ports.get(row, frozenset())):
                room[at] = 0
    return np.maximum(room, 0)


def ports_clash(wanted: Sequence[tuple[str, str, int]], taken: HostPorts) -> bool:
    """Whether any wanted host port is taken; 0.0.0.0 clashes with every address."""
    return any(
        protocol == p and port == n and ("0.0.0.0" in (address, a) or address == a)
        for protocol, address, port in wanted
        for p, a, n in taken
    )


def _wanted(shape: PodShape, columns: Columns) -> list[tuple[int, IntColumn]]:
    pairs = list(zip(fixed_asked(shape), fixed_columns(columns), strict=True))
    if shape.requests.extended:
        nothing = np.zeros_like(columns.pods)
        pairs += [(amount, columns.extended.get(name, nothing)) for name, amount in shape.requests.extended]
    return pairs


NO_NODES = "no nodes at all"


def scarcest(role: Role, fit: Fit, columns: Columns, ports: Mapping[int, HostPorts]) -> str:
    """Say in words what keeps a role's pods off the nodes now, most frequent rule first."""
    counts: dict[str, int] = dict(fit.blocked)
    open_rows = fit.allowed
    named: dict[str, BoolColumn] = {}
    if role.gpus:
        free = np.bitwise_count(columns.free_mask & fit.devices)
        named[f"without {role.gpus} free GPUs of that kind"] = free >= role.gpus
    elif role.share is not None:
        rows = np.arange(len(open_rows))
        left = shares_on(role.share, 0, columns, rows, fit.devices).sum(axis=1)
        named[f"without an idle GPU of that kind or {role.share.milli / 10:g} % of a shared one"] = left > 0
    elif role.mig:
        rows = np.arange(len(open_rows))
        named[f"without room for a {role.mig}"] = instances_on(role.mig, 0, columns, rows, fit.devices).sum(axis=1) > 0
    words = ["CPU", "memory", "ephemeral storage", "pod slots", *(name for name, _ in role.pod.requests.extended)]
    for word, (amount, column) in zip(words, _wanted(role.pod, columns), strict=True):
        named[f"without enough {word}"] = column >= amount
    for text, enough in named.items():
        short = int(np.count_nonzero(open_rows & ~enough))
        if short:
            counts[text] = counts.get(text, 0) + short
    if role.pod.host_ports:
        clashing = sum(1 for row, taken in ports.items() if open_rows[row] and ports_clash(role.pod.host_ports, taken))
        if clashing:
            counts["with a host port taken"] = clashing
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{count} nodes {text}" for text, count in ranked[:4]) or NO_NODES


def row_is_free(role: Role, taking: Taking, overlay: Overlay) -> bool:
    """Whether exactly these devices, and all else that one pod of `role` needs, are free on a row."""
    columns, inventory, row = overlay.columns, overlay.inventory, taking.row
    if taking.mask.bit_count() != role.gpus or int(columns.free_mask[row]) & taking.mask != taking.mask:
        return False
    if role.share is not None or role.mig:
        rows, devices = np.array([row]), np.array([1 << taking.bit if taking.bit >= 0 else 0])
        devices &= (inventory.mig_mask if role.mig else inventory.healthy_mask)[rows]
        if not parts_on(role, columns.group_number(taking.group), columns, rows, devices).any():
            return False
        if role.mig and not overlay.part_fits(taking):
            return False
    if columns.cpus.get(row, 0) & taking.cpus or columns.nics.get(row, 0) & taking.nics:
        return False
    if any(amount > 0 and int(column[row]) < amount for amount, column in _wanted(role.pod, columns)):
        return False
    return not ports_clash(role.pod.host_ports, overlay.ports.get(row, frozenset()))
