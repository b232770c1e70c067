"""The converters of other schedulers' cases, on small lines of the same schemas."""

from __future__ import annotations

import copy
from typing import Any

from peer_cases import run as peer_run
from peer_cases.small_lines import (
    BLOCK,
    HOST,
    RACK,
    TWO_RACKS,
    WAITS,
    broken,
    group,
    hard,
    host,
    kai,
    kai_job,
    kai_queue,
    kueue,
    many,
    passes,
    pod,
    pods,
    queue,
    runs,
    volcano,
)

# --- Kueue ------------------------------------------------------------------------------------------------------------


def test_kueue_a_required_rack_is_held_and_refused() -> None:
    assert passes(kueue(TWO_RACKS, pods(4, {"a": 2, "b": 2}, required=RACK)))
    assert passes(kueue(TWO_RACKS, pods(5, None, required=RACK)))
    assert broken(kueue(TWO_RACKS, pods(5, {"a": 2, "b": 2, "c": 1}, required=RACK))) == ["not placed"]
    assert broken(kueue(TWO_RACKS, pods(4, None, required=RACK))) == ["placed, though Kueue says"]


def test_kueue_fewer_domains_are_law_and_which_of_equal_ones_is_taste() -> None:
    nodes = [host("a", "b/r1", cpu="2"), host("b", "b/r2", cpu="2"), host("c", "b/r3", cpu="1")]
    verdict = peer_run.judge(kueue(nodes, pods(2, {"b": 2}, required=RACK)))
    assert (verdict.why, verdict.waived) == ((), ("another of equal domains",))
    greedy = peer_run.judge(kueue(nodes, pods(2, {"a": 1, "b": 1}, preferred=RACK)))
    assert greedy.why == ()  # ours needs fewer than the expected two


def test_kueue_levels_that_the_tree_lacks_and_nodes_outside_it() -> None:
    assert passes(kueue(TWO_RACKS, pods(1, None, required="example.com/zone")))
    outside = copy.deepcopy(TWO_RACKS)
    del outside[2]["labels"][RACK]
    assert passes(kueue(outside, pods(5, None, preferred=BLOCK)))
    assert passes(kueue(TWO_RACKS, pods(5, {"a": 2, "b": 2, "c": 1}, preferred=BLOCK)))


def test_kueue_usage_taints_labels_and_states_of_nodes_count() -> None:
    node = host("a", "b/r1", cpu="2")
    pod = {"labels": None, "name": "p", "node": "a", "phase": "Running", "requests": [{"cpu": "1500m"}]}
    assert passes(kueue([node], pods(1, None, required=HOST), pods=[pod]))
    assert passes(kueue([node], pods(1, {"a": 1}, required=HOST), pods=[{**pod, "phase": "Succeeded"}]))
    assert passes(kueue([{**node, "unschedulable": True}], pods(1, None, required=HOST)))
    assert passes(kueue([{**node, "conditions": [{"type": "Ready", "status": "False"}]}], pods(1, None, required=HOST)))
    taint = [{"key": "k", "value": "v", "effect": "NoSchedule"}]
    assert passes(kueue([{**node, "taints": taint}], pods(1, None, required=HOST)))
    tolerant = {**pods(1, {"a": 1}, required=HOST), "tolerations": [{"key": "k", "operator": "Equal", "value": "v"}]}
    assert passes(kueue([{**node, "taints": taint}], tolerant))
    assert passes(kueue([node], pods(1, None, required=HOST), nodeLabels={"zone": "z"}))


def test_kueue_what_is_not_modelled_is_so_by_a_field() -> None:
    one = pods(1, {"a": 1}, required=HOST)
    shrunk = {**one, "previousAssignment": assigned(("a", 1), ("b", 2))}
    sliced = pods(4, {"a": 2, "b": 2}, preferred=RACK, podSetSliceRequiredTopology=HOST, podSetSliceSize=2)
    for case in (
        kueue(TWO_RACKS, one, hasPriorUsage=True),
        kueue(TWO_RACKS, one, hasWorkload=True),
        kueue(TWO_RACKS, shrunk),
        kueue(TWO_RACKS, {**sliced, "previousAssignment": assigned(("a", 2))}),
        kueue(TWO_RACKS, one, gates={"TASFailedNodeReplacement": True}),
        kueue(TWO_RACKS, {**pods(1, {"a": 1}, required=RACK), "requests": {"cpu": 4000}}, levels=[BLOCK, RACK]),
    ):
        verdict = peer_run.judge(case)
        assert (verdict.state, bool(verdict.rule)) == ("not_modelled", True)


def test_kueue_only_preferred_nodes_are_a_score_where_its_gate_looks_at_them() -> None:
    wish = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1}]}
    weighed = {**pods(3, {"a": 2, "b": 1}, preferred=RACK), "nodeAffinity": wish}  # c alone would do
    assert passes(kueue(TWO_RACKS, weighed))
    looked = peer_run.judge(kueue(TWO_RACKS, weighed, gates={"TASRespectNodeAffinityPreferred": True}))
    assert (looked.why, looked.waived) == ((), ("a peer's score: node affinity that is only preferred",))


def test_kueue_pods_that_are_assigned_stay_and_the_others_come_beside_them() -> None:
    grown = {**pods(4, {"a": 2, "b": 2}, required=RACK), "previousAssignment": assigned(("a", 1))}
    assert passes(kueue(TWO_RACKS, grown))
    other = {**pods(3, {"a": 1, "b": 2}, required=RACK), "previousAssignment": assigned(("a", 1))}
    assert passes(kueue(TWO_RACKS, other)), "c would hold all three, but one is in the other rack"
    full = {**pods(5, None, required=RACK), "previousAssignment": assigned(("a", 2), ("b", 1))}
    assert passes(kueue(TWO_RACKS, full))


def assigned(*places: tuple[str, int]) -> dict[str, Any]:
    """An assignment in Kueue's short form."""
    hosts = {"individual": {"prefix": "", "roots": [name for name, _ in places]}}
    counts = {"individual": [count for _, count in places]}
    part = {"domainCount": len(places), "valuesPerLevel": [hosts], "podCounts": counts}
    return {"levels": [HOST], "slices": [part]}


def test_kueue_an_even_split_over_needless_domains_is_a_score() -> None:
    gates = {"TASBalancedPlacement": True}
    nodes = [host("a", "b/r1", cpu="4"), host("b", "b/r1", cpu="2"), host("c", "b/r1", cpu="2")]
    needless = kueue(nodes, pods(6, {"a": 2, "b": 2, "c": 2}, preferred=RACK), gates=gates)
    assert peer_run.judge(needless).rule.startswith("a peer's score")
    forced = kueue(nodes, pods(8, {"a": 4, "b": 2, "c": 2}, preferred=RACK), gates=gates)
    assert passes(forced)


# --- Volcano ----------------------------------------------------------------------------------------------------------


def test_volcano_a_hard_tier_is_held_and_refused() -> None:
    assert passes(volcano(podGroups=[group("g", 3, **hard(1))], pods=many(3)))
    assert passes(volcano(podGroups=[group("g", 3, **hard(2))], pods=many(3), expectBindsNum=3))
    assert passes(volcano(podGroups=[group("g", 3, **hard(9))], pods=many(3), expectBindsNum=3))
    assert passes(volcano(podGroups=[group("g", 1, **hard(0))], pods=many(1)))  # below every tier
    assert broken(volcano(podGroups=[group("g", 3, **hard(1))], pods=many(3), expectBindsNum=3)) == ["0 pods are bound"]


def test_volcano_what_is_left_of_a_group_stays_where_the_rest_runs() -> None:
    held = [pod("r0", node="s0-a"), pod("r1", node="s0-b")]
    assert passes(volcano(podGroups=[group("g", 2, **hard(1))], pods=[*held, pod("p")]))
    assert passes(volcano(podGroups=[group("g", 2, **hard(2))], pods=[*held, pod("p")], expectBindsNum=1))
    assert passes(volcano(podGroups=[group("g", 2, **hard(1))], pods=[held[0], pod("p")], expectBindsNum=1))


def test_volcano_pods_of_a_group_without_a_minimum_come_one_by_one() -> None:
    lost = pod("lost", nodeSelector={"nodeRole": "none"})
    case = volcano(podGroups=[group("g", 1)], pods=[lost, pod("p")], expectBindsNum=1, expectBindMap={"ns/p": "s0-a"})
    assert passes(case)
    assert passes(volcano(podGroups=[group("g", 2)], pods=[lost, pod("p")]))
    gated = pod("gated", gates=["wait"])
    assert passes(volcano(podGroups=[group("g", 2)], pods=[gated, pod("p")]))


def test_volcano_the_only_node_that_fits_is_law_and_any_other_is_taste() -> None:
    nodes = copy.deepcopy(volcano()["nodes"])
    nodes[2]["labels"] = {"role": "big"}
    only = volcano(nodes=nodes, pods=[pod("p", nodeSelector={"role": "big"})], expectBindsNum=1)
    assert passes({**only, "expectBindMap": {"ns/p": "s1-a"}})
    verdict = peer_run.judge(volcano(pods=[pod("p")], expectBindsNum=1, expectBindMap={"ns/p": "s1-b"}))
    assert (verdict.why, verdict.waived) == ((), ("another node",))


def test_volcano_queues_quota_and_order_where_a_core_stands_for_a_gpu() -> None:
    small = queue("q", capability={"cpu": "2"})
    assert passes(volcano(queues=[small], pods=many(2), expectBindsNum=1))
    rich, poor = group("g"), group("h", belongs="p")
    full = [pod(f"x{at}", node=name) for at, name in enumerate(("s0-a", "s0-b", "s1-a"))]
    case = volcano(
        queues=[queue("q"), queue("p")],
        podGroups=[rich, poor],
        pods=[*full, pod("mine"), pod("theirs", "h")],
        expectBindsNum=1,
        expectBindMap={"ns/theirs": "s1-b"},
        minimalBindCheck=False,
    )
    assert passes(case)
    assert peer_run.judge({**case, "queues": [queue("q", priority=3), queue("p")]}).rule == (
        "a queue's own priority decides"
    )
    closed = volcano(queues=[queue("q", "Closed")], pods=many(1))
    assert passes(closed)
    assert passes(volcano(queues=[], pods=many(1)))


def test_volcano_states_are_by_fields() -> None:
    score = volcano(pods=many(1), minimalBindCheck=False, tiers=[["binpack"]])
    assert (peer_run.judge(score).state, peer_run.judge(score).rule) == ("taste", "a peer's score")
    named = {"networkTopology": {"mode": "hard", "highestTierName": "rack"}}
    for case in (
        volcano(dra=1),
        volcano(resourceQuotas=1),
        volcano(tiers=[["gang", "test-rejecter"]]),
        volcano(podGroups=[group("g", **named)]),
        volcano(podGroups=[group("g", phase="Pending")], expectStatus={"ns/g": "Inqueue"}),
        volcano(pods=[pod("p", affinity={"podAntiAffinity": {"required": []}})]),
    ):
        assert peer_run.judge(case).state == "not_modelled"


def test_volcano_what_is_stopped_is_a_broken_law() -> None:
    case = volcano(
        podGroups=[group("g"), group("h", priorityClassName="high")],
        pods=[pod(f"r{at}", node=name) for at, name in enumerate(("s0-a", "s0-b", "s1-a", "s1-b"))] + [pod("p", "h")],
        priorityClasses=[{"name": "high", "value": 10}],
        nodes=[{**node, "allocatable": {"cpu": "2", "pods": "10"}} for node in volcano()["nodes"]],
    )
    kept = copy.deepcopy(case)
    for one in kept["pods"][:4]:
        one["labels"] = {"volcano.sh/preemptable": "false"}
    assert passes(kept)
    assert broken(case)[:1] == ["stopped ['ns/r0'], nobody would do"]


# --- KAI --------------------------------------------------------------------------------------------------------------


def test_kai_jobs_run_or_wait() -> None:
    jobs = [kai_job("a", 1, "n0"), kai_job("b", 1, "-"), kai_job("c", 1, "-")]
    assert passes(kai(jobs=jobs, expectedJobs={"a": runs("n0"), "b": runs("n0"), "c": WAITS}))
    wrong = broken(kai(jobs=jobs, expectedJobs={"b": WAITS, "c": runs()}))
    assert [text.partition(", as")[0] for text in wrong] == ["b is not Pending", "c is not Running"]
    limited = [kai_queue("q", 1, MaxAllowedGPUs=1)]
    assert passes(kai(jobs=jobs, queues=limited, expectedJobs={"a": runs(), "b": WAITS, "c": WAITS}))


def test_kai_a_required_level_and_the_fuller_of_two_racks() -> None:
    nodes = {name: {"gpus": 3, "labels": {"rack": rack}} for name, rack in (("n0", "r0"), ("n1", "r1"))}
    within = {"subGroups": {"name": "", "topology": {"name": "t", "required": "rack", "preferred": ""}}}
    topologies = [{"name": "t", "levels": ["rack"]}]
    held = kai_job("a", 1, "n1")
    case = kai(nodes=nodes, topologies=topologies, jobs=[held, kai_job("b", 1, "-", "-", **within)])
    assert passes({**case, "expectedJobs": {"b": runs("n1")}})
    assert broken({**case, "expectedJobs": {"b": runs("n0")}})
    big = {**case, "jobs": [kai_job("b", 1, *"----", **within)], "expectedJobs": {"b": WAITS}}
    assert passes(big)


def test_kai_equal_jobs_of_queues_that_hold_nothing_may_come_in_any_order() -> None:
    queues = [kai_queue("q", 1), kai_queue("p", 1)]
    jobs = [kai_job("a", 2, "-"), kai_job("b", 2, "-", belongs="p")]
    expected = {False: {"a": runs(), "b": WAITS}, True: {"a": WAITS, "b": runs()}}
    verdicts = [peer_run.judge(kai(queues=queues, jobs=jobs, expectedJobs=expected[side])) for side in (False, True)]
    assert [verdict.why for verdict in verdicts] == [(), ()]
    assert sorted(verdict.waived for verdict in verdicts) == [(), ("an order among equals",)]
    both = kai(queues=queues, jobs=jobs, expectedJobs={"a": runs(), "b": runs()})
    assert broken(both)


def test_kai_mig_devices_are_resources_of_their_node() -> None:
    nodes = {"n0": {"gpus": 0, "mig": {"nvidia.com/mig-1g.10gb": 1}}}
    wants = [kai_job(name, 0, "-") for name in ("a", "b")]
    for one in wants:
        one["tasks"][0]["mig"] = {"nvidia.com/mig-1g.10gb": 1}
    assert passes(kai(nodes=nodes, jobs=wants, expectedJobs={"a": runs("n0"), "b": WAITS}))


def test_kai_states_are_by_fields() -> None:
    job = kai_job("a", 1, "-")
    ranked = [kai_queue("q", 1), kai_queue("p", 1, Priority=7)]
    rivals = [kai_job("a", 2, "-"), kai_job("b", 2, "-", belongs="p")]
    for case in (
        kai(usesDRA=True, jobs=[claiming("a", "-", "own")]),
        kai(usesDRA=True, jobs=[claiming("a", "n0", "shared"), claiming("b", "-", "shared"), kai_job("c", 1, "-")]),
        kai(nodes={"n0": {"gpus": 64}}, jobs=[job]),
        kai(jobs=[kai_job("a", 2, "n0"), kai_job("b", 1, "n0")]),
        kai(queues=ranked, jobs=rivals),
        kai(queues=[kai_queue("q", 2, MaxAllowedCPUs=1_000_000)], jobs=[{**job, "cpuPerTask": 1_500}]),
        kai(jobs=[{**job, "somethingNew": 3}]),
        kai(jobs=[{**job, "subGroups": {"name": "", "minSubGroup": 1}}]),
    ):
        assert peer_run.judge(case).state == "not_modelled"


def claiming(name: str, state: str, *claims: str) -> dict[str, Any]:
    found = kai_job(name, 0, state)
    found["tasks"][0]["claims"] = list(claims)
    return found


def test_kai_a_claim_that_is_held_already_costs_nothing_and_binds_to_its_node() -> None:
    nodes = {"n0": {"gpus": 0}, "n1": {"gpus": 0}}
    jobs = [claiming("a", "n1", "shared"), claiming("b", "-", "shared"), kai_job("c", 0, "-")]
    expected = {"a": runs("n1"), "b": runs("n1"), "c": runs()}
    assert passes(kai(usesDRA=True, nodes=nodes, jobs=jobs, expectedJobs=expected))


def test_kai_a_level_that_no_node_is_in_is_refused_by_the_engine() -> None:
    topology = {"subGroups": {"name": "", "topology": {"name": "t", "required": "rack", "preferred": ""}}}
    topologies = [{"name": "t", "levels": ["rack"]}]
    assert passes(kai(jobs=[kai_job("a", 1, "-", **topology)], topologies=topologies, expectedJobs={"a": WAITS}))


def test_kai_a_job_that_is_deleted_goes() -> None:
    going = kai_job("a", 0.5, "n0", deleteInTest=True)
    going["tasks"][0]["state"] = "Releasing"
    assert passes(kai(jobs=[going], expectedJobs={"a": {"status": "Releasing"}}))
