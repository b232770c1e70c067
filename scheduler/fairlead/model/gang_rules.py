"""Whether a gang makes sense by itself: the one place that says which of its words contradict each other.

Both readers of GangJobs and the planner ask `why_invalid`, so a gang is refused in the same words wherever it comes
from. Nothing is known of a cluster here: a level or model that no node has is the engine's own refusal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fairlead.model.gang import Gang, Role, ShareMode, Slices, TopologyRequest
from fairlead.model.reasons import Reason, Refusal, refuse
from fairlead.model.saving_rules import saving_problems

DURATION_MAX_MS = 366 * 86_400_000
"""A job that declares more promises nothing that anybody could plan by."""
MEMBERS_MAX = 4096
"""Members of one gang: its status, with a line for each, then stays below what an API server takes."""
GPUS_PER_MEMBER_MAX = 32
"""Devices of one member: as many results as one ResourceClaim may have."""

_WHOLE = 1000
_USUAL_LEVELS = {"node": 0, "island": 1, "rack": 2, "block": 3, "cluster": 4}  # tightest first; others are not ordered
_MIG_PROFILE = re.compile(r"[1-9][0-9]?g\.[1-9][0-9]*gb([+-][a-z.]+)*")
_Problem = tuple[str, str, str]


def why_invalid(gang: Gang) -> Refusal | None:
    """Return the first contradiction in what a gang asks for, None where there is none. O(roles + slices).

    The refusal is ``InvalidSpec`` with the field as its owner wrote it, what is wrong with it, and the mend.
    """
    return _first(_contradictions(gang))


def why_not_offered(gang: Gang) -> Refusal | None:
    """Return what of a sound gang no pod could be held to, None where there is nothing.

    The engine could place it; the API refuses it all the same, because nothing enforces it.
    """
    return _first(_not_offered(gang))


def _first(problems: Iterator[_Problem]) -> Refusal | None:
    for field, problem, mend in problems:
        return refuse(Reason.INVALID_SPEC, field=field, problem=problem, mend=mend)
    return None


def _contradictions(gang: Gang) -> Iterator[_Problem]:
    """(field, problem, mend) of the whole gang, roles in their order."""
    if not gang.roles:
        yield "spec.roles", "is empty", "add a role"
    names = [role.name for role in gang.roles]
    if len(set(names)) != len(names):
        yield "spec.roles", "names a role twice", "give every role its own name"
    for role in gang.roles:
        yield from _amounts(role)
        yield from _devices(role)
        yield from _closeness(role, gang)
    if gang.roles and not any(role.fewest for role in gang.roles):
        problem = "is 0 for every role, so that nothing has to start"
        yield f"spec.roles[{names[0]}].minReplicas", problem, "set it to 1 or more for one role"
    if gang.members > MEMBERS_MAX:
        yield "spec.roles[].replicas", f"add up to more than {MEMBERS_MAX}", "split the work over several GangJobs"
    if gang.topology is not None and gang.topology.slices:
        if len(gang.roles) > 1:
            yield "spec.topology.slices", "does not say which role it slices", "put it into spec.roles[].topology"
        fewest = sum(role.fewest for role in gang.roles)
        yield from _slices("spec.topology.slices", gang.topology.slices, gang.members, fewest)
    if unknown := sorted(set(gang.success_roles) - set(names)):
        yield "spec.successPolicy.roles", f"{unknown[0]!r} is no role", f"use names of spec.roles: {', '.join(names)}"
    if gang.duration_ms is not None and gang.duration_ms > DURATION_MAX_MS:
        yield "spec.duration", "is more than 366 days", "give a shorter one, or remove it for no limit"
    if gang.duration_ms is not None and gang.duration_ms <= 0:
        yield "spec.duration", "is zero", 'give a time such as "10m", or remove it for no limit'
    if gang.start_deadline_ms <= 0:
        yield "spec.startDeadline", "is zero", 'give a time such as "10m"'
    if gang.max_restarts < 0:
        yield "spec.failurePolicy.maxRestarts", f"{gang.max_restarts} is negative", "set it to 0 or more"
    yield from saving_problems(gang)


def _amounts(role: Role) -> Iterator[_Problem]:
    """Numbers of members, and what their pods request."""
    at = f"spec.roles[{role.name}]"
    if role.replicas < 1:
        yield f"{at}.replicas", f"{role.replicas} is not at least 1", "set it to 1 or more"
    if role.min_replicas is not None and not 0 <= role.min_replicas <= role.replicas:
        problem = f"{role.min_replicas} is not between 1 and replicas, {role.replicas}"
        yield f"{at}.minReplicas", problem, "lower minReplicas, raise replicas, or remove minReplicas for all of them"
    asked = role.pod.requests
    named = (("cpu", asked.cpu_milli), ("memory", asked.memory_bytes), ("ephemeral-storage", asked.ephemeral_bytes))
    for name, amount in (*named, ("pods", asked.pods), *asked.extended):
        if amount < 0:
            yield f"{at}.template requests of {name}", f"{amount} is negative", "set it to 0 or more"


def _devices(role: Role) -> Iterator[_Problem]:
    """Whole GPUs, a share of one or an instance of one; descriptions only of what is asked for."""
    at = f"spec.roles[{role.name}].devices"
    if role.gpus < 0:
        yield f"{at}.count", f"{role.gpus} is negative", "set it to 0 or more"
    if role.gpus and role.share is not None:
        yield f"{at}.share", "is a part of one GPU, but count asks for whole ones", "remove devices.count or share"
    if role.gpus and role.mig:
        yield f"{at}.mig", "is one instance of a GPU, but count asks for whole ones", "remove devices.count or mig"
    if role.mig and role.share is not None:
        yield f"{at}.share", "and mig are two ways to have a part of a GPU", "remove one of them"
    if not role.gpus and not role.mig and role.share is None and (role.gpu_model or role.gpu_memory_bytes):
        yield at, "describes GPUs, but count is 0", "set devices.count to at least 1"
    if role.gpu_memory_bytes < 0:
        yield f"{at}.memory", f"{role.gpu_memory_bytes} is negative", "write for example 80Gi"
    if "|" in role.gpu_model and not all(name.strip() for name in role.gpu_model.split("|")):
        yield f"{at}.model", f"{role.gpu_model!r} has an empty alternative", 'write for example "A100|H100"'
    if role.share is not None:
        if not 1 <= role.share.milli < _WHOLE:
            problem = f"is {role.share.milli} thousandths of a GPU, outside 1 to 999"
            yield f"{at}.share.compute", problem, 'write for example "25%"; for a whole GPU set devices.count to 1'
        if role.share.memory_bytes < 0:
            yield f"{at}.share.memory", f"{role.share.memory_bytes} is negative", "write for example 10Gi"
    if role.nics_per_gpu < 0:
        yield f"spec.roles[{role.name}].nicPerGpu", f"{role.nics_per_gpu} is negative", "set it to true or remove it"
    if role.nics_per_gpu and not role.gpus:
        mend = "set devices.count to at least 1 or remove nicPerGpu"
        yield f"spec.roles[{role.name}].nicPerGpu", "reserves a NIC with every whole GPU, but there is none", mend


def _closeness(role: Role, gang: Gang) -> Iterator[_Problem]:
    """How close the members of a role must be, against how far apart."""
    at = f"spec.roles[{role.name}]"
    if role.topology is not None and role.topology.slices:
        yield from _slices(f"{at}.topology.slices", role.topology.slices, role.replicas, role.fewest)
    if not role.spread:
        return
    if role.spread == "cluster":
        yield f"{at}.spread", "names the cluster, which is one domain", "name a level below it, or remove spread"
    for where, request in ((f"{at}.topology", role.topology), ("spec.topology", gang.topology)):
        if request is not None and _leaves_one_domain(request, role.spread):
            problem = f"over {role.spread} contradicts {where}, which requires one {request.within}"
            yield f"{at}.spread", problem, f"spread over a tighter level, or widen {where}.within or make it preferred"


def _leaves_one_domain(request: TopologyRequest, spread: str) -> bool:
    """Whether all members lie in one domain of level `spread` once the request holds."""
    if not request.required or request.within == "cluster":
        return False
    if request.within == spread:
        return True
    kept, over = _USUAL_LEVELS.get(request.within), _USUAL_LEVELS.get(spread)
    return kept is not None and over is not None and kept < over


def _slices(at: str, slices: Sequence[Slices], members: int, fewest: int) -> Iterator[_Problem]:
    """Slices lie inside each other, the widest first, and leave no member over."""
    for number, found in enumerate(slices):
        here = f"{at}[{number}]"
        if found.size < 1:
            yield f"{here}.size", f"{found.size} is not at least 1", "set it to 1 or more"
            return
        if found.within in ("", "cluster"):
            yield f"{here}.within", "names no level below the cluster", "name a level such as rack"
        if number == 0:
            if members % found.size:
                problem = f"{found.size} does not divide the {members} members"
                yield f"{here}.size", problem, "choose a size that divides replicas, or other replicas"
            elif fewest % found.size:
                problem = f"{found.size} does not divide minReplicas, {fewest} members"
                yield f"{here}.size", problem, "set minReplicas to a multiple of the size"
            continue
        around = slices[number - 1]
        if around.size % found.size:
            problem = f"{found.size} does not divide {around.size}, the size of the slices around it"
            yield f"{here}.size", problem, "list the widest slices first, each size a multiple of the next"
        wide, tight = _USUAL_LEVELS.get(around.within), _USUAL_LEVELS.get(found.within)
        if found.within == around.within or (wide is not None and tight is not None and tight > wide):
            problem = f"{found.within} does not lie inside {around.within}, the level of the slices around it"
            yield f"{here}.within", problem, "list the widest level first, each level once"


def _not_offered(gang: Gang) -> Iterator[_Problem]:
    """What nothing on a node would enforce, or no claim could hold."""
    for role in gang.roles:
        at = f"spec.roles[{role.name}].devices"
        if role.gpus > GPUS_PER_MEMBER_MAX:
            problem = f"{role.gpus} is not between 0 and {GPUS_PER_MEMBER_MAX}"
            yield f"{at}.count", problem, "GPUs of one member are on one node; use more replicas"
        if role.mig and not _MIG_PROFILE.fullmatch(role.mig):
            yield f"{at}.mig", f"{role.mig!r} is no MIG profile", "write for example 1g.10gb"
        if role.share is not None and role.share.memory_bytes and role.share.mode is ShareMode.TIME_SLICE:
            problem = "is not enforced by time slices, which limit no memory"
            yield f"{at}.share.memory", problem, "use mode mps, or remove memory and keep the program small by itself"
