"""What many nodes have in common, so that a question is asked once a kind and not once a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter

import numpy as np

from fairlead.model.gang import PodShape, Role
from fairlead.model.hardware import Gpu, Node
from fairlead.placement.sharing import may_share
from fairlead.topology.mig_devices import grid_of_gpu
from fairlead.world.demand import is_of, models_of
from fairlead.world.fleet import MAX_DEVICES, IntColumn, Inventory


def acceptable(gpu: Gpu, role: Role) -> bool:
    """Whether one device is of the model and memory that a role asks for; ``A100|H100`` is either."""
    return is_of(models_of(role.gpu_model), gpu.model) and gpu.memory_bytes >= role.gpu_memory_bytes


def offers(gpu: Gpu, role: Role) -> bool:
    """Whether a device is acceptable and can be given in the way that a role asks for."""
    if not acceptable(gpu, role) or (role.share is not None and not may_share(gpu)):
        return False
    if not role.mig:
        return True
    grid = grid_of_gpu(gpu)
    return grid is not None and bool(grid.room(role.mig)[0])


def device_kinds(inventory: Inventory) -> tuple[list[tuple[Gpu, ...]], IntColumn]:
    """Return the devices of one node for each kind of node by models, memories and MIG; and the kind of each row."""
    numbers: dict[object, int] = {}
    grids: dict[int, int] = {}
    examples: list[tuple[Gpu, ...]] = []
    kind_of: list[int] = []
    for node, machine_kind in zip(inventory.nodes, inventory.kinds, strict=True):
        gpus = node.machine.gpus[:MAX_DEVICES]
        facts: object = id(machine_kind)  # machines of one kind have the same models and memories
        if any(map(_MIG, gpus)) or any(map(_MIG_ENABLED, gpus)):
            for gpu in gpus:
                if gpu.mig is not None and id(gpu.mig) not in grids:
                    grids[id(gpu.mig)] = id(grid_of_gpu(gpu))
            facts = tuple((gpu.model, gpu.memory_bytes, may_share(gpu), grids.get(id(gpu.mig), 0)) for gpu in gpus)
        kind = numbers.setdefault(facts, len(numbers))
        if kind == len(examples):
            examples.append(gpus)
        kind_of.append(kind)
    return examples, np.array(kind_of, dtype=np.int64)


_MIG, _MIG_ENABLED = attrgetter("mig"), attrgetter("mig_enabled")


def rules_of(nodes: Sequence[Node], shape: PodShape, rule_of: Callable[[Node], str]) -> list[str]:
    """Return the rule that keeps a pod off each node. Where it looks at no labels, nodes share what decides.

    `rule_of` may look at pool, taints, readiness, cordon, and the labels that the shape selects by.
    """
    if shape.node_selector or shape.affinity is not None or shape.volume_affinity:
        return [rule_of(node) for node in nodes]
    known: dict[tuple[object, ...], str] = {}
    rules: list[str] = []
    for node in nodes:
        facts = (node.pool, node.taints, node.ready, node.unschedulable)
        rule = known.get(facts)
        if rule is None:
            rule = known[facts] = rule_of(node)
        rules.append(rule)
    return rules
