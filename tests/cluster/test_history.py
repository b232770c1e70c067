"""The checkers find what they are for: each broken promise is built by hand, beside a history that keeps it."""

from cluster.history import Event, bound_too_early, devices_in_two_claims, partly_bound

DEVICES = ("gpu-0", "gpu-1")


def labels(rank):
    return {
        "fairlead.dev/gang": "train",
        "fairlead.dev/gang-uid": "u1",
        "fairlead.dev/attempt": "1",
        "fairlead.dev/rank": str(rank),
        "fairlead.dev/role": "worker",
        "fairlead.dev/index": str(rank),
    }


def pod(rank, node="", phase="Pending", **metadata):
    env = [{"name": "FAIRLEAD_SIZE", "value": "2"}, {"name": "FAIRLEAD_GPUS", "value": "1"}]
    spec = {"containers": [{"name": "main", "env": env}], **({"nodeName": node} if node else {})}
    meta = {"name": f"train-{rank}", "namespace": "n", "labels": labels(rank), **metadata}
    return "pods", meta["name"], {"metadata": meta, "spec": spec, "status": {"phase": phase}}


def claim(rank, device=None, name=""):
    meta = {"name": name or f"train-{rank}-gpus", "namespace": "n", "labels": {} if name else labels(rank)}
    results = [{"pool": "node", "device": device or DEVICES[rank]}]
    status = {"allocation": {"devices": {"results": results}}} if device != "none" else {}
    return "resourceclaims", meta["name"], {"metadata": meta, "status": status}


def job(attempt=1):
    members = [{"node": "node", "pods": [f"worker-{rank}={DEVICES[rank]}" for rank in (0, 1)]}]
    status = {"allocation": {"attempt": attempt, "members": members}}
    return "gangjobs", "train", {"metadata": {"name": "train", "namespace": "n", "uid": "u1"}, "status": status}


def events(*writes):
    return [Event(n, float(n), kind, ("n", name), thing) for n, (kind, name, thing) in enumerate(writes, start=1)]


BEGIN = [job(), pod(0), pod(1), claim(0), claim(1)]


def test_a_gang_that_is_bound_in_order_breaks_nothing():
    good = events(*BEGIN, pod(0, "node"), pod(1, "node"), pod(0, "node", "Running"), pod(1, "node", "Running"))
    assert devices_in_two_claims(good) == []
    assert bound_too_early(good) == []
    assert partly_bound(good, 1, (), end_s=100) == []


def test_a_member_bound_before_its_siblings_claim_is_allocated_is_found():
    bad = events(job(), pod(0), pod(1), claim(0), claim(1, "none"), pod(0, "node"), claim(1))
    assert bound_too_early(bad) == ["at 6 n/train#1 has a bound member, and the claim of rank 1 is not allocated"]
    absent = events(job(), pod(0), pod(1), claim(0), pod(0, "node"))
    assert bound_too_early(absent) == ["at 5 n/train#1 has a bound member, and the claim of rank 1 is not allocated"]


def test_a_claim_that_is_emptied_under_a_running_gang_is_found():
    bad = events(*BEGIN, pod(0, "node"), pod(1, "node"), claim(1, "none"))
    assert bound_too_early(bad) == ["at 8 n/train#1 has a bound member, and the claim of rank 1 is not allocated"]


def test_a_claim_that_is_emptied_after_its_member_has_ended_is_as_it_should_be():
    over = pod(1, "node", "Failed", deletionTimestamp="2026-01-01T00:00:00Z")
    assert bound_too_early(events(*BEGIN, pod(0, "node"), pod(1, "node"), over, claim(1, "none"))) == []


def test_a_binding_that_status_does_not_tell_of_is_found():
    assert bound_too_early(events(job(attempt=0), *BEGIN[1:], pod(0, "node"))) == [
        "at 6 n/train#1 has a bound member, and status.allocation does not say where"
    ]
    other = events(*BEGIN[:-1], claim(1, "gpu-5"), pod(0, "node"))
    assert "rank 1 holds (('node', 'gpu-5'),)" in bound_too_early(other)[0]


def test_a_device_in_two_claims_is_found_also_in_a_strangers():
    bad = events(*BEGIN, claim(0, "gpu-1", name="stranger"))
    assert devices_in_two_claims(bad) == ["at 6 node/gpu-1 is in train-1-gpus and in stranger"]
    freed = events(*BEGIN, claim(1, "none"), claim(0, "gpu-1", name="stranger"))
    assert devices_in_two_claims(freed) == []


def test_a_gang_that_stays_half_bound_is_found_and_an_outage_does_not_count():
    bad = events(*BEGIN, pod(0, "node"))
    assert partly_bound(bad, 30, (), end_s=40) == ["n/train#1 has been partly bound for 34.0 s"]
    assert partly_bound(bad, 30, [(10, 20)], end_s=40) == []
    late = events(*BEGIN, pod(0, "node"), *[job()] * 40, pod(1, "node"))
    assert partly_bound(late, 30, (), end_s=50) == ["n/train#1 was partly bound for 41.0 s until 47"]


def test_a_gang_that_goes_on_without_a_member_that_failed_is_found():
    both = [*BEGIN, pod(0, "node"), pod(1, "node")]
    assert partly_bound(events(*both, pod(1, "node", "Failed")), 30, (), end_s=60)
    assert partly_bound(events(*both, pod(1, "node", "Succeeded")), 30, (), end_s=60) == []
