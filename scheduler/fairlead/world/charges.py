"""What queues are charged for beside GPUs: of each resource that some queue or policy names, and of nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import replace

from fairlead.model.gang import Gang, Member, PodShape, Role
from fairlead.model.hardware import Node, NodeName
from fairlead.model.quota import CPU, FIXED, MEMORY, OF_MODEL, STORAGE, Amounts
from fairlead.world.demand import models_of

NodeOf = Callable[[NodeName], Node | None]


def charged(gang: Gang | None, members: Iterable[Member], node_of: NodeOf, counted: tuple[str, ...]) -> Amounts:
    """Return what members are charged for, each with the models of its devices. A node that is gone has no models."""
    if not counted:
        return ()
    roles = {} if gang is None else {role.name: role for role in gang.roles}
    sums: dict[str, int] = {}
    fixed = FIXED in counted and gang is not None and not gang.preemptible
    by_model = any(name.startswith(OF_MODEL) for name in counted)
    for member in members:
        role = roles.get(member.role)
        if role is not None:
            _add_pods(sums, role.pod, 1, counted)
        if fixed:
            sums[FIXED] = sums.get(FIXED, 0) + member.gpu_milli
        if by_model and member.devices:
            node = node_of(member.node)
            each = member.gpu_milli // len(member.devices)
            for gpu in () if node is None else node.machine.gpus:
                if gpu.device in member.devices:
                    for resource in resources_of(gpu.model, counted):
                        sums[resource] = sums.get(resource, 0) + each
    return _sorted(sums)


def wanted(gang: Gang, counted: tuple[str, ...]) -> Amounts:
    """Return what a gang asks for with all replicas; GPUs that may be of several counted models count for each."""
    return _asked(gang, counted, fewest=False)


def sure(gang: Gang, counted: tuple[str, ...]) -> Amounts:
    """Return what a gang is charged for with all replicas, wherever it is placed: see `least`."""
    if not counted:
        return ()
    whole = tuple(replace(role, min_replicas=None) for role in gang.roles)
    return _asked(replace(gang, roles=whole), counted, fewest=True)


def least(gang: Gang, counted: tuple[str, ...]) -> Amounts:
    """Return what a gang is charged for with as few replicas as it starts with, wherever it is placed.

    GPUs count as a model's only where the gang accepts no other.
    """
    return _asked(gang, counted, fewest=True)


def _asked(gang: Gang, counted: tuple[str, ...], *, fewest: bool) -> Amounts:
    if not counted:
        return ()
    sums: dict[str, int] = {}
    fixed = FIXED in counted and not gang.preemptible
    for role in gang.roles:
        replicas = role.fewest if fewest else role.replicas
        _add_pods(sums, role.pod, replicas, counted)
        milli = replicas * role.gpu_milli
        if not milli:
            continue
        if fixed:
            sums[FIXED] = sums.get(FIXED, 0) + milli
        for resource in counted:
            if resource.startswith(OF_MODEL) and (_is_sure if fewest else _may_be)(role, resource):
                sums[resource] = sums.get(resource, 0) + milli
    return _sorted(sums)


def _add_pods(sums: dict[str, int], pod: PodShape, times: int, counted: tuple[str, ...]) -> None:
    asked = pod.requests
    fixed = {CPU: asked.cpu_milli, MEMORY: asked.memory_bytes, STORAGE: asked.ephemeral_bytes}
    for resource in counted:
        if resource in fixed:
            sums[resource] = sums.get(resource, 0) + times * fixed[resource]
    for resource, amount in asked.extended:
        if resource in counted:
            sums[resource] = sums.get(resource, 0) + times * amount


def _sorted(sums: dict[str, int]) -> Amounts:
    return tuple(sorted((resource, amount) for resource, amount in sums.items() if amount))


@functools.lru_cache(maxsize=4_096)
def resources_of(model: str, counted: tuple[str, ...]) -> tuple[str, ...]:
    """Return the counted resources that a GPU of a model is one of: those whose model its name holds."""
    folded = model.casefold()
    return tuple(r for r in counted if r.startswith(OF_MODEL) and r.removeprefix(OF_MODEL).casefold() in folded)


def _may_be(role: Role, resource: str) -> bool:
    """Whether a role may get GPUs of a counted model, as far as names say."""
    accepted, model = models_of(role.gpu_model), resource.removeprefix(OF_MODEL).casefold()
    return not accepted or any(model in part or part in model for part in accepted)


def _is_sure(role: Role, resource: str) -> bool:
    """Whether every GPU that a role accepts is of a counted model, as far as names say."""
    accepted, model = models_of(role.gpu_model), resource.removeprefix(OF_MODEL).casefold()
    return bool(accepted) and all(model in part for part in accepted)
