"""KAI's cases: jobs with tasks in queues with GPU quotas, and each job's status after the scheduler's rounds.

Law: which jobs run and which wait, the required domain, the node where the nodes differ, which shares lie together on
one GPU. Which of equal nodes, and which of equal jobs of queues that hold nothing, is taste.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from fairlead.simulation.scenario_run import Outcome
from peer_cases.kai_world import Kai, convert, pod_sets, queue_terms
from peer_cases.verdicts import (
    MOST_GPUS,
    OTHER_VICTIMS,
    Case,
    Comparison,
    Verdict,
    compare_victims,
    decide,
    exact_shares,
    stopped_for_others,
)

EVICTING = ("reclaim", "preempt", "consolidat")
"""Parts of the names of suites that are about evictions. A suite is a field of the case."""

JOB_WORDS = frozenset({
    "cpuPerTask", "deleteInTest", "gpuMemoryPerTask", "gpusPerTask", "memoryPerTask", "name", "priority", "queue",
    "subGroups", "tasks",
})  # fmt: skip
NODE_WORDS = frozenset({"cpuMillis", "gpus", "labels", "memory", "mig"})
TASK_WORDS = frozenset({"claims", "gpuGroups", "mig", "node", "nodeAffinity", "state", "subGroup"})
"""What we have words for."""


def is_one(case: Case) -> bool:
    """Whether a line is of this schema."""
    return {"jobs", "departments", "expectedJobs", "expectedTasks", "suite"} <= case.keys()


def judge(case: Case) -> Verdict:
    """Convert, run and compare one case."""
    name = case["name"]
    world = Kai(case)
    rule = _not_modelled(case, world)
    if rule:
        return Verdict(name, "not_modelled", rule)
    outcome = decide(convert(world), queue_terms(world))
    comparison = Comparison()
    _compare(case, world, outcome, comparison)
    return comparison.verdict(name, outcome)


# --- rules over fields ------------------------------------------------------------------------------------------------


def _not_modelled(case: Case, world: Kai) -> str:
    tasks = [task for job in case["jobs"] for task in job["tasks"]]
    if any(task.get("claims") for task in tasks) and not _claims_are_held(case, world):
        return "DRA claims are not in the dump"
    if any(task["state"] == "StuckInReleasing" for task in tasks):
        return "a pod that does not end"
    for listed, words in ((case["jobs"], JOB_WORDS), (case["nodes"].values(), NODE_WORDS), (tasks, TASK_WORDS)):
        strange = {word for one in listed for word, value in one.items() if value and word not in words}
        if strange:
            return f"a field that we have no word for: {sorted(strange)[0]}"
    if max(map(world.gpus_of, case["nodes"]), default=0) > MOST_GPUS:
        return "more GPUs on a node than a node of ours has"
    if any(world.devices_held(name) > world.gpus_of(name) for name in case["nodes"]):
        return "more runs on a node than it has"
    if world.nested:
        return "groups inside groups that share a domain, or so many of so many groups"
    for job in case["jobs"]:
        asks = any(job.get(word) for word in ("gpusPerTask", "gpuMemoryPerTask", "cpuPerTask", "memoryPerTask"))
        for task in job["tasks"]:
            alone = task["state"] == "Running" and not asks and not task.get("mig")
            if alone and case["nodes"][task["node"]].get("mig"):
                return "the mark of a MIG pod from before it was managed is not in the dump"
    if (world.competing or _evicts(case)) and len({queue["Priority"] or 0 for queue in case["queues"]}) > 1:
        return "a queue's own priority decides"
    if _runs_in_part(case):
        return "a job that runs without a subgroup that it must have"
    if _moves(case):
        return "a running job is moved to make room (consolidation)"
    if _quota_decides(case, world):
        return "a queue's quota of CPU or memory decides"
    return ""


def evicts(case: Case) -> bool:
    """Whether a case is about who is stopped."""
    return _evicts(case) or any(word in case["suite"].casefold() for word in EVICTING)


def _evicts(case: Case) -> bool:
    """Whether KAI stops anybody."""
    return any(
        task["state"] == "Running"
        and "Pending"
        in (
            case["expectedJobs"].get(job["name"], {}).get("status"),
            case["expectedTasks"].get(f"{job['name']}-{at}", {}).get("status"),
        )
        for job in case["jobs"]
        for at, task in enumerate(job["tasks"])
    )


def _runs_in_part(case: Case) -> bool:
    """Whether a job runs of which a subgroup with a minimum does not: a gang of ours is whole or not there."""
    for job in case["jobs"]:
        held = {task.get("subGroup") for task in job["tasks"] if task["state"] == "Running"}
        needed = {name for name, one in pod_sets(job).items() if int(one.get("minMember") or 0) > 0}
        if held and needed - held and _evicts(case):
            return True
    return False


def _moves(case: Case) -> bool:
    """Whether KAI starts a running job anew on another node or another GPU, so that a third one fits."""
    for job in case["jobs"]:
        wanted = case["expectedJobs"].get(job["name"], {})
        for task in job["tasks"]:
            node, groups = wanted.get("node"), wanted.get("gpuGroups") or task.get("gpuGroups")
            stays = task["state"] == "Running" and wanted.get("status") == "Running" and node
            if stays and (node, groups) != (task["node"], task.get("gpuGroups")):
                return True
    return False


def _claims_are_held(case: Case, world: Kai) -> bool:
    """Whether every claim of a task that waits is one that a running task has, so that it costs no more devices.

    What such claims hold is not in the dump, so nothing else may ask for GPUs.
    """
    for job in case["jobs"]:
        for task in job["tasks"]:
            if task["state"] == "Pending" and any(claim not in world.claimed for claim in task.get("claims") or ()):
                return False
    return not any(job["gpusPerTask"] or job.get("gpuMemoryPerTask") for job in case["jobs"])


def _quota_decides(case: Case, world: Kai) -> bool:
    """Whether jobs of a queue, all together, ask for more CPU or memory than a limit allows."""
    for queue in (*case["queues"], *(case["departments"] or ())):
        jobs = [job for job in case["jobs"] if queue["Name"] in world.chain(job["queue"])]
        for asked, limits, times in (
            ("cpuPerTask", ("MaxAllowedCPUs", "DeservedCPUs"), 1_000),
            ("memoryPerTask", ("MaxAllowedMemory", "DeservedMemory"), 1),
        ):
            total = sum((job.get(asked) or 0) * times * len(job["tasks"]) for job in jobs)
            for limit in limits:
                most = queue.get(limit)
                if most is not None and most >= 0 and total > most:
                    return True
    return False


# --- the comparison ---------------------------------------------------------------------------------------------------


def _compare(case: Case, world: Kai, outcome: Outcome, comparison: Comparison) -> None:
    places = world.places(outcome)
    _victims(case, world, outcome, comparison)
    running = {job["name"]: _runs(job, places) for job in case["jobs"]}
    waited = {job["name"] for job in case["jobs"] if any(task["state"] == "Pending" for task in job["tasks"])}
    differing: list[str] = []
    rounded = _rounded(case, world)
    for name, wanted in case["expectedJobs"].items():
        if name in rounded and not running.get(name):
            comparison.taste(False, "what is left of a division is given in whole GPUs")
            continue
        right = running.get(name) == (wanted["status"] == "Running")
        if wanted["status"] in ("Running", "Pending") and name in waited and not right:
            differing.append(name)
    _tasks(case, places, waited, comparison)
    if differing and _equals(differing, case, world, running):
        comparison.taste(False, "an order among equals")
        differing = []
    waiting = {left.gang: left.refusal.reason.token for left in outcome.waiting if left.refusal is not None}
    for name in differing:
        status = case["expectedJobs"][name]["status"]
        comparison.law(False, f"{name} is not {status}, as it should be ({waiting.get(world.rest(name), 'placed')})")
    for name, wanted in case["expectedJobs"].items():
        if running.get(name) and wanted["status"] == "Running" and wanted.get("node"):
            job = next(job for job in case["jobs"] if job["name"] == name)
            for at, task in enumerate(job["tasks"]):
                if task["state"] == "Pending":
                    _same_node(f"{name}-{at}", places, wanted["node"], world, comparison)
    for job in case["jobs"]:
        for at, task in enumerate(job["tasks"]):
            place = places.get(f"{job['name']}-{at}")
            if place is not None and task["state"] == "Pending":
                wanted = world.devices_of(job, task)
                comparison.law(len(place[1]) == wanted, f"{job['name']}-{at} holds {len(place[1])} GPUs, not {wanted}")
    _domains(case, world, places, comparison)
    _together(case, places, comparison)


Places = Mapping[str, tuple[str, tuple[str, ...]]]
"""task -> (node, devices), of those that hold something."""


def _tasks(case: Case, places: Places, waited: set[str], comparison: Comparison) -> None:
    """As many tasks of a subgroup run as with KAI; which of them is nobody's business."""
    for job in case["jobs"]:
        ours, theirs = Counter[str](), Counter[str]()
        for at, task in enumerate(job["tasks"]):
            key = f"{job['name']}-{at}"
            wanted = case["expectedTasks"].get(key)
            if wanted is not None:
                ours[task.get("subGroup") or ""] += key in places
                theirs[task.get("subGroup") or ""] += wanted["status"] == "Running"
        if job["name"] in waited:
            comparison.law(ours == theirs, f"tasks of {job['name']} that run: {dict(ours)}, not {dict(theirs)}")


def _runs(job: Mapping[str, Any], places: Places) -> bool:
    return all(f"{job['name']}-{at}" in places for at in range(len(job["tasks"])))


def _equals(differing: Sequence[str], case: Case, world: Kai, running: Mapping[str, bool]) -> bool:
    """Whether as many jobs of the same size and priority run, of other queues that held nothing either."""
    jobs = {job["name"]: job for job in case["jobs"]}
    sides: dict[bool, list[tuple[object, ...]]] = {True: [], False: []}
    if not set(differing) <= jobs.keys():
        return False
    for name in differing:
        job = jobs[name]
        if any(world.holds(queue) for queue in world.chain(job["queue"])):
            return False
        size = (job["gpusPerTask"], job.get("gpuMemoryPerTask"), job.get("cpuPerTask"), len(job["tasks"]))
        sides[running[name]].append((job["priority"], *size))
    queues = {jobs[name]["queue"] for name in differing}
    return len(queues) > 1 and sorted(map(str, sides[True])) == sorted(map(str, sides[False]))


def _rounded(case: Case, world: Kai) -> set[str]:
    """Jobs that KAI starts above their queue's exact share, as it gives what is left of a division in whole GPUs.

    For queues without departments; shares are the quota first, then what is left by weight.
    """
    if case["departments"] or not _evicts(case):
        return set()
    asked: dict[str, Fraction] = {}
    for job in case["jobs"]:
        asked[job["queue"]] = asked.get(job["queue"], Fraction(0)) + Fraction(world.milli_asked(job), 1_000)
    queues = {
        q["Name"]: (Fraction(q["DeservedGPUs"]), Fraction(q.get("GPUOverQuotaWeight") or 0)) for q in case["queues"]
    }
    share = exact_shares(Fraction(world.gpus), queues, asked)
    return {
        job["name"]
        for job in case["jobs"]
        if case["expectedJobs"].get(job["name"], {}).get("status") == "Running"
        and job["queue"] in share
        and share[job["queue"]] < asked[job["queue"]] <= ceil(share[job["queue"]])
    }


def _same_node(task: str, places: Places, node: str, world: Kai, comparison: Comparison) -> None:
    ours = places[task][0]
    if ours != node:
        if OTHER_VICTIMS in comparison.waived:
            return  # where they were is where there is room now
        if world.alike(ours, node):
            comparison.taste(False, "another of equal nodes")
        else:
            comparison.law(False, f"{task} is on {ours}, not on {node}, and the two differ")


def _domains(case: Case, world: Kai, places: Places, comparison: Comparison) -> None:
    """A required level holds for all tasks of a job."""
    for job in case["jobs"]:
        level = ((job.get("subGroups") or {}).get("topology") or {}).get("required")
        nodes = {places[key][0] for at in range(len(job["tasks"])) if (key := f"{job['name']}-{at}") in places}
        if level and nodes and any(task["state"] == "Pending" for task in job["tasks"]):
            domains = {world.domain(level, node) for node in nodes}
            comparison.law(len(domains) == 1, f"{job['name']} lies in {len(domains)} domains of {level}")


def _together(case: Case, places: Places, comparison: Comparison) -> None:
    """Shares that KAI puts on one GPU lie on one GPU, and those that it keeps apart lie apart."""
    found: list[tuple[str, tuple[str, str], tuple[str, tuple[str, ...]]]] = []
    for name, wanted in case["expectedJobs"].items():
        groups = wanted.get("gpuGroups") or []
        if len(groups) == 1 and wanted["status"] == "Running" and f"{name}-0" in places:
            found.append((name, (wanted.get("node", ""), groups[0]), places[f"{name}-0"]))
    for at, (name, group, place) in enumerate(found):
        for other, other_group, other_place in found[at + 1 :]:
            if (group == other_group) != (place == other_place):
                joined = "together" if group == other_group else "apart"
                comparison.law(False, f"{name} and {other} should lie {joined}: {place}, {other_place}")


def _victims(case: Case, world: Kai, outcome: Outcome, comparison: Comparison) -> None:
    """Nobody is stopped in vain, and no more GPUs lose their work than with KAI."""
    held = {job["name"]: job for job in case["jobs"] if any(task["state"] == "Running" for task in job["tasks"])}
    theirs = {
        name
        for name, job in held.items()
        if case["expectedJobs"].get(name, {}).get("status") == "Pending"
        or any(
            task["state"] == "Running" and case["expectedTasks"].get(f"{name}-{at}", {}).get("status") == "Pending"
            for at, task in enumerate(job["tasks"])
        )
    }
    ours = {gang.removesuffix(".held") for gang in stopped_for_others(outcome)}
    compare_victims(
        {name: world.milli_held(name) for name in ours}, {n: world.milli_held(n) for n in theirs}, comparison
    )
