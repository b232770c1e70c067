"""The HTTP API in process: what it lists, what it refuses and with which status, and that long lists are quick."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from fairlead.errors import NotFound, UnreadableInput
from fairlead.model.effects import Phase
from fairlead.model.events import Nominated
from fairlead.model.gang import GangId, Member, Placement, Tier
from fairlead.model.hardware import NodeName
from fairlead.model.quota_exception import QuotaException
from fairlead.model.reasons import Reason, refuse
from fairlead.placement.mig_plan import RecutPlan
from fairlead.service.http_api import build_app
from fairlead.service.metrics import Metrics
from fairlead.world.views import Fragmentation, GangView, LevelRoom, NodeView, PoolView, QueueView

PLACED = Placement(
    members=tuple(
        Member(
            role="worker",
            index=i,
            rank=i,
            node=NodeName(f"n{i}"),
            devices=("gpu-0", "gpu-1"),
            cpus=f"{48 * i}-{48 * i + 47}",
            nics=("mlx5_0", "mlx5_1"),
        )
        for i in (0, 1)
    ),
    level="rack",
    domain="r1",
    pace_bytes_per_s=450 * 10**9,
    span=(("node", 2), ("rack", 1)),
    penalties=("4 CPUs are not on the NUMA nodes of the GPUs",),
)


def view(name: str, **more: Any) -> GangView:
    asked: dict[str, Any] = {
        "id": GangId(f"uid-{name}"), "namespace": "team", "name": name, "queue": "q", "priority": 0, "gpus": 4,
        "members": 2, "phase": Phase.RUNNING, **more,
    }  # fmt: skip
    return GangView(**asked)


class Fixed:
    """Views that never change."""

    def __init__(self, gangs: Sequence[GangView]) -> None:
        self.gangs = gangs

    def gang_views(self, now_ms: int) -> Sequence[GangView]:
        return self.gangs

    def queue_views(self) -> Sequence[QueueView]:
        return [
            QueueView(
                name="q", parent="", tenant="q", guaranteed_gpus=8, limit_gpus=None, weight=1, used_gpus=4,
                borrowed_gpus=0, pending_gangs=1, pending_gpus=4, running_gangs=1, entitled_gpus=8, over_limit=False,
            )
        ]  # fmt: skip

    def exceptions(self) -> Sequence[QuotaException]:
        return []

    def node_views(self) -> Sequence[NodeView]:
        return [
            NodeView(
                name="n0", pool="p", levels=(("rack", "r1"),), model="H100", gpus=8, free=6, held=2, foreign=0, down=0,
                ready=True, schedulable=True,
            )
        ]  # fmt: skip

    def pool_views(self) -> Sequence[PoolView]:
        return [PoolView(name="p", nodes=1, gpus=8, free=6, held=2, foreign=0, down=0)]

    def recut_plan(self) -> RecutPlan:
        return RecutPlan(proposals=(), unserved=(("3g.40gb", 2),))

    def fragmentation(self) -> Fragmentation:
        room = (LevelRoom(level="node", gpus=5, nodes=0), LevelRoom(level="cluster", gpus=6, nodes=0))
        return Fragmentation(
            free_gpus=6, shared_free_milli=250, stranded_milli=1250, largest=room, pending_although_free=1
        )


class Taken:
    """Submissions that remember; text "bad" is refused."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def submit(self, text: str, namespace: str) -> Sequence[str]:
        if text == "bad":
            raise UnreadableInput("spec.queue: is required")
        self.texts.append((text, namespace))
        return ["GangJob/team/x"]

    def delete(self, namespace: str, name: str) -> None:
        if name != "x":
            raise NotFound(f"there is no GangJob {namespace}/{name}")


GANGS = [
    view("runs", placement=PLACED, placed_ms=5, started_ms=9, attempt=1, tier=Tier.BORROWED, gpu_ms=7),
    view(
        "waits",
        phase=Phase.PENDING,
        position=1,
        refusal=refuse(Reason.NOT_ENOUGH_FREE, members=2, best=1),
        nomination=Nominated(
            gang=GangId("uid-waits"), placement=PLACED, victims=((GangId("uid-runs"), 1),), at_ms=1, until_ms=9
        ),
    ),
]


def ask(
    method: str, path: str, *, gangs: Sequence[GangView] = GANGS, ready: bool = True, **more: Any
) -> httpx.Response:
    app = build_app(
        Fixed(gangs),
        now_ms=lambda: 42,
        metrics=Metrics(),
        ready=lambda: ready,
        submissions=more.pop("submissions", None),
    )

    async def call() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
            return await client.request(method, path, **more)

    return asyncio.run(call())


def test_gangs_are_listed_without_and_explained_with_their_devices():
    listed = ask("GET", "/v1/gangs").json()
    assert listed["as_of_ms"] == 42
    assert [(gang["name"], gang["phase"], gang["allocation"]) for gang in listed["items"]] == [
        ("runs", "Running", None),
        ("waits", "Pending", None),
    ]
    one = ask("GET", "/v1/gangs/team/runs").json()
    assert one["allocation"] == {
        "level": "rack",
        "domain": "r1",
        "pace_bytes_per_s": 450 * 10**9,
        "span": {"node": 2, "rack": 1},
        "penalties": ["4 CPUs are not on the NUMA nodes of the GPUs"],
        "placed_ms": 5,
        "nodes": [{"node": f"n{i}", "pods": {f"worker-{i}": "gpu-[0-1]"}} for i in (0, 1)],
        "members": [
            {
                "rank": i,
                "pod": f"worker-{i}",
                "node": f"n{i}",
                "devices": "gpu-[0-1]",
                "share_milli": 0,
                "mig_start": -1,
                "cpus": f"{48 * i}-{48 * i + 47}",
                "nics": "mlx5_[0-1]",
            }
            for i in (0, 1)
        ],
    }
    assert (one["pace_bytes_per_s"], one["span"]) == (450 * 10**9, {"node": 2, "rack": 1})
    assert [gang["span"] for gang in listed["items"]] == [one["span"], None]


def test_what_waits_has_reason_place_start_and_the_names_of_its_victims():
    gang = ask("GET", "/v1/gangs/team/waits").json()
    assert (gang["reason"], gang["position"]) == ("NotEnoughFree", 1)
    assert "room for 1 now; wait" in gang["message"]
    assert gang["start"] == {"p50_ms": None, "p90_ms": None, "basis": "unknown"}
    assert gang["victims"] == ["team/runs#1"]


@pytest.mark.parametrize(
    ("query", "count"), [("queue=q", 2), ("queue=z", 0), ("phase=Pending", 1), ("namespace=team", 2)]
)
def test_gangs_are_filtered(query: str, count: int):
    assert len(ask("GET", f"/v1/gangs?{query}").json()["items"]) == count


def test_a_missing_gang_is_404_with_a_sentence():
    answer = ask("GET", "/v1/gangs/team/nope")
    assert answer.status_code == 404
    assert answer.json() == {"error": "there is no GangJob team/nope"}


def test_queues_nodes_pools_and_usage():
    assert ask("GET", "/v1/queues").json()["items"][0]["limit"] is None
    assert ask("GET", "/v1/mig").json() == {
        "as_of_ms": ask("GET", "/v1/nodes").json()["as_of_ms"],
        "proposals": [],
        "unserved": {"3g.40gb": 2},
        "ended_early": None,
    }
    assert ask("GET", "/v1/nodes").json()["items"][0]["levels"] == {"rack": "r1"}
    assert ask("GET", "/v1/pools").json()["items"][0]["free"] == 6
    assert ask("GET", "/v1/usage").json()["items"] == [
        {"tenant": "q", "queue": "q", "gangs": 2, "gpu_ms": 7, "lost_gpu_ms": 0}
    ]


def test_health_readiness_and_metrics():
    assert ask("GET", "/healthz").text == "ok\n"
    assert ask("GET", "/readyz", ready=False).status_code == 503
    assert ask("GET", "/readyz").status_code == 200
    page = ask("GET", "/metrics").text
    assert 'fairlead_pending_gangs{reason="NotEnoughFree"} 1.0' in page
    assert 'fairlead_gpus{state="free"} 6.0' in page
    assert 'fairlead_largest_gang_gpus{level="node"} 5.0' in page
    assert "fairlead_stranded_gpus 1.25" in page


def test_how_broken_up_the_free_gpus_are():
    assert ask("GET", "/v1/fragmentation").json() == {
        "as_of_ms": 42,
        "free_gpus": 6,
        "shared_free_milli": 250,
        "stranded_milli": 1250,
        "largest_gang": [{"level": "node", "gpus": 5, "nodes": 0}, {"level": "cluster", "gpus": 6, "nodes": 0}],
        "pending_although_free": 1,
    }


def test_jobs_are_handed_in_and_deleted():
    taken = Taken()
    answer = ask("POST", "/v1/gangs?namespace=team", submissions=taken, content=b"good")
    assert (answer.status_code, answer.json()) == (201, {"accepted": ["GangJob/team/x"]})
    assert taken.texts == [("good", "team")]
    assert ask("DELETE", "/v1/gangs/team/x", submissions=taken).status_code == 202
    assert ask("DELETE", "/v1/gangs/team/y", submissions=taken).status_code == 404


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [(b"bad", 400, "spec.queue"), (b"\xff\xfe", 400, "UTF-8"), (b"x" * (2 << 20), 413, "larger than")],
)
def test_bad_bodies_are_refused(content: bytes, status: int, says: str):
    answer = ask("POST", "/v1/gangs", submissions=Taken(), content=content)
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_a_cluster_takes_no_jobs_here():
    assert ask("POST", "/v1/gangs", content=b"good").status_code == 405


def test_ten_thousand_gangs_are_listed_within_a_second():
    many = [view(f"g{i}", phase=Phase.PENDING, position=i) for i in range(10_000)]
    began = time.monotonic()
    assert len(ask("GET", "/v1/gangs", gangs=many).json()["items"]) == 10_000
    assert time.monotonic() - began < 1.0
