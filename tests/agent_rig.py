"""An agent on a fake driver and a fake API server, stepped by hand."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import msgspec
from fake_kube import FakeKube

from fairlead.discovery.findings import HealthRules
from fairlead.discovery.nvml import Library
from fairlead.topology.tables import TableCache
from fairlead.world.inventory import build_inventory
from fairlead_operator.agent.kernel_log import KernelLog
from fairlead_operator.agent.observe import Observer
from fairlead_operator.agent.publish import Publisher
from fairlead_operator.agent.run_agent import Agent, Times
from fairlead_operator.agent.ward import Ward
from fairlead_operator.agent.working_pods import WorkingPods
from fairlead_operator.custom_objects import NodeTopology
from fairlead_operator.decode_nodes import decode_node
from fairlead_operator.device_objects import Slice
from fairlead_operator.objects import NodeObject

NODE = "node-a"
STEP = 10_000
KEY = ("nodetopologies", "", NODE)


def slices_of(fake, *, without=()):
    devices = [
        {
            "name": f"gpu-{at}",
            "attributes": {
                "type": {"string": "gpu"},
                "uuid": {"string": gpu.uuid},
                "productName": {"string": gpu.model},
                "resource.kubernetes.io/pciBusID": {"string": gpu.pci},
            },
            "capacity": {"memory": {"value": str(gpu.memory)}},
        }
        for at, gpu in enumerate(fake.gpus)
        if at not in without
    ]
    pool = {"name": NODE, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.nvidia.com", "nodeName": NODE, "pool": pool, "devices": devices}
    return {"metadata": {"name": "slice-a", "uid": "s1"}, "spec": spec}


class Rig:
    """An agent that is stepped by hand: `turn` is one interval."""

    def __init__(self, fake, *, kube=None, tree=None, boot_id="boot-1", slices=True, now=1_000_000, root=None, **times):
        self.fake, self.now = fake, now
        self.kube = kube or FakeKube(retries=0)
        if kube is None:
            self.kube.objects["nodes", "", NODE] = {"metadata": {"name": NODE, "uid": "node-uid"}}
            if slices:
                self.kube.objects["resourceslices", "", "slice-a"] = slices_of(fake)
        library = Library(fake)
        self.ward = Ward(HealthRules(), boot_id=boot_id)
        self.publisher = Publisher(self.kube, NODE, boot_id=boot_id)
        pods = WorkingPods(root) if root else None
        self.kernel = KernelLog(Path("never-opened"), lambda: self.now)
        self.observer = Observer(library, tree, pods)
        self.agent = Agent(
            library,
            self.observer,
            self.ward,
            lambda: self.now,
            times=Times(**times),
            publisher=self.publisher,
            kernel=self.kernel,
            pods=pods,
        )
        asyncio.run(self.publisher.restore_into(self.ward, self.now))

    def turn(self, times=1):
        for _ in range(times):
            self.now += STEP
            asyncio.run(self.agent.round())
        return self

    def xid(self, at, number):
        """The driver tells of an error number, and the listener has heard it."""
        self.fake.xid(at, number)
        end = time.monotonic() + 5
        while not self.agent._listener.heard:
            assert time.monotonic() < end, "nobody listens"
            time.sleep(0.005)

    def kernel_says(self, text):
        """The kernel has written a line."""
        self.kernel._line(f"4,1,99,-;NVRM: {text}")

    @property
    def object(self):
        return self.kube.objects[KEY]

    def gpu(self, at):
        return self.object["spec"]["gpus"][at]

    def verdicts(self):
        return [g["verdict"] for g in self.object["spec"]["gpus"]]

    def condition(self, kind):
        return next(c for c in self.object["status"]["conditions"] if c["type"] == kind)

    def scheduled(self):
        """The node as the scheduler knows it, and which of its devices it may use, as a mask."""
        topology = msgspec.json.decode(json.dumps(self.object), type=NodeTopology)
        found = msgspec.convert({"metadata": {"name": NODE}}, NodeObject)
        raw = self.kube.objects.get(("resourceslices", "", "slice-a"))
        slices = [msgspec.json.decode(json.dumps(raw), type=Slice)] if raw else []
        node = decode_node(found, topology=topology, slices=slices, pools=[], level_labels={})
        return node, int(build_inventory({node.name: node}, 1, TableCache()).healthy_mask[0])

    def writes(self):
        return [(method, path) for method, path in self.kube.log if method != "GET"]
