"""How far a gang stretches: islands, nodes and racks that its members lie in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairlead.cli.render import span_text
from fairlead.model.gang import Member
from fairlead.model.hardware import Link, NodeName
from fairlead.placement.gang_pace import GangPaces
from fairlead.placement.locality import LocalTables
from fairlead.topology.tables import TableCache
from fairlead.world.inventory import build_inventory
from fairlead.world.span import span_of

from .builders import node, plain_machine


def bridged(name, text):
    """A node with four GPUs, of which NVLink bridges join 0 with 1 and 2 with 3."""
    found = node(name, f"4 {text}")
    links = tuple(Link(a=f"GPU{i}", b=f"GPU{i + 1}", path="NV4", bytes_per_s=100) for i in (0, 2))
    return replace(found, machine=replace(plain_machine(4), links=links))


NODES = [
    node("h1", "hgx rack=r1 block=b"),
    node("h2", "hgx rack=r1 block=b"),
    node("h3", "hgx rack=r2 block=b"),
    node("c1", "4 rack=r3 block=b clique=c"),
    node("c2", "4 rack=r3 block=b clique=c"),
    bridged("p1", "rack=r4 block=b"),
    node("bare", "hgx"),
]
INVENTORY = build_inventory({found.name: found for found in NODES}, 1, TableCache())


def span(**devices):
    members = [
        Member(role="w", index=rank, rank=rank, node=NodeName(name), devices=tuple(f"gpu-{i}" for i in held))
        for rank, (name, held) in enumerate(devices.items())
    ]
    return dict(span_of(INVENTORY, members))


def test_each_node_with_nvlink_throughout_is_one_island():
    assert span(h1=range(8)) == {"island": 1, "node": 1, "rack": 1, "block": 1}
    assert span(h1=[0], h2=[1, 2], h3=[3]) == {"island": 3, "node": 3, "rack": 2, "block": 1}


def test_an_island_may_join_nodes():
    assert span(c1=range(4), c2=range(4)) == {"island": 1, "node": 2, "rack": 1, "block": 1}


def test_islands_inside_a_node_count_by_the_gpus_that_are_held():
    assert span(p1=[0, 1])["island"] == 1
    assert span(p1=[1, 2])["island"] == 2
    assert span(p1=[1, 2], h1=[0])["island"] == 3


def test_members_without_gpus_are_in_no_island():
    assert span(h1=[], h2=[]) == {"node": 2, "rack": 1, "block": 1}


def test_a_level_that_a_node_does_not_tell_is_left_out():
    assert span(h1=[0], bare=[0]) == {"island": 2, "node": 2}
    assert span(nowhere=[0]) == {}


@pytest.mark.parametrize("mask", [0, 1, 0b0110, 0b1111])
def test_one_pod_alone_spans_what_the_count_of_members_says(mask):
    paces = GangPaces(INVENTORY, LocalTables())
    for found in NODES:
        held = [bit for bit in range(4) if mask >> bit & 1]
        assert dict(paces.span_alone(INVENTORY.row[found.name], mask)) == span(**{found.name: held}), found.name


def test_the_span_in_words_goes_from_tight_to_wide():
    assert span_text(span(h1=[0], h2=[1], h3=[3])) == "3 islands, 3 nodes, 2 racks, 1 block"
    assert span_text({"row": 1, "node": 1}) == "1 node, 1 row"
    assert span_text({}) is None
