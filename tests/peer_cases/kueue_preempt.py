"""Kueue's preemption cases: one workload comes, and who is preempted for it.

Law: whether it is admitted, and that no more is stopped for it than Kueue stops. A queue's own policies that our queues
do not have (priority across queues, age, borrowing by priority) are taste where they make the difference.
"""

from __future__ import annotations

from fairlead.simulation.scenario_run import Outcome
from peer_cases.kueue_quota import INCOMING, Quotas, convert, too_large
from peer_cases.verdicts import Case, Comparison, Verdict, compare_victims, decide, stopped_for_others


def is_one(case: Case) -> bool:
    """Whether a line is of this schema."""
    return {"clusterQueues", "admitted", "incoming", "wantPreempted"} <= case.keys()


def judge(case: Case) -> Verdict:
    """Convert, run and compare one case."""
    name = case["name"]
    if case["targetCQ"] not in {one["name"] for one in case["clusterQueues"]}:
        return Verdict(name, "not_modelled", "the queue of the workload is not in the dump")
    world = Quotas(case)
    rule = _not_modelled(world)
    if rule:
        return Verdict(name, "not_modelled", rule)
    outcome = decide(convert(world))
    comparison = Comparison()
    _compare(world, outcome, comparison)
    return comparison.verdict(name, outcome)


def _not_modelled(world: Quotas) -> str:
    if not world.case.get("assignment") and len(world.flavors) > 1:
        return "which flavor a workload is to have is not in the dump"
    if not all(one.asked for one in world.workloads):
        return "a workload without pods"
    if too_large(world):
        return "more runs than the quotas allow, or in parts of them that are too small"
    return ""


def evicts(case: Case) -> bool:
    """Whether a case is about who is stopped."""
    return bool(case["admitted"])


def _victims(case: Case) -> set[str]:
    """Return the names of the preempted: listed, or by a condition of theirs."""
    if isinstance(case["wantPreempted"], list):
        return {one.partition(":")[0].strip("/") for one in case["wantPreempted"]}
    return {
        one["name"]
        for one in case["wantWorkloads"]
        if any(condition["type"] == "Preempted" for condition in one.get("conditions") or ())
    }


def _compare(world: Quotas, outcome: Outcome, comparison: Comparison) -> None:
    held = {one.name: one.total(world.resource) for one in world.admitted}
    theirs = {name: held.get(name, 0) for name in _victims(world.case)}
    ours = {name: held[name] for name in stopped_for_others(outcome)}
    comes = bool(theirs) or any(one.evicted for one in world.admitted)
    placed = any(one.gang == INCOMING for one in outcome.placed)
    rule = _policy(world, takes_less=not placed or sum(ours.values()) > sum(theirs.values()) > 0)
    if rule and (placed != comes or ours.keys() != theirs.keys()):
        comparison.taste(False, rule)
        return
    why = next((left.refusal.message for left in outcome.waiting if left.gang == INCOMING and left.refusal), "")
    comparison.law(placed == comes, f"is {'' if placed else 'not '}admitted {why}")
    compare_victims(ours, theirs, comparison)


def _policy(world: Quotas, *, takes_less: bool) -> str:
    """Return the policy of a queue, unknown to ours, from which a difference may come; "" for none.

    `takes_less`: we do not admit, or stop others than Kueue stops. Who is stopped where Kueue stops nobody is excused
    by nothing but a queue that takes less than its own back.
    """
    spec = world.specs[world.target]
    policy = spec.get("preemption") or {}
    reclaim = policy.get("reclaimWithinCohort") or "Never"
    above = world.held(world.target) + world.incoming.total(world.resource) > world.nominal(spec, world.resource)
    if policy.get("withinClusterQueue") == "LowerOrNewerEqualPriority":
        return "an older job stops a newer one of equal priority"
    if world.parent(spec) and reclaim == "Never":
        return "a queue that takes nothing back"
    if reclaim == "LowerPriority" and any(
        one.priority >= world.incoming.priority
        for one in world.admitted
        if one.queue != world.target and world.held(one.queue) > world.nominal(world.specs[one.queue], world.resource)
    ):
        return "a queue takes its own back from lower priorities only"
    if takes_less and above and world.case["suite"] == "TestFairPreemptions":
        return "a taker above its share, as long as the loser had more"
    if takes_less and above and policy.get("borrowWithinCohort"):
        return "priority takes across queues, for a queue above its quota"
    return ""
