"""Single pods leave racks whole for the gangs that are asked for."""

from __future__ import annotations

import builders
import pytest
from builders import T0, Stage

from fairlead.model.gang import PodShape
from fairlead.placement.feasible import Feasibility
from fairlead.placement.placer import Placer
from fairlead.world.demand import Arrivals, kinds_of
from fairlead.world.overlay import Overlay, Taking


def placer_over(nodes: dict[str, str], asked: list[str], times: int = 8) -> Placer:
    """A placer that has seen each of these gangs so many times."""
    world = Stage([builders.node(name, text) for name, text in nodes.items()]).engine.world(T0)
    placer = Placer(Overlay(world), Feasibility(world.inventory, world.pools))
    arrivals = Arrivals()
    for text in asked * times:
        for kind in kinds_of(builders.gang("seen", text)):
            arrivals.count(kind)
    placer.learn(arrivals.mix)
    return placer


def node_of(placer: Placer, text: str) -> str:
    placement = placer.place(builders.gang("asked", text)).placement
    assert placement is not None, text
    return str(placement.members[0].node)


def fill(placer: Placer, node: str) -> None:
    """Somebody takes all devices of a node."""
    row = placer.inventory.row[node]
    placer.overlay.take(Taking(row, int(placer.overlay.columns.free_mask[row]), PodShape()))


TWO_RACKS = {"n1": "8 rack=r1", "n2": "8 rack=r1", "n3": "8 rack=r2", "n4": "8 rack=r2"}


@pytest.mark.parametrize("single", ["1x8", "1x4", "1x1"])
def test_a_single_pod_goes_to_the_rack_that_holds_no_gang_any_more(single: str) -> None:
    placer = placer_over(TWO_RACKS, ["2x8 within=rack", "1x8", "1x1"])
    fill(placer, "n3")
    assert node_of(placer, single) == "n4"


def test_without_gangs_in_the_mix_all_idle_nodes_are_equal_and_the_first_is_taken() -> None:
    placer = placer_over(TWO_RACKS, ["1x8", "1x1"])
    fill(placer, "n3")
    assert node_of(placer, "1x8") == "n1"


def test_a_rack_that_gangs_would_still_fill_after_the_pod_is_not_dearer_than_another() -> None:
    """Three nodes hold one gang of two, with one node to spare: the spare one costs gangs nothing."""
    nodes = {"n1": "8 rack=r1", "n2": "8 rack=r1", "n3": "8 rack=r2", "n4": "8 rack=r2", "n5": "8 rack=r2"}
    assert node_of(placer_over(nodes, ["2x8 within=rack", "1x8"]), "1x8") == "n3"
