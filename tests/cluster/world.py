"""A cluster on a control plane: the chart, nodes that carry the topology of real machines, queues, and GangJobs.

    with ClusterWorld(control_plane, "gangs", nodes=64, data=True) as world:
        world.queue("research", guaranteed=64)
        world.submit("train", replicas=4, gpus=8, within="rack", queue="research")
        world.wait_phase("train", "Running")

Everything made here carries the world's own prefix and is gone after `close`, so that several worlds can follow each
other on one control plane. Two worlds at the same time share one scheduler and see each other's nodes only by Pool.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cluster.api import ApiError, path
from cluster.chart import LEASE, gangjob, install_chart
from cluster.machines import DRIVER, built_in_machines, real_machines, resource_slice, topology_spec
from fairlead.model.hardware import Machine
from fairlead.model.ranges import unfold
from fairlead.topology.fleet_machines import identified

OURS = "fairlead.dev/test-world"  # the label on every node of a world; its Pool selects by it
ALLOCATABLE = {"cpu": "190", "memory": "2000Gi", "ephemeral-storage": "10Ti", "pods": "110"}
FINAL = ("Succeeded", "Failed")


class ClusterWorld:
    """One pool of nodes and what is submitted to it.

    Parameters
    ----------
    plane : a started `cluster.server.ControlPlane`.
    prefix : starts the names of nodes, pool and the first namespace; a DNS label.
    nodes, nodes_per_rack, racks_per_block : the fleet. Racks take the machines in turn.
    data : take real machines from FAIRLEAD_DATA instead of the built-in ones.
    chart_values : values of the Helm chart.

    Attributes
    ----------
    nodes : node name -> its machine, in rack order.
    racks : rack -> its node names.
    """

    def __init__(
        self,
        plane: Any,
        prefix: str,
        *,
        nodes: int = 16,
        nodes_per_rack: int = 4,
        racks_per_block: int = 4,
        data: bool = False,
        machines: Sequence[Machine] = (),
        chart_values: Mapping[str, Any] | None = None,
        pool: Mapping[str, Any] | None = None,
    ) -> None:
        self.plane, self.api, self.prefix = plane, plane.api, prefix
        self.namespace = f"{prefix}-team"
        self.nodes: dict[str, Machine] = {}
        self.racks: dict[str, list[str]] = {}
        self.rack_of: dict[str, str] = {}
        self._kinds = list(machines) or (real_machines() if data else built_in_machines())
        self._shape = (nodes, nodes_per_rack, racks_per_block)
        self._chart_values = chart_values
        self._pool = dict(pool or {})
        self._made: list[str] = []
        self._namespaces: list[str] = []

    def __enter__(self) -> ClusterWorld:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Install the chart and make the fleet, its pool and the first namespace."""
        install_chart(self.api, self.plane.programs["helm"], self._chart_values)
        self.free_lease()
        spec = {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]}
        with contextlib.suppress(ApiError):  # shared by all worlds
            self.api.create(path("deviceclasses"), {"metadata": {"name": DRIVER}, "spec": spec})
        self.make("Pool", self.prefix, {"nodeSelector": {OURS: self.prefix}, **self._pool})
        total, per_rack, per_block = self._shape
        for at in range(total):
            rack, place = divmod(at, per_rack)
            self.add_node(
                f"{self.prefix}-r{rack}-n{place}",
                self._kinds[rack % len(self._kinds)],
                rack=f"{self.prefix}-r{rack}",
                block=f"{self.prefix}-b{rack // per_block}",
            )
        self.add_namespace(self.namespace)
        for name in self.nodes:
            self.api.wait(path("nodes", name=name), _is_ready, what=f"node {name} Ready")

    # --- the fleet --------------------------------------------------------------------------------------------------

    def add_node(self, name: str, kind: Machine, *, rack: str, block: str, labels: Mapping[str, str] = {}) -> None:
        """Make a node, the ResourceSlice that a driver would publish and the NodeTopology that an agent would."""
        machine = identified(kind, name)
        all_labels = {
            OURS: self.prefix,
            "kubernetes.io/hostname": name,
            "nvidia.com/gpu.product": machine.gpus[0].model.replace(" ", "-"),
            "fairlead.dev/rack": rack,
            "fairlead.dev/block": block,
            **labels,
        }
        status = {"allocatable": ALLOCATABLE, "capacity": ALLOCATABLE}
        self.create("nodes", {"metadata": {"name": name, "labels": all_labels}, "status": status})
        self.create("resourceslices", resource_slice(name, machine))
        self.make("NodeTopology", name, topology_spec(machine))
        self.nodes[name] = machine
        self.racks.setdefault(rack, []).append(name)
        self.rack_of[name] = rack

    def set_ready(self, node: str, ready: bool) -> None:
        """Play the node lifecycle: a node that is not Ready has not been heard of."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "status": "True" if ready else "Unknown", "lastTransitionTime": now}
        body = {"status": {"conditions": [{**condition, "lastHeartbeatTime": now, "reason": "PlayedByTests"}]}}
        self.api.patch(path("nodes", name=node, sub="status"), body, "strategic")

    # --- who may do what --------------------------------------------------------------------------------------------

    def add_namespace(self, name: str, labels: Mapping[str, str] = {}) -> str:
        """Make a namespace; it and what is in it go with the world."""
        self.api.create(path("namespaces"), {"metadata": {"name": name, "labels": dict(labels)}})
        self._namespaces.append(name)
        return name

    def queue(
        self, name: str, guaranteed: int = 0, limit: int | None = None, namespaces: Iterable[str] = (), **spec: Any
    ) -> str:
        """Make a queue for GPUs; without `namespaces` it takes the world's own namespace."""
        resource: dict[str, Any] = {"name": "gpu", "guaranteed": guaranteed}
        if limit is not None:
            resource["limit"] = limit
        names = list(namespaces) or [self.namespace]
        return self.make("Queue", name, {"resources": [resource], "namespaces": {"names": names}, **spec})

    def priority_class(self, name: str, value: int) -> str:
        """Make one of Kubernetes' own PriorityClasses."""
        self.create("priorityclasses", {"metadata": {"name": name}, "value": value})
        return name

    # --- gangs ------------------------------------------------------------------------------------------------------

    def submit(
        self,
        name: str,
        *,
        replicas: int = 1,
        gpus: int = 1,
        within: str = "",
        namespace: str = "",
        queue: str,
        annotations: Mapping[str, str] = {},
        pod: Mapping[str, Any] = {},
        client: Any = None,
        **spec: Any,
    ) -> dict[str, Any]:
        """Create a GangJob with one role `worker`; `annotations` steer its pods (see kwok.yaml), `spec` wins."""
        template = {
            "metadata": {"annotations": dict(annotations)},
            "spec": {"containers": [{"name": "main", "image": "example", **PULL}], **pod},
        }
        role = {"name": "worker", "replicas": replicas, "devices": {"count": gpus}, "template": template}
        where = namespace or self.namespace
        topology = {"topology": {"within": within, "mode": "required"}} if within else {}
        body = gangjob(name, where, queue, **{"roles": [role], **topology, **spec})
        return (client or self.api).create(path("gangjobs", where), body)

    def gang(self, name: str, namespace: str = "") -> dict[str, Any]:
        """Read a GangJob."""
        return self.api.get(path("gangjobs", namespace or self.namespace, name))

    def gangs(self, namespace: str = "") -> dict[str, dict[str, Any]]:
        """Read all GangJobs of a namespace by name."""
        return {job["metadata"]["name"]: job for job in self.api.list(path("gangjobs", namespace or self.namespace))}

    def patch_gang(self, name: str, spec: Mapping[str, Any], namespace: str = "") -> dict[str, Any]:
        """Change a GangJob's spec."""
        return self.api.patch(path("gangjobs", namespace or self.namespace, name), {"spec": dict(spec)})

    def delete_gang(self, name: str, namespace: str = "") -> None:
        """Ask for a GangJob's end."""
        self.api.delete(path("gangjobs", namespace or self.namespace, name))

    def phase(self, name: str, namespace: str = "") -> str:
        """Return a GangJob's phase, "" before it has one."""
        return self.gang(name, namespace).get("status", {}).get("phase", "")

    def wait_phase(self, name: str, *phases: str, namespace: str = "", seconds: float = 30) -> dict[str, Any]:
        """Wait until a GangJob is in one of the phases."""
        where = path("gangjobs", namespace or self.namespace, name)
        return self.api.wait(
            where,
            lambda job: job is not None and job.get("status", {}).get("phase") in phases,
            seconds=seconds,
            what=f"{name} {'/'.join(phases)}",
        )

    def wait_phases(self, names: Iterable[str], *phases: str, namespace: str = "", seconds: float = 60) -> None:
        """Wait until all the GangJobs are in one of the phases."""
        wanted = set(names)

        def missing() -> dict[str, str]:
            gangs = self.gangs(namespace)
            seen = {name: gangs.get(name, {}).get("status", {}) for name in wanted}
            return {n: f"{s.get('phase')}: {s.get('message')}" for n, s in seen.items() if s.get("phase") not in phases}

        self.until(missing, f"not {'/'.join(phases)}", seconds=seconds)

    def until(self, left: Callable[[], Any], complaint: str, *, seconds: float = 30) -> None:
        """Poll until `left()` is empty; AssertionError with what is left if it never is."""
        deadline = time.monotonic() + seconds
        while rest := left():
            assert time.monotonic() < deadline, f"{complaint} after {seconds} s: {rest}"
            time.sleep(0.1)

    def pods(self, gang: str = "", namespace: str = "") -> list[dict[str, Any]]:
        """Read the pods of one gang, or all of Fairlead's."""
        label = f"fairlead.dev/gang={gang}" if gang else "fairlead.dev/gang"
        return self.api.list(path("pods", namespace or self.namespace), labels=label)

    def claims(self, gang: str = "", namespace: str = "") -> list[dict[str, Any]]:
        """Read the claims of one gang, or all of Fairlead's."""
        label = f"fairlead.dev/gang={gang}" if gang else "fairlead.dev/gang"
        return self.api.list(path("resourceclaims", namespace or self.namespace), labels=label)

    # --- making and unmaking ----------------------------------------------------------------------------------------

    def make(self, kind: str, name: str, spec: Mapping[str, Any]) -> str:
        """Make one of our own cluster-wide objects."""
        body = {"apiVersion": "fairlead.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}
        plural = f"{kind.lower()[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}s"
        self.create(plural, body)
        return name

    def create(self, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        """Create a cluster-wide object that goes with the world."""
        made = self.api.create(path(plural), body)
        self._made.append(path(plural, name=body["metadata"]["name"]))
        return made

    def free_lease(self) -> None:
        """Empty the leader's Lease, so that the next operator need not wait for a killed one's to run out."""
        self.api.patch(LEASE, {"spec": {"holderIdentity": ""}})

    def clear(self) -> None:
        """Remove all GangJobs of the world with all that hangs on them, without the operator's help."""
        for namespace in self._namespaces:
            for plural in ("gangjobs", "pods", "resourceclaims"):
                # One by one: a collection of hundreds takes the server longer than one request may.
                for found in self.api.list(path(plural, namespace)):
                    where = path(plural, namespace, found["metadata"]["name"])
                    with contextlib.suppress(ApiError):
                        if found["metadata"].get("finalizers"):
                            self.api.patch(where, {"metadata": {"finalizers": None}})
                        self.api.delete(where, grace_seconds=0)
        for namespace in self._namespaces:
            self.until(
                lambda namespace=namespace: [
                    found["metadata"]["name"]
                    for plural in ("gangjobs", "pods", "resourceclaims")
                    for found in self.api.list(path(plural, namespace))
                ],
                f"{namespace} is not empty",
            )

    def close(self) -> None:
        """Remove everything that the world has made. End its operator first."""
        self.clear()
        for where in [path("namespaces", name=name) for name in self._namespaces] + self._made[::-1]:
            with contextlib.suppress(ApiError):
                self.api.delete(where)
        self._made.clear()
        self._namespaces.clear()
        self.nodes.clear()


PULL = {"imagePullPolicy": "IfNotPresent"}


def allocated(job: Mapping[str, Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Read status.allocation: role-index -> (node, devices), in rank order."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for group in job["status"]["allocation"]["members"]:
        for text in group["pods"]:
            who, _, held = text.partition("=")
            devices = held.partition(";")[0]  # cores and NICs stand behind
            found[who] = (group["node"], tuple(unfold(devices)) if devices else ())
    return found


def claimed(claim: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Read the devices of a claim: (device pool, device), sorted."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results = allocation.get("devices", {}).get("results", [])
    return tuple(sorted((result["pool"], result["device"]) for result in results))


def member_of(thing: Mapping[str, Any]) -> str:
    """Return role-index of one of our pods or claims."""
    labels = thing["metadata"]["labels"]
    return f"{labels['fairlead.dev/role']}-{labels['fairlead.dev/index']}"


def _is_ready(node: Mapping[str, Any] | None) -> bool:
    conditions = (node or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def natural(name: str) -> list[Any]:
    """Sort gpu-2 before gpu-10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def said(thing: Any) -> str:
    """Show an object in a failure."""
    return json.dumps(thing, indent=1, sort_keys=True)[:4000]
