"""Fairlead is the whole scheduler for its pods: what a template asks of a node is honoured, or refused by name."""

from __future__ import annotations

import threading
import time

import pytest

from cluster.api import path
from cluster.operator_process import OperatorProcess
from cluster.world import ClusterWorld

HOSTNAME = "kubernetes.io/hostname"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
RUNTIME_CLASSES = "/apis/node.k8s.io/v1/runtimeclasses"


@pytest.fixture(scope="module")
def world(control_plane):
    with ClusterWorld(control_plane, "tpl", nodes=4) as world:
        world.queue("tpl-q")
        yield world


@pytest.fixture(scope="module", autouse=True)
def operator(control_plane, world, tmp_path_factory):
    with OperatorProcess(control_plane, tmp_path_factory.mktemp("tpl"), policy_lag_ms=200) as operator:
        operator.wait_ready()
        yield operator
        print(operator.tail(60))


@pytest.fixture(autouse=True)
def emptied(world, operator):
    yield
    world.api.delete(path("gangjobs", world.namespace))
    world.until(lambda: world.pods() + world.claims(), "objects of an earlier test remain")


@pytest.fixture
def nodes(world):
    return list(world.nodes)


def nodes_of(world, gang):
    return sorted(pod["spec"]["nodeName"] for pod in world.pods(gang))


def main(**more):
    return {"containers": [{"name": "main", "image": "example", **more}]}


def on(node):
    return {"nodeSelector": {HOSTNAME: node}}


def waits(world, gang, reason, *words):
    """Wait until the gang is Pending with that reason, whose sentence has the words."""

    def says(job):
        status = (job or {}).get("status", {})
        return (status.get("phase"), status.get("reason")) == ("Pending", reason)

    where = path("gangjobs", world.namespace, gang)
    message = world.api.wait(where, says, seconds=15, what=f"{gang} {reason}")["status"]["message"]
    for word in words:
        assert word in message, message


def test_a_toleration_opens_a_tainted_node_and_its_absence_keeps_it_shut(world, nodes):
    where = path("nodes", name=nodes[0])
    world.until(lambda: not pool_taint(world, nodes[0]), "the pool's taint is not there")
    mine = {"key": "dedicated", "value": "ml", "effect": "NoSchedule"}
    world.api.patch(where, {"spec": {"taints": [*world.api.get(where)["spec"]["taints"], mine]}})
    try:
        time.sleep(0.5)
        world.submit("without", gpus=8, queue="tpl-q", pod={**main(), **on(nodes[0])})
        waits(world, "without", "NoNodeMatches", "tainted dedicated", "tolerations")
        tolerations = {"tolerations": [{"key": "dedicated", "operator": "Equal", "value": "ml"}]}
        world.submit("with", gpus=8, queue="tpl-q", pod={**main(), **on(nodes[0]), **tolerations})
        world.wait_phase("with", "Running")
        assert nodes_of(world, "with") == [nodes[0]]
    finally:
        taints = [taint for taint in world.api.get(where)["spec"]["taints"] if taint["key"] != "dedicated"]
        world.api.patch(where, {"spec": {"taints": taints}})
    world.delete_gang("with")
    world.wait_phase("without", "Running")  # nobody submits it again


def pool_taint(world, node):
    taints = world.api.get(path("nodes", name=node))["spec"].get("taints", [])
    return [taint for taint in taints if taint["key"] == "fairlead.dev/pool"]


def test_node_selector_and_required_affinity(world, nodes):
    world.submit("selected", replicas=2, gpus=2, queue="tpl-q", pod={**main(), **on(nodes[1])})

    def affinity(term):
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        return {"affinity": {"nodeAffinity": required}}

    not_these = {"matchExpressions": [{"key": HOSTNAME, "operator": "NotIn", "values": [nodes[0], nodes[1], nodes[3]]}]}
    by_field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [nodes[3]]}]}
    world.submit("label", gpus=8, queue="tpl-q", pod={**main(), **affinity(not_these)})
    world.submit("field", gpus=8, queue="tpl-q", pod={**main(), **affinity(by_field)})
    world.wait_phases(["selected", "label", "field"], "Running")
    assert nodes_of(world, "selected") == [nodes[1], nodes[1]]
    assert nodes_of(world, "label") == [nodes[2]]
    assert nodes_of(world, "field") == [nodes[3]]
    world.submit("nowhere", gpus=1, queue="tpl-q", pod={**main(), "nodeSelector": {"no-such": "label"}})
    waits(world, "nowhere", "NoNodeMatches", "role worker", "template's")


class Provisioner(threading.Thread):
    """Plays a storage driver and the volume binder: once a node is selected, a volume is made there in its own time."""

    def __init__(self, world, claim, takes_s=1.0):
        super().__init__(daemon=True)
        self.world, self.claim, self.takes_s = world, claim, takes_s
        self.node, self.bound_before = "", -1

    def run(self):
        api, where = self.world.api, path("persistentvolumeclaims", self.world.namespace, self.claim)
        found = api.wait(where, lambda claim: SELECTED_NODE in claim["metadata"].get("annotations", {}), seconds=30)
        self.node = found["metadata"]["annotations"][SELECTED_NODE]
        time.sleep(self.takes_s)
        name = f"pv-{self.claim}"
        terms = [{"matchExpressions": [{"key": HOSTNAME, "operator": "In", "values": [self.node]}]}]
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "tpl-late",
            "claimRef": {"namespace": self.world.namespace, "name": self.claim, "uid": found["metadata"]["uid"]},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            "hostPath": {"path": "/nowhere"},
        }
        self.world.create("persistentvolumes", {"metadata": {"name": name}, "spec": spec})
        self.bound_before = sum(bool(pod["spec"].get("nodeName")) for pod in self.world.pods())
        api.patch(where, {"spec": {"volumeName": name}})
        api.patch(f"{where}/status", {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}})


def test_an_unbound_volume_is_made_where_its_pod_will_be_and_bound_before_it(world, nodes):
    late = {"provisioner": "tests.fairlead.dev/late", "volumeBindingMode": "WaitForFirstConsumer"}
    world.create("storageclasses", {"metadata": {"name": "tpl-late"}, **late})
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "tpl-late"}
    claim["resources"] = {"requests": {"storage": "1Gi"}}
    world.api.create(path("persistentvolumeclaims", world.namespace), {"metadata": {"name": "data"}, "spec": claim})
    provisioner = Provisioner(world, "data")
    provisioner.start()
    pod = {**main(), "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}
    world.submit("writer", gpus=4, queue="tpl-q", pod=pod)
    world.wait_phase("writer", "Running")
    provisioner.join(10)
    assert provisioner.node in nodes
    assert provisioner.bound_before == 0, "the pod was bound before its volume"
    assert nodes_of(world, "writer") == [provisioner.node]
    # The volume now ties whoever mounts it to that node.
    world.submit("reader", gpus=4, queue="tpl-q", pod=pod)
    world.wait_phase("reader", "Running")
    assert nodes_of(world, "reader") == [provisioner.node]
    world.submit("third", gpus=4, queue="tpl-q", pod=pod)
    waits(world, "third", "NodesFiltered")
    missing = {**main(), "volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "absent"}}]}
    world.submit("absent", gpus=1, queue="tpl-q", pod=missing)
    status = world.wait_phase("absent", "Refused")["status"]
    assert "persistentVolumeClaim absent" in status["message"]
    assert "create that PersistentVolumeClaim" in status["message"]


def test_a_host_port_is_taken_once_a_node(world, nodes):
    pod = main(ports=[{"containerPort": 80, "hostPort": 8080}])
    world.submit("ports", replicas=4, gpus=1, queue="tpl-q", pod=pod)
    world.wait_phase("ports", "Running")
    assert nodes_of(world, "ports") == sorted(nodes)
    world.submit("fifth", gpus=1, queue="tpl-q", pod=pod)
    waits(world, "fifth", "NodesFiltered", "port")
    other = main(ports=[{"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}])
    world.submit("udp", gpus=1, queue="tpl-q", pod=other)
    world.wait_phase("udp", "Running")
    world.delete_gang("ports")
    world.wait_phase("fifth", "Running")


def test_init_containers_sidecars_and_overhead_are_counted(world, nodes):
    def container(name, cpu, **more):
        return {"name": name, "image": "example", "resources": {"requests": {"cpu": str(cpu)}}, **more}

    # It runs with 100 + 50, but starts with 120 beside the sidecar's 50: 170 of the node's 190.
    pod = {
        "initContainers": [container("side", 50, restartPolicy="Always"), container("prepare", 120)],
        "containers": [container("main", 100)],
    }
    world.submit("start", gpus=1, queue="tpl-q", pod={**pod, **on(nodes[0])})
    world.wait_phase("start", "Running")
    world.submit("big", gpus=1, queue="tpl-q", pod={"containers": [container("main", 21)], **on(nodes[0])})
    waits(world, "big", "NodesFiltered", "CPU")
    world.submit("small", gpus=1, queue="tpl-q", pod={"containers": [container("main", 20)], **on(nodes[0])})
    world.wait_phase("small", "Running")

    runtime = {"metadata": {"name": "tpl-heavy"}, "handler": "heavy", "overhead": {"podFixed": {"cpu": "60"}}}
    world.api.create(RUNTIME_CLASSES, runtime)
    try:
        heavy = {"containers": [container("main", 100)], "runtimeClassName": "tpl-heavy", **on(nodes[1])}
        world.submit("heavy", gpus=1, queue="tpl-q", pod=heavy)
        world.wait_phase("heavy", "Running")
        world.submit("beside", gpus=1, queue="tpl-q", pod={"containers": [container("main", 31)], **on(nodes[1])})
        waits(world, "beside", "NodesFiltered", "CPU")
        world.submit("fits", gpus=1, queue="tpl-q", pod={"containers": [container("main", 30)], **on(nodes[1])})
        world.wait_phase("fits", "Running")
    finally:
        world.api.delete(f"{RUNTIME_CLASSES}/tpl-heavy")


def test_an_extended_resource_is_counted(world, nodes):
    where = path("nodes", name=nodes[2], sub="status")
    world.api.patch(
        where, {"status": {"allocatable": {"example.com/fpga": "2"}, "capacity": {"example.com/fpga": "2"}}}
    )
    amount = {"example.com/fpga": "1"}
    pod = main(resources={"requests": amount, "limits": amount})
    world.submit("two", replicas=2, gpus=1, queue="tpl-q", pod=pod)
    world.wait_phase("two", "Running")
    assert nodes_of(world, "two") == [nodes[2], nodes[2]]
    world.submit("third", gpus=1, queue="tpl-q", pod=pod)
    waits(world, "third", "NodesFiltered", "example.com/fpga")
    world.submit("never", replicas=3, gpus=1, queue="tpl-q", pod=pod)
    time.sleep(1)
    assert world.phase("never") in ("Pending", "Refused")
    world.delete_gang("two")
    world.wait_phase("third", "Running")


def affinity(kind, **more):
    term = {"labelSelector": {"matchLabels": {"a": "b"}}, "topologyKey": HOSTNAME}
    return {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}, **more}


SPREAD = {"maxSkew": 1, "topologyKey": HOSTNAME, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {}}
UNSUPPORTED = {
    "antiaffinity": (affinity("podAntiAffinity"), "spec.affinity.podAntiAffinity.required", "preferred form"),
    "podaffinity": (affinity("podAffinity"), "spec.affinity.podAffinity.required", "spec.topology.within"),
    "spread": ({"topologySpreadConstraints": [SPREAD]}, "spec.topologySpreadConstraints", "ScheduleAnyway"),
    "gpus": (
        main(resources={"limits": {"nvidia.com/gpu": "1"}}),
        "spec.containers[main].resources nvidia.com/gpu",
        "spec.roles[].devices.count",
    ),
    "claims": (
        {"resourceClaims": [{"name": "mine", "resourceClaimName": "mine"}]},
        "spec.resourceClaims",
        "spec.roles[].devices",
    ),
    "nodename": ({"nodeName": "tpl-r0-n0"}, "spec.nodeName", "nodeSelector"),
    "gates": ({"schedulingGates": [{"name": "wait"}]}, "spec.schedulingGates", "spec.suspend"),
}


def test_what_is_not_supported_is_refused_by_name_with_its_mend(world, nodes):
    for name, (pod, _, _) in UNSUPPORTED.items():
        world.submit(name, gpus=1, queue="tpl-q", pod={**main(), **pod})
    world.wait_phases(UNSUPPORTED, "Refused")
    for name, (_, field, mend) in UNSUPPORTED.items():
        status = world.gang(name)["status"]
        assert status["reason"] == "UnsupportedField", (name, status)
        assert f"spec.roles[worker].template.{field}" in status["message"], (name, status["message"])
        assert mend in status["message"], (name, status["message"])
        accepted = next(c for c in status["conditions"] if c["type"] == "Accepted")
        assert (accepted["status"], accepted["reason"]) == ("False", "UnsupportedField")
        assert world.pods(name) == []
    # The soft forms of the same are no reason to refuse.
    soft = {"topologySpreadConstraints": [{**SPREAD, "whenUnsatisfiable": "ScheduleAnyway"}]}
    world.submit("soft", gpus=1, queue="tpl-q", pod={**main(), **soft})
    world.wait_phase("soft", "Running")
