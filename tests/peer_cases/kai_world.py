"""A KAI case in words of ours: fractions are shares, MIG devices resources of the node, levels its labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fairlead.simulation.scenario_run import Outcome
from peer_cases.verdicts import Case, only_on, payable

GPU_MEMORY_MIB = 100
"""What KAI's fake nodes say of a GPU's memory; so are cores and bytes below."""
CORES, BYTES, PODS = 20_000, 20_000_000_000, 110
NOT_PREEMPTIBLE = 100
"""Jobs of this priority and above are not preemptible."""


class Kai:
    """A case, read."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.nodes: Mapping[str, Mapping[str, Any]] = case["nodes"]
        self.queues: dict[str, Mapping[str, Any]] = {
            queue["Name"]: queue for queue in (*(case["departments"] or ()), *case["queues"])
        }
        topologies = case["topologies"] or ()
        self.levels: list[list[str]] = [list(topology["levels"]) for topology in topologies]
        self.gpus = sum(int(node.get("gpus") or 0) for node in self.nodes.values())
        self.nested = any(_is_nested(job) for job in case["jobs"])
        self.claimed = {
            claim: task["node"]
            for job in case["jobs"]
            for task in job["tasks"]
            if task["state"] == "Running"
            for claim in task.get("claims") or ()
        }
        """Claims that are allocated, and on which node."""

        kinds = {name for node in self.nodes.values() for name in node.get("mig") or {}}
        kinds |= {name for job in case["jobs"] for task in job["tasks"] for name in task.get("mig") or {}}
        self.stand_in = next(iter(kinds)) if len(kinds) == 1 and not self.gpus else ""
        """The one kind of MIG device of a world without GPUs: there it stands for one, as queues count these."""

    def gpus_of(self, node: str) -> int:
        """GPUs of a node, or what stands for them."""
        offered = self.nodes[node]
        return int(offered.get("gpus") or 0) + int((offered.get("mig") or {}).get(self.stand_in, 0))

    def devices_of(self, job: Mapping[str, Any], task: Mapping[str, Any]) -> int:
        """Devices that a task lies on, whole or in part."""
        whole = int(job["gpusPerTask"]) + int((task.get("mig") or {}).get(self.stand_in, 0))
        return whole or int(job["gpusPerTask"] > 0 or bool(job.get("gpuMemoryPerTask")))

    def milli_held(self, job: str) -> int:
        """Thousandths of GPUs that the tasks of a job hold at first."""
        found = next(one for one in self.case["jobs"] if one["name"] == job)
        return self.milli_asked({**found, "tasks": [task for task in found["tasks"] if task["state"] != "Pending"]})

    def milli_asked(self, job: Mapping[str, Any]) -> int:
        """Thousandths of GPUs that all tasks of a job hold or ask for."""
        memory = job.get("gpuMemoryPerTask") or 0
        each = round(1_000 * job["gpusPerTask"]) or -(-1_000 * memory // GPU_MEMORY_MIB)
        return sum(each + 1_000 * int((task.get("mig") or {}).get(self.stand_in, 0)) for task in job["tasks"])

    def chain(self, queue: str) -> list[str]:
        """A queue and all above it."""
        found: list[str] = []
        while queue in self.queues and queue not in found:
            found.append(queue)
            queue = self.queues[queue].get("ParentQueue") or ""
        return found

    def holds(self, queue: str) -> bool:
        """Whether any job of a queue or below it runs at first."""
        return any(
            task["state"] != "Pending"
            for job in self.case["jobs"]
            if queue in self.chain(job["queue"])
            for task in job["tasks"]
        )

    def devices_held(self, node: str) -> int:
        """GPUs of a node that running tasks hold: whole ones, and one for every group of shares."""
        whole, groups, parts = 0, set[str](), list[int]()
        for job in self.case["jobs"]:
            for task in job["tasks"]:
                if task.get("node") == node:
                    groups.update(task.get("gpuGroups") or ())
                    whole += 0 if task.get("gpuGroups") else int(job["gpusPerTask"])
                    part = self.milli_asked({**job, "tasks": [{"state": task["state"]}]}) % 1_000
                    parts += [part] if part and not task.get("gpuGroups") else []
                    whole += int((task.get("mig") or {}).get(self.stand_in, 0))
        return whole + len(groups) + _devices_for(parts)

    @property
    def competing(self) -> bool:
        """Whether jobs of several queues wait for more GPUs than are free."""
        waiting = [job for job in self.case["jobs"] if any(task["state"] == "Pending" for task in job["tasks"])]
        wanted = sum(
            job["gpusPerTask"] for job in self.case["jobs"] for task in job["tasks"] if task["state"] != "Releasing"
        )
        return len({job["queue"] for job in waiting}) > 1 and wanted > self.gpus

    def domain(self, level: str, node: str) -> str:
        """The domain of a level that a node is in: the path of labels down to it, "" for none."""
        labels = self.nodes[node].get("labels") or {}
        levels = next((levels for levels in self.levels if level in levels), [level])
        path = [labels.get(key, "") for key in levels[: levels.index(level) + 1]]
        return "/".join(path) if all(path) else ""

    def alike(self, one: str, other: str) -> bool:
        """Whether two nodes offer the same, hold the same and are labelled alike but for the names of their domains."""
        return self._what(one) == self._what(other)

    def _what(self, name: str) -> tuple[str, ...]:
        held = sorted(
            str((job["gpusPerTask"], job.get("cpuPerTask"), task.get("gpuGroups")))
            for job in self.case["jobs"]
            for task in job["tasks"]
            if task.get("node") == name
        )
        node = {key: value for key, value in self.nodes[name].items() if key != "labels"}
        labels = sorted(self.nodes[name].get("labels") or {})
        beside = [
            sorted(
                str({key: value for key, value in self.nodes[other].items() if key != "labels"})
                for other in self.nodes
                if self.domain(level, other) == self.domain(level, name)
            )
            for levels in self.levels
            for level in levels
        ]
        return (str(node), str(held), str(labels), str(beside))

    def device(self, node: str, group: str) -> str:
        """The GPU of a node that a group of shares stands for: its number where it is one, else the next unused."""
        groups = sorted(
            {
                name
                for job in self.case["jobs"]
                for task in job["tasks"]
                if task.get("node") == node
                for name in task.get("gpuGroups") or ()
            }
        )
        count = int(self.nodes[node].get("gpus") or 0)
        at = {name: int(name) for name in groups if name.isdecimal() and int(name) < count}
        unused = [number for number in range(len(groups) + count) if number not in at.values()]
        at.update(zip((name for name in groups if name not in at), unused, strict=False))
        return f"gpu-{at[group]}"

    @staticmethod
    def rest(job: str) -> str:
        """The name of the gang that stands for the tasks of a job that wait."""
        return f"{job}.rest"

    def places(self, outcome: Outcome) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Return task -> (node, devices) for every task that holds something at the end."""
        found: dict[str, tuple[str, tuple[str, ...]]] = {}
        placed = {placement.gang: placement.placement for placement in outcome.placed}
        for job in self.case["jobs"]:
            for name, tasks in ((f"{job['name']}.held", _held(job)), (self.rest(job["name"]), _waiting(job))):
                if name not in placed:
                    continue
                by_role = {role: list(ats) for role, ats in _roles(job, tasks).items()}
                for member in placed[name].members:
                    if by_role[member.role]:
                        found[f"{job['name']}-{by_role[member.role].pop(0)}"] = (member.node, member.devices)
        return found


def _devices_for(parts: Sequence[int]) -> int:
    """Devices that parts, in thousandths, fill when each goes to the first that has room."""
    filled: list[int] = []
    for part in parts:
        at = next((at for at, milli in enumerate(filled) if milli + part <= 1_000), None)
        if at is None:
            filled.append(part)
        else:
            filled[at] += part
    return len(filled)


def _is_nested(job: Mapping[str, Any]) -> bool:
    groups = job.get("subGroups") or {}
    return bool(groups.get("minSubGroup")) or any(
        (inner.get("topology") and len(inner.get("podSets") or ()) > 1)
        or inner.get("subGroupSets")
        or inner.get("minSubGroup")
        for inner in groups.get("subGroupSets") or ()
    )


def _held(job: Mapping[str, Any]) -> list[int]:
    return [at for at, task in enumerate(job["tasks"]) if task["state"] != "Pending"]


def _waiting(job: Mapping[str, Any]) -> list[int]:
    return [at for at, task in enumerate(job["tasks"]) if task["state"] == "Pending"]


def _roles(job: Mapping[str, Any], tasks: Sequence[int]) -> dict[str, list[int]]:
    """Role -> tasks. Tasks of one subgroup that ask alike are a role."""
    kinds: dict[str, list[int]] = {}
    for at in tasks:
        task = job["tasks"][at]
        kind = str((task.get("subGroup"), task.get("mig"), task.get("nodeAffinity"), task.get("claims")))
        kinds.setdefault(kind, []).append(at)
    return {f"r{number}": ats for number, ats in enumerate(kinds.values())}


def convert(world: Kai) -> dict[str, object]:
    """Return the scenario of a case."""
    jobs = sorted(world.case["jobs"], key=lambda job: -job["priority"])  # as KAI's own fixture makes them
    running = [_running(job, world) for job in jobs if _held(job)]
    named = [job for job in running if any("devices" in member for member in _members(job))]
    return {
        "fleet": {"levels": _levels_asked(world), "nodes": [_node(name, world) for name in world.nodes]},
        "queues": payable([_queue(queue, world) for queue in world.queues.values()]),
        "running": [*named, *(job for job in running if job not in named)],
        "waiting": [_rest(job, world) for job in jobs if _waiting(job)],
    }


def _levels_asked(world: Kai) -> list[str]:
    """Levels of the topologies and of the jobs, so that asking for one that no node is in is the engine's to refuse."""
    groups = [job.get("subGroups") or {} for job in world.case["jobs"]]
    inner = [one for group in groups for one in group.get("subGroupSets") or ()]
    sets = [one for group in (*groups, *inner) for one in group.get("podSets") or ()]
    wishes = [one.get("topology") or {} for one in (*groups, *inner, *sets)]
    asked = [wish.get(word) for wish in wishes for word in ("required", "preferred")]
    return sorted({level for level in (*asked, *(level for levels in world.levels for level in levels)) if level})


def _members(job: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from job["members"]


def _node(name: str, world: Kai) -> dict[str, object]:
    node = world.nodes[name]
    levels = {level: world.domain(level, name) for levels in world.levels for level in levels}
    return {
        "name": name,
        "gpus": world.gpus_of(name),
        "gpuMemory": f"{GPU_MEMORY_MIB}Mi",
        "cpu": f"{int((node.get('cpuMillis') or CORES) * 1_000)}m",
        "memory": int(node.get("memory") or BYTES),
        "pods": PODS,
        "extended": {} if world.stand_in else node.get("mig") or {},
        "labels": node.get("labels") or {},
        "levels": {level: domain for level, domain in levels.items() if domain},
    }


def queue_terms(world: Kai) -> dict[str, dict[str, Any]]:
    """Say of every queue what a scenario file has no words for: KAI places what it may not stop in the quota only."""
    return {name: {"non_preemptible": "in-quota"} for name in world.queues}


def _queue(queue: Mapping[str, Any], world: Kai) -> dict[str, object]:
    """A queue or department. Below 0 is no bound; a limit of 0 is none in KAI's fixture."""
    deserved, most = queue["DeservedGPUs"], queue.get("MaxAllowedGPUs") or -1
    guaranteed = sum(map(world.gpus_of, world.nodes)) if deserved < 0 else int(deserved)
    department = any(queue is one for one in world.case["departments"] or ())
    weight = deserved if department else queue.get("GPUOverQuotaWeight") or 0
    parent = queue.get("ParentQueue") or ""
    words: dict[str, object] = {
        "name": queue["Name"],
        "parent": parent if parent in world.queues else "",
        "guaranteed": guaranteed if most < 0 else min(guaranteed, int(most)),
        "weight": max(1, int(weight)),
        "namespaces": ["kai"],
    }
    if most >= 0:
        words["limit"] = int(most)
    return words


def _job(job: Mapping[str, Any], name: str) -> dict[str, object]:
    return {
        "name": name,
        "namespace": "kai",
        "queue": job["queue"],
        "priority": job["priority"],
        "preemptible": job["priority"] < NOT_PREEMPTIBLE,
    }


def _role(job: Mapping[str, Any], name: str, tasks: Sequence[int], world: Kai) -> dict[str, object]:
    first = job["tasks"][tasks[0]]
    mig = first.get("mig") or {}
    words: dict[str, object] = {
        "name": name,
        "replicas": len(tasks),
        "cpu": f"{int((job.get('cpuPerTask') or 0) * 1_000)}m",
        "memory": int(job.get("memoryPerTask") or 0),
        "extended": {} if world.stand_in else mig,
    }
    gpus, memory = job["gpusPerTask"], job.get("gpuMemoryPerTask") or 0
    if memory:
        words["share"] = {
            "milli": min(1_000, -(-memory * 1_000 // GPU_MEMORY_MIB)),
            "memory": f"{memory}Mi",
            "mode": "mps",
        }
    elif gpus != int(gpus):
        words["share"] = {"milli": round(gpus * 1_000)}
    elif gpus or world.stand_in in mig:
        words["gpus"] = world.devices_of(job, first)
    if first.get("nodeAffinity"):
        words["affinity"] = only_on(None, first["nodeAffinity"])
    return words


def _running(job: Mapping[str, Any], world: Kai) -> dict[str, object]:
    roles = _roles(job, _held(job))
    members: list[dict[str, object]] = []
    for role, tasks in roles.items():
        for at in tasks:
            task = job["tasks"][at]
            member: dict[str, object] = {"role": role, "node": task["node"]}
            groups = task.get("gpuGroups") or []
            if groups:
                member["devices"] = [world.device(task["node"], group) for group in groups]
            members.append(member)
    described = [_role(job, role, tasks, world) for role, tasks in roles.items()]
    for role, tasks in zip(described, roles.values(), strict=True):
        own = pod_sets(job).get(job["tasks"][tasks[0]].get("subGroup") or "")
        if own is not None:
            role["minReplicas"] = min(len(tasks), int(own.get("minMember") or 0))
    return {
        **_job(job, f"{job['name']}.held"),
        "roles": described,
        "members": members,
        "deleted": bool(job.get("deleteInTest")),
    }


def pod_sets(job: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Subgroups by name, each with the topology of the group that it is in where it has none of its own."""
    groups = job.get("subGroups") or {}
    sets = {one["name"]: one for one in groups.get("podSets") or ()}
    for inner in groups.get("subGroupSets") or ():
        for one in inner.get("podSets") or ():
            sets[one["name"]] = {**one, "topology": one.get("topology") or inner.get("topology")}
    return sets


def _rest(job: Mapping[str, Any], world: Kai) -> dict[str, object]:
    """The tasks that wait: in the required domain of those that run, if any do."""
    topology = (job.get("subGroups") or {}).get("topology") or {}
    sets = pod_sets(job)
    roles: list[dict[str, object]] = []
    held = (
        {world.domain(topology["required"], job["tasks"][at]["node"]) for at in _held(job)}
        if topology.get("required")
        else set[str]()
    )
    for name, tasks in _roles(job, _waiting(job)).items():
        role = _role(job, name, tasks, world)
        own = sets.get(job["tasks"][tasks[0]].get("subGroup") or "", {})
        there = sum(job["tasks"][at].get("subGroup") == own.get("name") for at in _held(job)) if own else 0
        if own:
            role["minReplicas"] = min(len(tasks), max(0, int(own.get("minMember") or 0) - there))
        wish = own.get("topology") or {}
        preferred = wish.get("preferred") or topology.get("preferred")
        if wish.get("required"):
            role["topology"] = {"within": wish["required"]}
        elif preferred and topology.get("required"):
            role["topology"] = {"within": preferred, "mode": "preferred"}
        claims = [claim for at in tasks for claim in job["tasks"][at].get("claims") or ()]
        if claims:
            role["affinity"] = only_on(role.get("affinity"), sorted({world.claimed[claim] for claim in claims}))
        if held:
            nodes = [node for node in world.nodes if world.domain(topology["required"], node) in held]
            role["affinity"] = only_on(role.get("affinity"), nodes)
        roles.append(role)
    document = {**_job(job, world.rest(job["name"])), "roles": roles}
    if topology.get("required"):
        document["topology"] = {"within": topology["required"]}
    elif topology.get("preferred"):
        document["topology"] = {"within": topology["preferred"], "mode": "preferred"}
    return document
