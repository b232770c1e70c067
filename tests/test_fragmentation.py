"""How broken up the free GPUs are: the measures against counting by hand, and where they are shown."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from builders import Stage, gang, node, queue
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import examples

from fairlead.cli import render
from fairlead.model.gang import Share
from fairlead.service.fragmentation import FragmentationMeter, fragmentation
from fairlead.service.metrics import Metrics
from fairlead.service.view_json import fragmentation_doc

ROOT = Path(__file__).resolve().parents[1]
LEVELS = ("node", "rack", "block", "cluster")


def stage_of(*, limit: int = 1_000, **nodes: str) -> Stage:
    return Stage([node(name, text) for name, text in nodes.items()], [queue("team", f"limit={limit}")])


def rooms(stage: Stage) -> dict[str, tuple[int, int]]:
    found = fragmentation(stage.engine.world(stage.now_ms)).largest
    return {room.level: (room.gpus, room.nodes) for room in found}


def test_the_largest_gang_of_a_level_is_of_one_model_in_one_domain() -> None:
    stage = stage_of(
        a0="8 rack=r1 block=b1", a1="8 rack=r1 block=b1", a2="8 rack=r2 block=b1", b0="8 rack=r2 block=b1 model=A100",
        b1="4 rack=r3 block=b2 model=A100", far="8 rack=r1 block=b1 cordoned", sick="8 rack=r4 block=b2 unhealthy=0",
    )  # fmt: skip
    assert rooms(stage) == {"node": (8, 1), "rack": (16, 2), "block": (24, 3), "cluster": (31, 3)}
    stage.submit("one", "1x1 model=H100")
    stage.settle()
    found = stage.engine.fragmentation()
    assert found.free_gpus == 24 + 7 + 12 - 1
    assert (found.stranded_milli, found.shared_free_milli) == (0, 0), "nothing was learned yet, nothing is shared"


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, str]:
    many = draw(st.integers(1, 7))
    return {
        f"n{at}": f"{draw(st.integers(1, 4))} rack=r{draw(st.integers(0, 2))} block=b{draw(st.integers(0, 1))}"
        f" model={draw(st.sampled_from(['A100', 'H100']))}"
        + draw(st.sampled_from(["", "", " unhealthy=0", " cordoned", " notready", " pool="]))
        for at in range(many)
    }


@examples(60)
@given(fleets(), st.lists(st.sampled_from(["1x1", "1x2", "2x1", "3x2"]), max_size=5))
def test_the_measures_are_those_of_counting_every_device(nodes: dict[str, str], gangs: list[str]) -> None:
    stage = stage_of(**nodes)
    for number, text in enumerate(gangs):
        stage.submit(f"g{number}", text)
    stage.settle()
    held: dict[str, set[str]] = {}
    for name in stage.specs:
        current = stage.state.gangs[name].current
        for member in current.placement.members if current is not None else ():
            held.setdefault(member.node, set()).update(member.devices)
    gpus: dict[tuple[str, str, str], int] = {}
    whole: dict[tuple[str, str, str], int] = {}
    free = 0
    for one in stage.state.nodes.values():
        if not one.pool or one.unschedulable or not one.ready:
            continue
        left = [gpu for gpu in one.machine.gpus if gpu.healthy and gpu.device not in held.get(one.name, set())]
        free += len(left)
        for level, domain in {**dict(one.levels), "node": one.name, "cluster": ""}.items():
            key = level, domain, one.machine.gpus[0].model
            gpus[key] = gpus.get(key, 0) + len(left)
            whole[key] = whole.get(key, 0) + (len(left) == len(one.machine.gpus))
    best = {
        level: tuple(max((n for key, n in counts.items() if key[0] == level), default=0) for counts in (gpus, whole))
        for level in LEVELS
    }
    found = rooms(stage)
    assert {level: found[level] for level in LEVELS} == best, "islands are levels too, where there are some"
    found = stage.engine.fragmentation()
    assert found.free_gpus == free
    asked = {str(w.gang.id): w.gang.gpus for w in stage.engine.world(stage.now_ms).waiting}
    assert found.pending_although_free == sum(gpus <= free for gpus in asked.values())


def test_what_no_request_of_late_could_use_is_stranded_and_what_is_left_of_shared_gpus_is_told_apart() -> None:
    stage = stage_of(limit=8, n0="8", n1="8", n2="8 model=A100")
    stage.seen(replace(gang("part"), roles=(replace(gang("x").roles[0], share=Share(milli=400), gpus=0),)))
    stage.settle()
    assert stage.engine.fragmentation().shared_free_milli == 600
    for number in range(8):
        stage.submit(f"g{number}", "1x8 model=H100")
    stage.settle()
    world = stage.engine.world(stage.now_ms)
    assert len(world.waiting) == 8, "the share has taken from the limit"
    shared_on = stage.attempt("part").placement.members[0].node
    found = fragmentation(world)
    learned = {kind for kind in world.mix.kinds if kind.gpus}
    assert {(kind.gpus, kind.models) for kind in learned} == {(8, ("h100",)), (1, ())}
    by_node = {"n0": 8, "n1": 8, "n2": 8}
    assert found.free_gpus == sum(by_node.values()) - 1
    assert shared_on in by_node
    # A share of 0.4 fits on any free device, so nothing is stranded while it is among what is asked for.
    assert found.stranded_milli == 0
    stage.delete("part")
    stage.release("part")
    for number in range(8, 400):
        stage.submit(f"g{number}", "1x8 model=H100")
    stage.settle()
    found = stage.engine.fragmentation()
    assert found.stranded_milli == 8_000, "shares are rare now, and nobody asks for A100"


@pytest.mark.parametrize(
    ("text", "limit", "counts"),
    [
        ("2x8", 8, 1),  # its queue may not: a limit, not the hardware
        ("4x6 model=H100", 99, 1),  # 3 nodes of 8 hold three members of 6
        ("4x8", 99, 1),  # the A100s are free too
        ("4x8 model=H100", 99, 0),
        ("5x8", 99, 0),
        ("1x0 cpu=4000", 99, 0),  # waits for CPUs
    ],
)
def test_who_waits_although_enough_is_free(text: str, limit: int, counts: int) -> None:
    stage = stage_of(limit=limit, n0="8", n1="8", n2="8", n3="8 model=A100")
    stage.submit("asks", text)
    stage.settle()
    assert stage.view("asks").phase.value == "Pending"
    assert stage.engine.fragmentation().pending_although_free == counts


def test_a_world_is_measured_once() -> None:
    stage = stage_of(n0="8")
    meter = FragmentationMeter()
    first = meter.measure(stage.engine.world(stage.now_ms))
    assert meter.measure(stage.engine.world(stage.now_ms + 5)) is first
    stage.change_node("n0", unschedulable=True)
    after = meter.measure(stage.engine.world(stage.now_ms))
    assert (first.free_gpus, after.free_gpus) == (8, 0)
    assert [room.gpus for room in after.largest] == [0] * len(after.largest)
    nothing = fragmentation(Stage().engine.world(0))
    assert (nothing.free_gpus, nothing.stranded_milli, {room.gpus for room in nothing.largest}) == (0, 0, {0})


def test_one_line_says_it() -> None:
    stage = stage_of(limit=8, n0="8 rack=r1", n1="8 rack=r1")
    stage.submit("asks", "2x8")
    stage.settle()
    out = io.StringIO()
    render.fragmentation(fragmentation_doc(stage.engine.fragmentation()), out=out)
    assert out.getvalue() == (
        "largest gang now: 8 GPUs in one node, 16 in one rack, 16 in all; stranded 0 GPUs;"
        " 1 gang waits although enough GPUs are free\n"
    )


def test_metrics_follow_and_levels_that_are_gone_are_not_told() -> None:
    metrics = Metrics()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    metrics.observe_fragmentation(stage_of(n0="8 rack=r1", n1="8 rack=r1").engine.fragmentation())
    assert value("fairlead_largest_gang_gpus", level="rack") == 16
    assert value("fairlead_largest_gang_nodes", level="rack") == 2
    metrics.observe_fragmentation(stage_of(n0="4").engine.fragmentation())
    assert value("fairlead_largest_gang_gpus", level="rack") is None
    assert value("fairlead_largest_gang_gpus", level="node") == 4
    assert value("fairlead_stranded_gpus") == 0


def test_the_reference_page_lists_exactly_the_series_that_there_are() -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(fairlead_\w+)` \|", page, re.MULTILINE))
    exposed = set(re.findall(r"^# HELP (fairlead_\w+) ", Metrics().exposition().decode(), re.MULTILINE))
    assert listed == exposed


def test_the_reference_pages_name_every_field() -> None:
    doc = fragmentation_doc(stage_of(n0="8").engine.fragmentation())
    page = (ROOT / "docs/reference/http-api.md").read_text(encoding="utf-8")
    assert [name for name in (*doc, *doc["largest_gang"][0]) if f"`{name}`" not in page] == []
