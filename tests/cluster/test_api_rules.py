"""A real API server enforces the API's schemas and rules."""

import copy
import importlib.util

import pytest

from cluster import price_cases
from cluster.api_objects import FAIRLEAD, TEAM_A, job, named, pool, queue, quota, role, thing
from cluster.chart import ROOT

pytestmark = pytest.mark.cluster


def policy(**words):
    return thing("FairnessPolicy", "even", **{"kind": "weighted", "version": 1, **words})


def protected(**words):
    return pool(protected=[{"gpus": 8, "windows": [{"from": "08:00", "to": "18:00"}], **words}])


def saves(**words):
    return job(checkpoint=words)


def exception(name="a", **words):
    plain = {"queue": "a", "owner": "ann", "reason": "a paper", "change": {"limit": 1}}
    return thing("QuotaException", name, **{**plain, "expires": "2027-01-01T00:00:00Z", **words})


def reservation(name="a", **words):
    when = {"start": "2026-01-01T00:00:00Z", "end": "2026-02-01T00:00:00Z"}
    return thing("Reservation", name, **{"queue": "a", "nodes": ["n1"], **when, **words})


REFUSED = {
    "dots in the name": (named("a.b"), "metadata.name names the gang's Service"),
    "a digit first": (named("1st"), "metadata.name names the gang's Service"),
    "too long together": (named("a" * 50, roles=[role("b" * 8)]), "metadata.name and spec.roles[].name make the pods'"),
    "10,000 replicas": (job(roles=[role(replicas=10_000)]), "spec.roles[].replicas may be at most 4096"),
    "4,097 in two roles": (job(roles=[role(replicas=4096), role("b")]), "spec.roles[].replicas may add up to 4096"),
    "min over all": (job(roles=[role(replicas=2, minReplicas=3)]), "spec.roles[].minReplicas is larger than replicas"),
    "more are welcome": (job(roles=[role(replicas=4, maxReplicas=8)]), "spec.roles[].maxReplicas differs from"),
    "a NIC for no GPU": (job(roles=[role(nicPerGpu=True)]), "spec.roles[].nicPerGpu reserves a NIC with every"),
    "mig and whole": (
        job(roles=[role(devices={"count": 1, "mig": "1g.10gb"})]),
        "spec.roles[].devices.mig is one instance of a GPU",
    ),
    "share and whole": (
        job(roles=[role(devices={"count": 1, "share": {"compute": "25%"}})]),
        "spec.roles[].devices.share is a part of one GPU",
    ),
    "share and mig": (
        job(roles=[role(devices={"mig": "1g.10gb", "share": {"compute": "25%"}})]),
        "spec.roles[].devices.share and mig are two ways",
    ),
    "memory in turns": (
        job(roles=[role(devices={"share": {"compute": "25%", "memory": "1Gi"}})]),
        "spec.roles[].devices.share.memory is not enforced by time slices",
    ),
    "model of nothing": (
        job(roles=[role(devices={"model": "H100"})]),
        "spec.roles[].devices.model and memory describe",
    ),
    "33 GPUs": (job(roles=[role(devices={"count": 33})]), "spec.roles[].devices.count is GPUs per member on one node"),
    "no wish": (job(topology={"mode": "preferred"}), "spec.topology asks for nothing"),
    "no wish of a role": (job(roles=[role(topology={"mode": "preferred"})]), "spec.roles[].topology asks for nothing"),
    "a member left over": (
        job(roles=[role(replicas=7)], topology={"slices": [{"within": "rack", "size": 2}]}),
        "spec.topology.slices[0].size does not divide the members",
    ),
    "a replica left over": (
        job(roles=[role(replicas=7, topology={"slices": [{"within": "rack", "size": 2}]})]),
        "spec.roles[].topology.slices[0].size does not divide replicas",
    ),
    "slices across": (
        job(
            roles=[role(replicas=48)],
            topology={"slices": [{"within": "zone", "size": 48}, {"within": "rack", "size": 18}]},
        ),
        "spec.topology.slices do not lie inside each other",
    ),
    "a role's slices across": (
        job(
            roles=[
                role(
                    replicas=48,
                    topology={"slices": [{"within": "zone", "size": 48}, {"within": "rack", "size": 18}]},
                )
            ]
        ),
        "spec.roles[].topology.slices do not lie inside each other",
    ),
    "spread inside one": (
        job(roles=[role(spread="rack", topology={"within": "rack"})]),
        "spec.roles[].spread names the level in which topology.within requires",
    ),
    "spread inside the gang's one": (
        job(roles=[role(spread="rack")], topology={"within": "rack"}),
        "spec.roles[].spread names the level in which spec.topology requires",
    ),
    "no duration": (job(duration="0h0m"), "spec.duration is zero"),
    "no time to start": (job(startDeadline="0s"), "spec.startDeadline is zero"),
    "a stranger succeeds": (job(successPolicy={"roles": ["boss"]}), "spec.successPolicy.roles names a role that"),
    "checkpoint interval": (job(checkpoint={"interval": "0s"}), "spec.checkpoint.interval is zero"),
    "checkpoint command": (job(checkpoint={"notify": "command"}), "spec.checkpoint.command is missing"),
    "checkpoint signal": (
        job(checkpoint={"notify": "file", "signal": "SIGINT"}),
        "spec.checkpoint.signal is never sent",
    ),
    "checkpoint grace": (
        job(checkpoint={"grace": "1m"}),
        "spec.checkpoint.grace waits for a program that nobody tells",
    ),
    "hangs": (job(retryPolicy={"hung": 1}), "spec.retryPolicy.hung bounds hangs, which nothing detects"),
    "dependsOn": (job(dependsOn=["other"]), "spec.dependsOn is not supported yet"),
    "ttl": (job(ttl="soon"), "spec.ttl"),
    "queue with dots": (queue("a.b"), "metadata.name is used as a label value"),
    "own parent": (queue("a", parent="a"), "spec.parent names the queue itself"),
    "limit below": (quota(guaranteed=8, limit=4), "spec.resources[].limit is below guaranteed"),
    "lends more than it has": (quota(guaranteed=2, lendLimit=4), "spec.resources[].lendLimit is above guaranteed"),
    "needs more than it may": (quota(limit=4, need=8), "spec.resources[].need is above limit"),
    "another resource": (queue(resources=[{"name": "watts"}]), "spec.resources[].name is no resource"),
    "priority everywhere": (queue(priorityScope="cluster"), "spec.priorityScope: Unsupported value"),
    "a peak without length": (
        queue(peaks=[{"serviceClasses": ["batch"], "windows": [{"from": "08:00", "to": "08:00"}]}]),
        "spec.peaks[].windows[] has no length",
    ),
    "idle for a moment": (queue(idle={"after": "4m"}), "spec.idle.after is out of range"),
    "idle for minutes without end": (queue(idle={"after": "43201m"}), "spec.idle.after is out of range"),
    "idle for hours without end": (queue(idle={"after": "721h"}), "spec.idle.after is out of range"),
    "idle for days without end": (queue(idle={"after": "31d"}), "spec.idle.after is out of range"),
    "a user without a cap": (queue(users=[{"name": "ann"}]), "spec.users[] needs more than a name"),
    "a group without a cap": (queue(groups=[{"name": "lab"}]), "spec.groups[] needs more than a name"),
    "a group of all": (queue(groups=[{"name": "*", "maxJobs": 1}]), "spec.groups[].name * means every user"),
    "pool with dots": (pool("a.b"), "metadata.name is the value of the nodes' taint"),
    "visible-devices": (pool(mode="visible-devices"), "spec.mode visible-devices is not supported yet"),
    "count": (pool(mode="count"), "spec.mode count is not supported yet"),
    "sharing": (pool(sharing=["mig", "mps"]), "spec.sharing: mode dra cannot carry time-slice and mps yet"),
    "serving in turns": (pool(servingOnTimeSlices=True), "spec.servingOnTimeSlices is not supported yet"),
    "dynamic": (pool(mig="dynamic"), "spec.mig dynamic is not supported yet"),
    "lends more than it keeps": (protected(lendGpus=9), "spec.protected[].lendGpus is above gpus and redundancy"),
    "back too late": (protected(returnWithin="9h", lead="1h"), "spec.protected[].returnWithin is longer than lead"),
    "a window without length": (
        protected(windows=[{"from": "08:00", "to": "08:00"}]),
        "spec.protected[].windows[] has no length",
    ),
    "no spares": (pool(spares={}), "spec.spares says nothing"),
    "no command": (saves(notify="command"), "spec.checkpoint.command is missing"),
    "a command for nothing": (saves(notify="file", command=["save"]), "spec.checkpoint.command is never run"),
    "a signal for nothing": (saves(notify="file", signal="SIGUSR1"), "spec.checkpoint.signal is never sent"),
    "saves in no time": (saves(pause="0s"), "spec.checkpoint.pause is zero"),
    "starts in no time": (saves(restart="0s"), "spec.checkpoint.restart is zero"),
    "no grace": (saves(grace="0s"), "spec.checkpoint.grace is zero"),
    "no backoff": (job(retryPolicy={"backoff": "0s"}), "spec.retryPolicy.backoff is zero"),
    "no longest backoff": (job(retryPolicy={"backoffMax": "0s"}), "spec.retryPolicy.backoffMax is zero"),
    "no heartbeat": (job(heartbeat={"timeout": "0s"}), "spec.heartbeat.timeout is zero"),
    "no half-life": (policy(halfLife="0s"), "spec.halfLife is zero"),
    "no aging": (policy(aging="0s"), "spec.aging is zero"),
    "weighs nothing": (
        policy(resources=[{"name": "gpu", "weightMilli": 0}]),
        "spec.resources weigh nothing at all",
    ),
    "an exception with dots": (exception("a.b"), "metadata.name is shown beside the queue"),
    "over before it begins": (
        exception(starts="2026-02-01T00:00:00Z", expires="2026-01-01T00:00:00Z"),
        "spec.expires is not after spec.starts",
    ),
    "an exception of nothing": (exception(change={}), "spec.change gives nothing"),
    "an exception that gives nothing of a resource": (
        exception(change={"resources": [{"name": "cpu"}]}),
        "spec.change.resources[] gives nothing",
    ),
    "an exception of GPUs in two places": (
        exception(change={"resources": [{"name": "gpu", "limit": 1}]}),
        "spec.change.resources[].name: gpu has fields of its own",
    ),
    "a reservation with dots": (reservation("a.b"), "metadata.name is shown in explanations"),
    "two ways": (reservation(count=1), "spec.nodes, spec.domain and spec.count are three ways"),
    "of which level": (reservation(nodes=None, domain="r1"), "spec.level is needed beside spec.domain"),
    "never": (reservation(start=None, end=None), "spec.start and spec.end say when it is"),
    "ends first": (reservation(end="2025-01-01T00:00:00Z"), "spec.end is not after spec.start"),
    "a budget of both": (
        queue(budget={"gpuHours": 8, "amount": "10", "currency": "EUR"}),
        "spec.budget says both or neither",
    ),
    "a budget of a currency": (
        queue(budget={"gpuHours": 8, "currency": "EUR"}),
        "spec.budget.currency belongs to an amount",
    ),
    **price_cases.REFUSED,
    "another switchboard": (thing("Switchboard", "other"), "metadata.name must be cluster"),
}
# What is refused as a change of an accepted GangJob.
CHANGES_REFUSED = {
    "another queue": ({"queue": "other"}, "spec.queue is immutable"),
    "another size": ({"roles": [role(replicas=2), role("side")]}, "spec.roles[].replicas is immutable"),
    "more GPUs": ({"roles": [role(devices={"count": 4}), role("side")]}, "spec.roles[].devices.count is immutable"),
    "another part": (
        {"roles": [role(), role("side", devices={"mig": "1g.10gb"})]},
        "spec.roles[].devices.mig and share are immutable",
    ),
    "a role less": ({"roles": [role()]}, "spec.roles may not gain or lose a role"),
    "another role": ({"roles": [role(), role("other")]}, "spec.roles may not gain or lose a role"),
}
# What the schema itself refuses.
MALFORMED = {
    "no roles": job(roles=[]),
    "17 roles": job(roles=[role(f"r{number}") for number in range(17)]),
    "a role twice": job(roles=[role(), role()]),
    "no template": job(roles=[{"name": "worker", "replicas": 1}]),
    "nobody": job(roles=[role(replicas=0)]),
    "not a time": job(duration="soon"),
    "not a class": job(serviceClass="best"),
    "not an isolation": job(isolation="total"),
    "not a profile": job(roles=[role(devices={"mig": "ten"})]),
    "not a share": job(roles=[role(devices={"share": {"compute": "much"}})]),
    "a share of nothing": job(roles=[role(devices={"share": {}})]),
    "no slice": job(topology={"slices": [{"within": "rack", "size": 0}]}),
    "needs much": job(roles=[role(needs={"example.com/rack-watts": "much"})]),
    "not a quantity": job(roles=[role(devices={"count": 1, "memory": "much"})]),
    "a queue like a path": job(queue="a/b"),
    "no weight": quota(weight=0),
    "fewer than no jobs": queue(maxJobs=-1),
    "nobody a minute": queue(submitRate={"perMinute": 0}),
    "a user twice": queue(users=[{"name": "ann", "maxJobs": 1}, {"name": "ann", "maxJobs": 2}]),
    "another tenant": queue(tenantKind="empire"),
    "a deadline of no time": job(deadline="soon"),
    "a budget of nothing": queue(budget={"gpuHours": 0}),
    "a peak of nobody": queue(peaks=[{"serviceClasses": [], "windows": [{"from": "08:00", "to": "09:00"}]}]),
    "idle after nothing": queue(idle={"then": "notify"}),
    "idle and then another word": queue(idle={"after": "2h", "then": "kill"}),
    "costs that do something else": queue(onCostAnomaly="stop"),
    "costs that nobody has looked at": queue(costAnomalyAcknowledged={"through": "2026-11-20", "reason": "x"}),
    "costs up to no day": queue(costAnomalyAcknowledged={"through": "today", "actor": "ops", "reason": "x"}),
    "another overflow": queue(onOverflow="Explode"),
    "every node": pool(nodeSelector={}),
    "a budget of a plain name": pool(budgets=[{"level": "rack", "resource": "watts", "amount": "1"}]),
    **price_cases.MALFORMED,
    "a budget twice": pool(budgets=[{"level": "rack", "resource": "x.y/w", "amount": "1"}] * 2),
}


def collection(document):
    plural = {"GangJob": f"namespaces/{TEAM_A}/gangjobs", "FairnessPolicy": "fairnesspolicies"}
    return f"{FAIRLEAD}/{plural.get(document['kind'], document['kind'].lower() + 's')}"


@pytest.mark.parametrize("case", REFUSED)
def test_a_rule_refuses_with_its_sentence(api, case):
    document, sentence = REFUSED[case]
    status, answer = api.request("POST", f"{collection(document)}?dryRun=All&fieldValidation=Strict", document)
    assert status == 422, answer
    assert sentence in answer["message"]


@pytest.mark.parametrize("case", MALFORMED)
def test_the_schema_refuses_what_is_malformed(api, case):
    document = MALFORMED[case]
    status, answer = api.request("POST", f"{collection(document)}?dryRun=All&fieldValidation=Strict", document)
    assert status == 422, answer


@pytest.mark.parametrize("case", CHANGES_REFUSED)
def test_a_change_is_refused_with_its_sentence(api, case):
    change, sentence = CHANGES_REFUSED[case]
    old = named("changing", roles=[role(), role("side")])
    status, stored = api.request("POST", collection(old), old)
    assert status in (201, 409), stored
    _, stored = api.request("GET", f"{collection(old)}/changing")
    new = copy.deepcopy(stored)
    new["spec"].update(change)
    status, answer = api.request("PUT", f"{collection(old)}/changing?dryRun=All", new)
    assert status == 422, answer
    assert sentence in answer["message"]
    new["spec"] = {**stored["spec"], "suspend": True, "priorityClassName": "high"}
    assert api.request("PUT", f"{collection(old)}/changing?dryRun=All", new)[0] == 200


SAME_VERSION = "spec.version must grow with every change of the spec"


def test_a_changed_policy_has_a_greater_version(api):
    old = policy()
    status, stored = api.request("POST", collection(old), old)
    assert status == 201, stored
    where = f"{collection(old)}/even"
    stored["spec"]["kind"] = "equal"
    status, answer = api.request("PUT", f"{where}?dryRun=All", stored)
    assert status == 422, answer
    assert SAME_VERSION in answer["message"]
    stored["spec"]["version"] = 2
    assert api.request("PUT", f"{where}?dryRun=All", stored)[0] == 200
    assert api.request("DELETE", where)[0] == 200


def test_every_rule_has_its_case():
    spec = importlib.util.spec_from_file_location("api_docs", ROOT / "tools" / "api_docs.py")
    api_docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api_docs)
    sentences = {message for crd in api_docs.load() for message in api_docs.rules(api_docs.schema_of(crd))}
    tried = [SAME_VERSION, *(sentence for _, sentence in [*REFUSED.values(), *CHANGES_REFUSED.values()])]
    assert [s for s in sorted(sentences) if not any(s.startswith(start) for start in tried)] == []


def test_the_largest_gang_is_accepted(api):
    large = job(
        roles=[
            role(
                replicas=4000,
                minReplicas=2000,
                maxReplicas=4000,
                devices={"count": 32, "model": "A100|H100"},
                nicPerGpu=True,
                topology={"slices": [{"within": "block", "size": 400}, {"within": "rack", "size": 16}]},
                needs={"example.com/rack-watts": "10k"},
            ),
            role("side", 96, spread="rack"),
        ],
        topology={"within": "block", "mode": "preferred", "slices": [{"within": "zone", "size": 64}], "spread": "node"},
        isolation="strict",
        mixedModels=True,
        duration="1h30m",
        successPolicy={"operator": "Any", "roles": ["side"]},
        failurePolicy={"maxRestarts": 0, "onMemberFailure": "fail"},
        preemption={"policy": "Never"},
    )
    status, answer = api.request("POST", f"{collection(large)}?dryRun=All&fieldValidation=Strict", large)
    assert status == 201, answer
    assert answer["spec"]["startDeadline"] == "10m"
    assert answer["spec"]["roles"][1]["devices"] == {"count": 0}
    assert "policy" not in named("x")["spec"].get("preemption", {})


def test_a_full_status_is_kept_whole(api):
    """Nothing that the operator writes is pruned, and a status write leaves the spec alone."""
    path = f"{FAIRLEAD}/namespaces/{TEAM_A}/gangjobs"
    assert api.request("POST", path, named("full"))[0] in (201, 409)
    now = "2026-01-02T03:04:05Z"
    status = {
        "observedGeneration": 1,
        "phase": "Running",
        "gpus": 16,
        "conditions": [
            {
                "type": "Running",
                "status": "True",
                "reason": "AllMembersRun",
                "message": "all members run",
                "lastTransitionTime": now,
                "observedGeneration": 1,
            }
        ],
        "attempt": 2,
        "restarts": 1,
        "reason": "Running",
        "message": "runs",
        "position": 0,
        "startEstimate": {"p50": now, "p90": now, "basis": "unknown"},
        "asOf": now,
        "nomination": {"domain": "rack/r1", "victims": ["a/b#1"], "until": now},
        "allocation": {
            "attempt": 2,
            "placedAtMs": 1_700_000_000_000,
            "domain": "rack/r1",
            "level": "rack",
            "pace": 450_000_000_000,
            "span": {"island": 1, "node": 1},
            "cpuSets": ["0-47"],
            "members": [{"node": "n1", "pods": ["worker-0=gpu-[0-7];cpus=@0;nics=mlx5_[0-7]"]}],
        },
        "usage": {"gpuMs": 5_000_000_000_000, "asOf": now},
        "lostGpuMs": 7,
        "idleSinceMs": 1_700_000_000_000,
        "startedAtMs": 1_700_000_000_000,
        "finishedAtMs": 1_700_000_000_001,
    }
    body = {"status": status, "spec": {"suspend": True}}
    merge = "application/merge-patch+json"
    code, answer = api.request("PATCH", f"{path}/full/status?fieldValidation=Strict", body, content_type=merge)
    assert code == 200, answer
    assert answer["status"] == status
    assert answer["spec"]["suspend"] is False
