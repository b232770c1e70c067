"""The demo as a computation: a day on a fleet in memory, told by the real engine, on virtual time.

Nothing here decides what happens: jobs are handed in and a node is switched off, the engine does the rest and the story
reports what it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.model.effects import Phase
from fairlead.model.events import Event, GangSeen, Intended, MemberReleased, Nominated, PoolSeen, StopIntended
from fairlead.model.gang import Gang, GangId
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason
from fairlead.model.rules import Rules
from fairlead.model.tenancy import Pool
from fairlead.service.engine import Engine
from fairlead.service.ports import Books
from fairlead.service.view_json import GangDoc, allocation_doc, gang_doc
from fairlead.simulation import gangjob_yaml
from fairlead.simulation.checkers import all_checkers
from fairlead.simulation.driver import Driver
from fairlead.simulation.fleet import Fleet
from fairlead.simulation.workload import Owner, Shape, draw
from fairlead.topology.fleets import build

START_MS = 1_800_003_600_000  # a round hour, so that the clock of the story starts at :00
SEED = 7
FLEETS_OF_THE_STORY = ("hgx-h100", "dgx-a100", "pcie-l40s")
POOL = Pool(name="fleet", node_selector=(("fairlead.dev/pool", "fleet"),))
_MINUTE_MS = 60_000
_LATE = "segmenter"  # comes when its tenant's share has been lent out
_WAITS = "ablation"
_SWEEPS = {"sweep-a": 8, "sweep-b": 9, "sweep-c": 10, "sweep-d": 11}
_SUBMITTED = {"pretrain": 0, "detector": 1, **_SWEEPS, _WAITS: 12, _LATE: 20}
"""The minute in which each gang of the story is handed in."""
_SMALL = (Shape(percent=85, replicas=1, gpus=1), Shape(percent=15, replicas=1, gpus=2))


def jobs_yaml() -> str:
    """Return the GangJob documents that ship with the package."""
    return resources.files("fairlead.simulation").joinpath("demo_jobs.yaml").read_text(encoding="utf-8")


class Story:
    """One run of the demo. `tell` plays it; afterwards `data` has everything that the printers show."""

    def __init__(self, fleet: str, books: Books | None) -> None:
        """Build the fleet. Raises UnreadableInput for one that is unknown or too small for the story."""
        if fleet not in FLEETS_OF_THE_STORY:
            possible = ", ".join(FLEETS_OF_THE_STORY)
            raise UnreadableInput(f"--fleet: {fleet!r}: the story needs racks of four nodes with 8 GPUs: {possible}")
        nodes = build(fleet, pool=POOL.name)
        self.fleet = Fleet(nodes, seed=SEED)
        self.driver = Driver(
            Engine(Rules()),
            self.fleet,
            start_ms=START_MS,
            books=books,
            checkers=all_checkers(),
            listeners=(self._hear,),
        )
        self._facts: list[tuple[int, Event]] = []
        self._gangs: dict[GangId, Gang] = {}
        gpus = sum(len(node.machine.gpus) for node in nodes)
        self.data: dict[str, Any] = {"fleet": {"name": fleet, "nodes": len(nodes), "gpus": gpus}}

    def tell(self) -> dict[str, Any]:
        """Play the story to its end and return its data. Takes a second or two, whatever time passes in it."""
        documents = gangjob_yaml.read(
            jobs_yaml(), now_ms=START_MS, new_id=lambda namespace, name: GangId(f"{namespace}.{name}")
        )
        for gang_id, run in documents.runs.items():
            self.fleet.declare(gang_id, run)
        self.driver.put(PoolSeen(pool=POOL, at_ms=START_MS), *documents.queue_facts(START_MS))
        for gang in documents.gangs:
            at_ms = START_MS + _SUBMITTED[gang.name] * _MINUTE_MS
            self._gangs[gang.id] = replace(gang, submitted_ms=at_ms)
            self.fleet.schedule(at_ms, GangSeen(gang=self._gangs[gang.id], at_ms=at_ms))
        self._background()
        self.data["jobs"] = [self._job(gang) for gang in self._gangs.values()]
        self._until(15)
        self.data["waiting"], self.data["waiting_ms"] = self._doc(_WAITS), self.driver.now_ms
        self._reclaim(next(gang for gang in self._gangs.values() if gang.name == _LATE))
        self._node_failure()
        self.driver.run()
        for victim in self.data["reclaim"]["victims"]:
            again = [f for _, f in self._facts if isinstance(f, Intended) and f.attempt == victim["attempt"] + 1]
            victim["ran_again_ms"] = next((f.at_ms for f in again if self._full_name(f.gang) == victim["gang"]), None)
        self.data["placements"] = self._placements()
        self.data["end_ms"] = self.driver.now_ms
        told = [doc for doc in self._docs() if self._id(doc) in self._gangs]
        self.data["phases"] = {doc["name"]: doc["phase"] for doc in told}
        return self.data

    def _hear(self, now_ms: int, facts: Sequence[Event]) -> None:
        self._facts += [(now_ms, fact) for fact in facts]

    def _background(self) -> None:
        """Small jobs of both tenants come and go, with the run times of the public trace."""
        owners = [Owner(namespace=name, queue=name) for name in ("research", "vision")]
        arrivals = draw(
            SEED, count=24, owners=owners, start_ms=START_MS + 5_000, gap_ms=5 * _MINUTE_MS, mix=_SMALL,
            longest_ms=90 * _MINUTE_MS, prefix="small",
        )  # fmt: skip
        count = 0
        for arrival in arrivals:
            count += 1
            self.fleet.declare(arrival.gang.id, arrival.run)
            self.fleet.schedule(arrival.at_ms, GangSeen(gang=arrival.gang, at_ms=arrival.at_ms))
        self.data["background_jobs"] = count

    def _reclaim(self, late: Gang) -> None:
        """The tenant whose share was lent out asks for a whole rack."""
        asked_ms = late.submitted_ms
        self._until(30)
        stops = [f for _, f in self._facts if isinstance(f, StopIntended) and f.cause.reason is Reason.RECLAIMED]
        for_late = [stop for stop in stops if stop.by in (late.id, late.full_name)] or stops
        victims = sorted({stop.gang for stop in for_late})
        since = [(at, fact) for at, fact in self._facts if at >= asked_ms]
        released = [at for at, fact in since if isinstance(fact, MemberReleased) and fact.gang in victims]
        nominated = next((f for _, f in self._facts if isinstance(f, Nominated) and f.gang == late.id), None)
        placed = next((at for at, f in self._facts if isinstance(f, Intended) and f.gang == late.id), None)
        self.data["reclaim"] = {
            "for": late.full_name,
            "asked_ms": asked_ms,
            "gpus": late.gpus,
            "domain": nominated.placement.domain if nominated else None,
            "victims": [self._held_before(gang, asked_ms) for gang in victims],
            "freed_gpus": sum(self._gangs[gang].gpus for gang in victims if gang in self._gangs),
            "last_released_ms": max(released, default=None),
            "placed_ms": placed,
        }

    def _node_failure(self) -> None:
        """A node under a research gang dies after the late gang has ended; it is back half an hour later."""
        self._until(75)
        gang = next(g for g in self._gangs.values() if g.name == "sweep-a")
        before = self._last_placement(gang.id)
        node = NodeName(before.placement.members[0].node)
        failed_ms = self.driver.now_ms + 1
        self.fleet.lose_node(node, failed_ms, back_ms=failed_ms + 30 * _MINUTE_MS)
        self._until(90)
        after = self._last_placement(gang.id)
        self.data["node_failure"] = {
            "node": node,
            "failed_ms": failed_ms,
            "gang": gang.full_name,
            "attempt_before": before.attempt,
            "nodes_before": sorted({member.node for member in before.placement.members}),
            "attempt_after": after.attempt,
            "nodes_after": sorted({member.node for member in after.placement.members}),
            "restarted_ms": next((at for at, f in self._facts if f is after), None),
            "pace_bytes_per_s": after.placement.pace_bytes_per_s,
        }

    def _until(self, minute: int) -> None:
        self.driver.run(until_ms=START_MS + minute * _MINUTE_MS)

    def _docs(self) -> list[GangDoc]:
        return [gang_doc(view) for view in self.driver.engine.gang_views(self.driver.now_ms)]

    def _doc(self, name: str) -> GangDoc:
        return next(doc for doc in self._docs() if doc["name"] == name)

    def _id(self, doc: GangDoc) -> GangId:
        return GangId(f"{doc['namespace']}.{doc['name']}")

    def _full_name(self, gang: GangId) -> str:
        return self._gangs[gang].full_name if gang in self._gangs else str(gang)

    def _last_placement(self, gang: GangId) -> Intended:
        return next(f for _, f in reversed(self._facts) if isinstance(f, Intended) and f.gang == gang)

    def _held_before(self, gang: GangId, at_ms: int) -> Mapping[str, Any]:
        """What a gang held when it was asked to stop."""
        held = next(f for at, f in reversed(self._facts) if isinstance(f, Intended) and f.gang == gang and at <= at_ms)
        return {
            "gang": self._full_name(gang),
            "tier": str(held.tier),
            "allocation": allocation_doc(held.placement, held.at_ms),
            "attempt": held.attempt,
        }

    def _placements(self) -> list[dict[str, Any]]:
        return [
            {
                "gang": self._gangs[fact.gang].full_name,
                "attempt": fact.attempt,
                "tier": str(fact.tier),
                **allocation_doc(fact.placement, at_ms),
            }
            for at_ms, fact in self._facts
            if isinstance(fact, Intended) and fact.gang in self._gangs
        ]

    @staticmethod
    def _job(gang: Gang) -> dict[str, Any]:
        """What the YAML asked for, in short."""
        role = gang.roles[0]
        return {
            "kind": "GangJob",
            "namespace": gang.namespace,
            "name": gang.name,
            "queue": gang.queue,
            "shape": f"{role.replicas}x{role.gpus}",
            "gpus": gang.gpus,
            "within": gang.topology.within if gang.topology else None,
            "service_class": str(gang.service_class),
            "submitted_ms": gang.submitted_ms,
        }

    @property
    def unfinished(self) -> list[str]:
        """Gangs of the story that have not succeeded."""
        return [self._id(doc) for doc in self._docs() if doc["phase"] != str(Phase.SUCCEEDED)]
