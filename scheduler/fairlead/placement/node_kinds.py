"""What many nodes have in common, so that a question is asked once a kind and not once a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fairlead.model.gang import PodShape
from fairlead.model.hardware import Gpu, Node
from fairlead.world.fleet import MAX_DEVICES, IntColumn


def device_kinds(nodes: Sequence[Node]) -> tuple[list[tuple[Gpu, ...]], IntColumn]:
    """Return the devices of one node for each kind of node by models and memories, and the kind of each row."""
    numbers: dict[tuple[tuple[str, int], ...], int] = {}
    examples: list[tuple[Gpu, ...]] = []
    kind_of: list[int] = []
    for node in nodes:
        gpus = node.machine.gpus[:MAX_DEVICES]
        kind = numbers.setdefault(tuple([(gpu.model, gpu.memory_bytes) for gpu in gpus]), len(numbers))
        if kind == len(examples):
            examples.append(gpus)
        kind_of.append(kind)
    return examples, np.array(kind_of, dtype=np.int64)


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
