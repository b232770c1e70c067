"""The converters of other schedulers' cases about who is stopped, on small lines of the same schemas."""

from __future__ import annotations

from fractions import Fraction

from peer_cases import run as peer_run
from peer_cases.small_lines import (
    WAITS,
    broken,
    cluster_queue,
    group,
    kai,
    kai_job,
    kai_queue,
    kueue_quota,
    passes,
    pod,
    queue,
    runs,
    volcano,
    workload,
)
from peer_cases.verdicts import OTHER_VICTIMS, exact_shares

# --- KAI --------------------------------------------------------------------------------------------------------------

OTHERS = {"nodes": {"n0": {"gpus": 2}}, "queues": [kai_queue("q", 1), kai_queue("p", 1)]}


def test_kai_who_is_stopped_and_who_comes_is_compared() -> None:
    jobs = [kai_job("a", 1, "n0"), kai_job("b", 1, "n0"), kai_job("c", 1, "-", belongs="p")]
    both = {"a": runs("n0"), "b": WAITS, "c": runs("n0")}
    assert passes(kai(**OTHERS, jobs=jobs, expectedJobs=both))
    assert broken(kai(**OTHERS, jobs=jobs, expectedJobs={"a": runs("n0"), "b": runs("n0"), "c": WAITS})) == [
        "stopped ['a'], nobody would do",
        "c is not Pending, as it should be (placed)",
    ]
    high = [{**jobs[0], "priority": 100}, jobs[1], jobs[2]]
    assert passes(kai(**OTHERS, jobs=high, expectedJobs=both)), "from 100 on it is not preemptible"


def test_kai_other_victims_are_as_good_where_no_more_gpus_lose_their_work() -> None:
    nodes = {"n0": {"gpus": 2}, "n1": {"gpus": 2}}
    queues = [kai_queue("q", 2), kai_queue("p", 2)]
    jobs = [kai_job("one", 1, "n0"), kai_job("two", 2, "n1"), kai_job("c", 1, "-", belongs="p")]
    jobs[2]["tasks"].append({"state": "Running", "node": "n0"})
    world = {"nodes": nodes, "queues": queues, "jobs": jobs}
    larger = peer_run.judge(kai(**world, expectedJobs={"one": runs("n0"), "two": WAITS, "c": runs()}))
    assert (larger.why, larger.waived) == ((), (OTHER_VICTIMS,))


def test_kai_moves_are_not_modelled_and_shares_in_whole_gpus_are_taste() -> None:
    nodes = {"n0": {"gpus": 2}, "n1": {"gpus": 2}}
    jobs = [kai_job("a", 1, "n0"), kai_job("b", 1, "n1"), kai_job("c", 2, "-")]
    moved = kai(nodes=nodes, jobs=jobs, expectedJobs={"a": runs("n0"), "b": runs("n0"), "c": runs("n1")})
    assert peer_run.judge(moved).rule == "a running job is moved to make room (consolidation)"
    weights = [kai_queue("q", 0, GPUOverQuotaWeight=3), kai_queue("p", 0, GPUOverQuotaWeight=1)]
    rival = [kai_job("a", 2, "n0"), kai_job("b", 2, "-"), kai_job("c", 2, "n0", belongs="p")]
    rounded = kai(nodes={"n0": {"gpus": 5}}, queues=weights, jobs=rival, expectedJobs={"b": runs(), "c": WAITS})
    assert peer_run.judge(rounded).why == ()


def test_exact_shares_are_quota_first_and_then_by_weight_as_far_as_asked() -> None:
    queues = {"a": (Fraction(1), Fraction(3)), "b": (Fraction(2), Fraction(1)), "c": (Fraction(5), Fraction(0))}
    asked = {"a": Fraction(9), "b": Fraction(4)}
    assert exact_shares(Fraction(4), queues, asked) == {"a": Fraction(7, 4), "b": Fraction(9, 4), "c": 0}
    assert exact_shares(Fraction(40), queues, asked) == {"a": 9, "b": 4, "c": 0}


def test_kai_mig_devices_of_a_world_without_gpus_stand_for_them() -> None:
    nodes = {"n0": {"gpus": 0, "mig": {"nvidia.com/mig-1g.10gb": 2}}}
    jobs = [
        kai_job(name, 0, state, belongs=of) for name, state, of in (("a", "n0", "q"), ("b", "n0", "q"), ("c", "-", "p"))
    ]
    for one in jobs:
        one["tasks"][0]["mig"] = {"nvidia.com/mig-1g.10gb": 1}
    queues = [kai_queue("q", 0), kai_queue("p", 1)]
    expected = {"a": runs("n0"), "b": WAITS, "c": runs("n0")}
    assert passes(kai(nodes=nodes, queues=queues, jobs=jobs, expectedJobs=expected))


# --- Volcano ----------------------------------------------------------------------------------------------------------

FULL = [pod(f"r{at}", node=name) for at, name in enumerate(("s0-a", "s0-b", "s1-a", "s1-b"))]
HIGH = {
    "podGroups": [group("g"), group("h", priorityClassName="high")],
    "priorityClasses": [{"name": "high", "value": 7}],
    "pods": [*FULL, pod("p", "h")],
}


def test_volcano_pods_of_a_group_with_no_minimum_go_one_by_one() -> None:
    one = volcano(**HIGH, expectEvictNum=1, expectEvicted=["ns/r0"])
    assert passes(one), "any of the four is as good"
    assert broken(volcano(**HIGH)) == ["stopped ['ns/r0'], nobody would do", "1 pods are bound"]
    whole = volcano(
        **{**HIGH, "podGroups": [group("g", 4), HIGH["podGroups"][1]]}, expectEvictNum=1, expectEvicted=["ns/r0"]
    )
    assert broken(whole) == ["stopped ['ns/r0', 'ns/r1', 'ns/r2', 'ns/r3'], ['ns/r0'] would do"]


def test_volcano_marks_of_single_pods_are_read() -> None:
    kept = {"labels": {"volcano.sh/preemptable": "false"}}
    pods = [*(pod(f"r{at}", node=f"s0-{'ab'[at]}", **kept) for at in range(2)), *FULL[2:], pod("p", "h")]
    assert passes(volcano(**{**HIGH, "pods": pods}, expectEvictNum=1, expectEvicted=["ns/r3"]))
    allkept = [{**one, **kept} for one in FULL]
    assert broken(
        volcano(**{**HIGH, "pods": [*allkept, pod("p", "h")]}, expectEvictNum=1, expectEvicted=["ns/r3"])
    ) == ["room was made and nobody is bound ['NodesFiltered']"]


def test_volcano_what_one_queue_takes_of_another_stands_for_gpus() -> None:
    queues = [queue("q", deserved={"cpu": "4"}), queue("p", deserved={"cpu": "4"})]
    groups = [group("g"), group("h", belongs="p")]
    case = volcano(
        queues=queues, podGroups=groups, pods=[*FULL, pod("p", "h")], expectEvictNum=1, expectEvicted=["ns/r1"]
    )
    assert passes(case)
    poor = [queue("q", deserved={"cpu": "8"}), queue("p")]
    assert broken({**case, "queues": poor}) == ["room was made and nobody is bound ['NodesFiltered']"]


# --- Kueue ------------------------------------------------------------------------------------------------------------

PAIR = [cluster_queue("a", "3"), cluster_queue("b", "3")]


def test_kueue_quota_is_what_there_is_and_what_is_borrowed_comes_back() -> None:
    held = [workload(f"b{at}", "b", "1") for at in range(6)]
    comes = workload("in", "a", "2")
    assert passes(kueue_quota(PAIR, held, comes, "b0", "b1"))
    assert broken(kueue_quota(PAIR, held, comes)) == ["is admitted ", "stopped ['b0', 'b1'], nobody would do"]
    assert broken(kueue_quota(PAIR, held[:3], comes, "b0")) == [], "nothing needs to be stopped"
    assert passes(kueue_quota(PAIR, held, workload("in", "a", "4"))), (
        "more than its own quota, and as much as the other"
    )


def test_kueue_limits_cohorts_and_priorities_are_read() -> None:
    bound = [cluster_queue("a", "3", borrowingLimit="1"), cluster_queue("b", "3")]
    assert passes(kueue_quota(bound, [workload("b0", "b", "4")], workload("in", "a", "5")))
    alone = [cluster_queue("a", "3", cohort=""), cluster_queue("b", "3")]
    mine = [workload("a0", "a", "2", 0), workload("a1", "a", "1", 5)]
    assert passes(kueue_quota(alone, mine, workload("in", "a", "1", 3), "a0"))
    assert passes(kueue_quota(alone, mine, workload("in", "a", "1", 0)))
    never = [cluster_queue("a", "3", cohort="", preemption={"withinClusterQueue": "Never"})]
    assert passes(kueue_quota(never, mine, workload("in", "a", "1", 3)))


def test_kueue_policies_that_our_queues_do_not_have_are_taste_where_they_decide() -> None:
    held = [workload(f"b{at}", "b", "1", 5) for at in range(6)]
    lower = [cluster_queue("a", "3", preemption={"reclaimWithinCohort": "LowerPriority"}), PAIR[1]]
    verdict = peer_run.judge(kueue_quota(lower, held, workload("in", "a", "2", 1)))
    assert verdict.waived == ("a queue takes its own back from lower priorities only",)
    assert broken(kueue_quota(lower, held, workload("in", "a", "2", 9))), (
        "here its priority is higher: Kueue would take"
    )
    nothing = [cluster_queue("a", "3", preemption={"reclaimWithinCohort": "Never"}), PAIR[1]]
    assert peer_run.judge(kueue_quota(nothing, held, workload("in", "a", "2"))).waived == (
        "a queue that takes nothing back",
    )


def test_kueue_worlds_that_can_not_be_written_are_not_modelled() -> None:
    over = kueue_quota(PAIR, [workload(f"b{at}", "b", "1") for at in range(7)], workload("in", "a", "2"))
    fine = kueue_quota(PAIR, [workload("b0", "b", "1m")], workload("in", "a", "2"))
    assert peer_run.judge(over).state == peer_run.judge(fine).state == "not_modelled"
