"""P10: a leader that lost its lease changes nothing. The API server's own audit log says who wrote what, and when."""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from datetime import datetime

import pytest

from cluster.api import path
from cluster.chart import NAMESPACE, OPERATOR
from cluster.faulty_proxy import FaultyProxy, ProxiedOperator
from cluster.history import History
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld, allocated
from fairlead.clock import now_ms

LEASE_S = 5
TIMES = {"lease_duration_ms": LEASE_S * 1000, "renew_period_ms": 700, "renew_margin_ms": 1_500, "policy_lag_ms": 1_000}
POD_NAME = "authentication.kubernetes.io/pod-name"
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Request", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "Metadata", "users": [f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"]},
        {"level": "None"},
    ],
}


@pytest.fixture
def audited(new_control_plane, tmp_path):
    """A control plane of its own, with an audit log of all writes of the operator's account."""
    policy, log = tmp_path / "audit.json", tmp_path / "audit.log"
    policy.write_text(json.dumps(AUDIT))
    flags = [f"--audit-policy-file={policy}", f"--audit-log-path={log}", "--audit-log-mode=blocking"]
    plane = new_control_plane(apiserver_flags=flags)
    plane.audit_log = log
    return plane


def entries(plane):
    """The operator account's requests: (arrived, ended, pod, verb, resource, name, code), times in seconds."""
    found = []
    for line in plane.audit_log.read_text().splitlines():
        entry = json.loads(line)
        what = entry.get("objectRef") or {}
        pod = ((entry["user"].get("extra") or {}).get(POD_NAME) or [""])[0]
        name = "/".join(part for part in (what.get("name", ""), what.get("subresource", "")) if part)
        found.append(
            (
                seconds(entry["requestReceivedTimestamp"]), seconds(entry["stageTimestamp"]), pod, entry["verb"],
                what.get("resource", ""), name, entry["responseStatus"]["code"], entry.get("requestObject"),
            )
        )  # fmt: skip
    return found


def now():
    return now_ms() / 1000


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def taken_over(plane, by):
    """When the Lease first said that `by` holds it: the end of that request."""
    for _, ended, pod, verb, resource, _, code, body in entries(plane):
        holder = ((body or {}).get("spec") or {}).get("holderIdentity")
        if resource == "leases" and verb in ("update", "patch", "create") and code < 300 and (pod, holder) == (by, by):
            return ended
    raise AssertionError(f"{by} never took the lease")


def writes_of(plane, pod, since):
    """Writes of one pod that ended after `since`, the Lease itself and Events aside: (seconds after, what, code)."""
    return [
        (round(ended - since, 3), f"{verb} {resource} {name}", code)
        for _, ended, who, verb, resource, name, code, _ in entries(plane)
        if who == pod
        and ended > since
        and resource not in ("leases", "events")
        and verb not in ("get", "list", "watch")
    ]


def test_p10_a_leader_that_was_stopped_past_its_lease_writes_nothing_more(audited, tmp_path):
    """One binding of a gang in flight is on its way while its leader sleeps; it arrives when another leads."""
    plane, released = audited, threading.Event()
    bindings = []

    def hold(method, where, body):
        if where.endswith("/binding") and "/big-" in where:
            bindings.append(where)
            return released if len(bindings) > 5 else None  # the others arrive late, as on a bad network
        return None

    with ClusterWorld(plane, "fence", nodes=8) as world, FaultyProxy(plane, seed=1) as proxy:
        world.queue("fence-q")
        proxy.hold = hold
        with (
            ProxiedOperator(proxy, tmp_path / "one", "operator-one", **TIMES) as one,
            contextlib.closing(Stoppable(plane, tmp_path / "two", "operator-two", **TIMES)) as two,
        ):
            one.wait_ready()
            two.start()
            assert one.lease_holder() == "operator-one"
            with History(world.api) as history:
                world.submit("before", replicas=2, gpus=4, queue="fence-q")
                world.wait_phase("before", "Running")
                world.submit("big", replicas=6, gpus=8, queue="fence-q", mixedModels=True)
                world.until(lambda: len(bindings) < 6, "the gang is not being bound")
                world.until(lambda: bound(world, "big") != 5, "not five of six are bound")
                one.freeze()
                frozen = time.monotonic()
                assert bound(world, "big") == 5
                world.submit("after", replicas=1, gpus=4, queue="fence-q")
                world.until(lambda: two.lease_holder() != "operator-two", "nobody takes over", seconds=LEASE_S * 4)
                two.wait_ready()
                one.thaw()
                released.set()  # the held binding reaches the server now, with the old leader's token
                for name in ("before", "big", "after"):
                    world.wait_phase(name, "Running", seconds=40)
                took_s = time.monotonic() - frozen
                world.until(lambda: one.running, "the old leader does not end")
            assert one.said("event=lease_lost|NotLeader|not sent, the lease runs out")
            since = taken_over(plane, "operator-two")
            late = writes_of(plane, "operator-one", since)
            assert [write for write in late if write[2] < 300] == [], "the old leader wrote"
            held = [write for write in late if write[1].startswith("create pods big-") and "/binding" in write[1]]
            assert held, f"the held binding never arrived: {late}"
            assert {code for _, _, code in held} == {403}
            assert writes_of(plane, "operator-two", since), "the new leader wrote nothing"
            assert history.devices_in_two_claims() == []
            assert history.bound_too_early() == []
            assert history.partly_bound(30) == [], f"took {took_s:.1f} s"
            # Every device that a claim names is the one that the gang's status names.
            for name in ("before", "big", "after"):
                job = world.gang(name)
                assert len(world.pods(name)) >= len(allocated(job))
            assert two.terminate() == 0
            verified = two.verify_books()
            assert verified.returncode == 0, verified.stdout + verified.stderr


class Stoppable(OperatorProcess):
    """An operator that is started later."""

    close = OperatorProcess.stop


ENOUGH = 20
"""Requests after a flip that say it has settled."""


def fenced(plane, tokens):
    return [entry for entry in entries(plane) if entry[4] in ("pods", "queues") and entry[2] in tokens]


def settled(plane, tokens, flip):
    """Return as many requests of each pod as came after its first right answer: few until the policy has seen it."""
    _, since, holder = flip
    log = [entry for entry in fenced(plane, tokens) if entry[0] > since]
    return min((since_flipped(log, key, holder) for key in kinds(tokens)), key=len)


def kinds(tokens):
    """Pods are served by one API server, queues by another inside it; each watches the Lease by itself."""
    return [(pod, resource) for pod in tokens for resource in ("pods", "queues")]


def since_flipped(log, key, holder):
    """Return what a pod asked of a kind after it had its first right answer."""
    mine = [entry for entry in log if (entry[2], entry[4]) == key]
    first = min((entry[1] for entry in mine if entry[6] in answers(key[0], holder)), default=now())
    return [entry for entry in mine if entry[0] > first]


def answers(pod, holder):
    return {200, 201} if pod == holder else {403}


def bound(world, gang):
    return sum(bool(pod["spec"].get("nodeName")) for pod in world.pods(gang))


def test_p10_the_policy_lets_only_the_holders_pod_write_and_flips_with_the_lease(audited, tmp_path):
    """A client that never looks at a clock keeps writing with the first pod's token: the server stops it."""
    plane = audited
    with ClusterWorld(plane, "flip", nodes=1) as world:
        tokens = {pod: plane.pod_bound_token(NAMESPACE, OPERATOR, pod) for pod in ("pod-a", "pod-b")}
        clients = {pod: plane.client(token) for pod, token in tokens.items()}
        lease = path("leases", NAMESPACE, OPERATOR)
        stop, count = threading.Event(), dict.fromkeys(tokens, 0)

        def rogue(pod):
            while not stop.is_set():
                count[pod] += 1
                body = {
                    "metadata": {"name": f"{pod}-{count[pod]}"},
                    "spec": {"containers": [{"name": "c", "image": "x"}]},
                }
                clients[pod].request("POST", path("pods", world.namespace), body)
                status = {"status": {"used": count[pod]}}
                where = path("queues", name="flip-q", sub="status")
                clients[pod].request("PATCH", where, status, content_type="application/merge-patch+json")

        world.queue("flip-q")
        flips = []
        threads = [threading.Thread(target=rogue, args=(pod,)) for pod in tokens]
        for thread in threads:
            thread.start()
        try:
            for holder in ("pod-a", "pod-b", "pod-a", "pod-b"):
                before = now()
                clients[holder].patch(lease, {"spec": {"holderIdentity": holder}})  # the Lease itself is not fenced
                flips.append((before, now(), holder))
                world.until(lambda: len(settled(plane, tokens, flips[-1])) < ENOUGH, f"{holder} does not hold alone")
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        log = fenced(plane, tokens)
        for (_, since, holder), (until, _, _) in zip(flips, [*flips[1:], (now(), 0, "")], strict=True):
            during = [entry for entry in log if since < entry[0] < until]
            # Whoever lost the Lease may be let through until the policy's own watch has seen that; nobody after it.
            for key in kinds(tokens):
                after = {entry[6] for entry in since_flipped(during, key, holder)}
                assert after, (holder, key)
                assert after <= answers(key[0], holder), (holder, key, after)
        body = {"metadata": {"name": "last"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}
        refused = clients["pod-a"].request("POST", path("pods", world.namespace), body)[1]
        assert re.search(r"pod 'pod-a' may not write as the operator: the Lease .* held by 'pod-b'", refused["message"])
