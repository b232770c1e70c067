"""A cluster port over an API server in memory, for tests of what it does and undoes."""

from __future__ import annotations

import asyncio
import random

import msgspec

from fairlead.clock import now_ms
from fairlead.model.effects import Place, Stop
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.hardware import Node
from fairlead.model.reasons import Reason, refuse
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool
from fairlead.service.metrics import Metrics
from fairlead_operator import kube_cluster, teardown
from fairlead_operator.claim_index import ClaimIndex
from fairlead_operator.device_objects import Claim
from fairlead_operator.kube_cluster import KubeCluster
from fairlead_operator.placing import Placer
from fairlead_operator.pods import JobSheet
from fairlead_operator.status_writer import StatusWriter

from .fake_kube import FakeKube

UID = GangId("gang-uid-1")
DONE = "fairlead.dev/booked"


class World:
    """A cluster port over a fake server; the claim watch is fed by the server's own changes."""

    def __init__(self, monkeypatch) -> None:
        monkeypatch.setattr(teardown, "_LINGER_S", 0.05)
        monkeypatch.setattr(kube_cluster, "_RETRY_S", 0.02)
        monkeypatch.setattr(kube_cluster, "_SWEEP_S", 0.1)
        self.api = FakeKube()
        self.claims = ClaimIndex()
        self.watching = True
        self.api.hooks.append(self._watch)
        self.history: list[tuple[str, str, dict]] = []
        self.template = {"spec": {"containers": [{"name": "main", "image": "example"}]}}
        self.nodes = {f"n{i}": Node(name=f"n{i}", pool="main", device_pool=f"pool-n{i}") for i in range(4)}
        self.api._store(
            ("gangjobs", "team", "train"),
            {
                "metadata": {"name": "train", "namespace": "team", "uid": str(UID)},
                "spec": {"queue": "research", "roles": []},
                "status": {},
            },
        )
        self.reported: list = []
        self.refusal = None
        writer = StatusWriter(self.api, lambda gang: None, now_ms, Metrics())

        async def check(sheet):
            return self.refusal

        self.cluster = KubeCluster(
            self.api,
            self,
            Placer(self.api, self, self.claims),
            writer,
            check=check,
            now_ms=now_ms,
            rng=random.Random(1),
            rules=Rules(),
            metrics=Metrics(),
        )
        self.cluster.report = lambda *facts: self.reported.extend(facts)

    def _watch(self, plural, name, new, gone):
        self.history.append((plural, name, new))
        if plural == "resourceclaims" and self.watching:
            claim = msgspec.convert(new, Claim)
            self.claims.change(None if not gone else claim, claim, deleted=gone)

    def sheet(self, gang):
        if ("gangjobs", "team", "train") not in self.api.objects:
            return None
        return JobSheet(
            uid=str(UID), namespace="team", name="train", queue="research", templates={"worker": self.template}
        )

    def node(self, name):
        return self.nodes.get(name)

    def pool(self, name):
        return Pool(name="main", node_selector=(("gpu", "yes"),), device_class="gpu.example")

    def free(self) -> bool:
        """Whether no claim of ours holds anything and no pod of ours is bound and stays."""
        return all(not (c.get("status") or {}).get("allocation") for c in self.api.of("resourceclaims").values())

    def bound(self) -> list[str]:
        return [n for n, p in self.api.of("pods").items() if p["spec"].get("nodeName")]


def members(count=3, gpus=2):
    return tuple(
        Member(role="worker", index=i, rank=i, node=f"n{i}", devices=tuple(f"gpu-{d}" for d in range(gpus)))
        for i in range(count)
    )


def place(number=1, seconds=30, **more):
    placement = Placement(members=members(**more), level="rack", domain="r1")
    return Place(
        gang=UID, attempt=number, placement=placement, tier=Tier.IN_QUOTA, deadline_ms=now_ms() + seconds * 1000
    )


def perform(world, *effects, then=None):
    async def go():
        results = [await world.cluster.perform(effect) for effect in effects]
        if then is not None:
            await then()
        await world.cluster.close()
        return results

    return asyncio.run(go())


def one(world, effect, then=None):
    facts = perform(world, effect, then=then)[0]
    assert len(facts) == 1, facts
    return facts[0]


def fail_on(method, part, error, *, times=1):
    left = [times]

    def fault(verb, path, body):
        if verb == method and part in path and left[0] > 0:
            left[0] -= 1
            return error
        return None

    return fault


def stop(reason=Reason.DELETED, by="", **details):
    return Stop(gang=UID, attempt=1, cause=refuse(reason, **details), requeue=False, by=by)
