"""Reservations and the rules of time, as people write them in a scenario file."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from fairlead.model.hardware import Node
from fairlead.model.reservation import NODES_MAX, Reservation
from fairlead.model.rules import Rules
from fairlead.simulation.fields import Fields
from fairlead.simulation.pool_words import window_words
from fairlead.simulation.scenario_jobs import NAME
from fairlead.topology.tables import TableCache
from fairlead.world.inventory import build_inventory
from fairlead.world.reservations import settle

PROMISES_MAX = 10_000


def reservations(document: Fields, nodes: Sequence[Node], queues: Collection[str], start_ms: int) -> list[Reservation]:
    """Read `reservations`; `start_ms` is when the scenario begins.

    Raises
    ------
    UnreadableInput
        A field is wrong, a node is not there, or two reservations want one node at one time; the message names it.
    """
    found: dict[str, Reservation] = {}
    for at, item in enumerate(document.items("reservations")):
        one = _reservation(item, queues, start_ms, at)
        if one.name in found:
            item.fail("name", f"there are two reservations {one.name!r}; rename one")
        found[one.name] = one
        item.done()
    inventory = build_inventory({node.name: node for node in nodes}, 0, TableCache())
    for name, refusal in sorted(settle(found, inventory, start_ms)[1].items()):
        document.fail("reservations", f"{name}: {refusal.message}")
    return list(found.values())


def _reservation(item: Fields, queues: Collection[str], start_ms: int, at: int) -> Reservation:
    queue = item.text("queue", "")
    if queue and queue not in queues:
        item.fail("queue", f"there is no queue {queue!r}; leave it out for maintenance")
    windows = tuple(window_words(window) for window in item.items("recurring"))
    begins = start_ms + (item.duration_ms("in") or 0)
    lasts = item.duration_ms("for")
    if (lasts is None) == (not windows):
        item.fail("for", "say how long it lasts, or when it recurs, and not both")
    nodes = item.texts("nodes") or ()
    count = item.integer("count", 0, low=0, high=NODES_MAX)
    domain, level = item.text("domain", ""), item.text("level", "")
    if sum((bool(nodes), bool(count), bool(domain))) != 1:
        item.fail("nodes", "name nodes, or a domain of a level, or a count, and only one of them")
    if domain and not level:
        item.fail("level", "say which level the domain is of")
    return Reservation(
        name=item.text("name", pattern=NAME),
        queue=queue,
        nodes=nodes,
        level=level,
        domain=domain,
        count=count,
        model=item.text("model", ""),
        start_ms=None if windows else begins,
        end_ms=None if lasts is None else begins + lasts,
        windows=windows,
        lendable=item.boolean("lendable", True),
        pre_drain=item.boolean("preDrain", True),
        stop_all=item.boolean("stopAll", False),
        created_ms=start_ms + at,
    )


def scenario_rules(item: Fields) -> tuple[Rules, int]:
    """Read `rules`, and how long a round takes, ms."""
    plain = Rules()
    rules = Rules(
        placement_on=item.boolean("placement", True),
        preemption_on=item.boolean("preemption", True),
        reclaim_on=item.boolean("reclaim", True),
        stops_per_cycle=item.integer("stopsPerCycle", plain.stops_per_cycle, low=0, high=1_000_000),
        gangs_per_slice=item.integer("gangsPerSlice", plain.gangs_per_slice, low=1, high=1_000_000),
        placing_pods=item.integer("placingPods", plain.placing_pods, low=1, high=1_000_000),
        min_run_ms=item.duration_ms("minRun", plain.min_run_ms) or 0,
        nomination_ms=item.duration_ms("nomination", plain.nomination_ms) or plain.nomination_ms,
        node_lost_after_ms=item.duration_ms("nodeLostAfter", plain.node_lost_after_ms) or plain.node_lost_after_ms,
    )
    rules = replace(rules, **_time_rules(item))
    round_ms = item.duration_ms("round", 1_000) or 1_000
    item.done()
    return rules, round_ms


def _time_rules(item: Fields) -> dict[str, Any]:
    """Read the rules about promises and holes."""
    plain = Rules()
    return {
        "promises": item.integer("promises", plain.promises, low=0, high=PROMISES_MAX),
        **{
            name: item.duration_ms(word, getattr(plain, name)) or 0
            for word, name in (
                ("horizon", "horizon_ms"),
                ("stopTakes", "stop_ms"),
                ("holeStart", "hole_start_ms"),
                ("holeLeast", "hole_least_ms"),
                ("patience", "patience_ms"),
                ("notice", "notice_ms"),
            )
        },
    }
