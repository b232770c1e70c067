"""Placement on random small worlds, judged by brute force, and what must not matter to it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import builders
import pytest
from builders import GIB
from hypothesis import given
from hypothesis import strategies as st
from random_worlds import ask, examples, gang_texts, node_lists

from fairlead.model.gang import Gang
from fairlead.model.hardware import NodeName
from fairlead.model.reasons import Reason


def cells(world, spec: Gang, *, everything: bool):
    """Per node what brute force may use: (name, free devices, cpu, levels)."""
    found = []
    for row, node in enumerate(world.inventory.nodes):
        healthy = {gpu.device for gpu in node.machine.gpus}
        devices = healthy if everything else set(world.inventory.devices(row, int(world.free.free_mask[row])))
        cpu = int((world.offered if everything else world.free).cpu_milli[row])
        levels = {name: int(level.domain_of[row]) for name, level in world.inventory.levels.items()}
        if any(t.key not in {x.key for x in spec.roles[0].pod.tolerations} for t in node.taints):
            devices, cpu = set(), -1
        found.append((devices, cpu, levels))
    return found


def brute_force(world, spec: Gang, *, everything: bool) -> bool:
    """Try every node for every member; devices of plain machines are all alike, so counting them is exact."""
    nodes = cells(world, spec, everything=everything)
    wish = spec.topology
    members = [role for role in spec.roles for _ in range(role.replicas)]
    for chosen in itertools.product(range(len(nodes)), repeat=len(members)):
        if wish is not None and wish.required:
            domains = {nodes[i][2].get(wish.within, -1) for i in chosen}
            if len(domains) > 1 or -1 in domains:
                continue
        fits = True
        for i, (devices, cpu, _) in enumerate(nodes):
            here = [members[k] for k, at in enumerate(chosen) if at == i]
            if not here:
                continue
            fits = fits and cpu >= 0
            fits = fits and sum(role.gpus for role in here) <= len(devices)
            fits = fits and sum(role.pod.requests.cpu_milli for role in here) <= cpu
            fits = fits and (len(here) <= 1 or not spec.roles[0].pod.host_ports)
        if fits:
            return True
    return False


@given(node_lists(small=True), gang_texts(roles=1, largest=2), st.integers(0, 7))
@examples(250)
def test_one_role_is_placed_whenever_brute_force_finds_a_way(nodes, text, taken) -> None:
    spec = builders.gang("g", text)
    busy = {"n0": tuple(f"gpu-{i}" for i in range(3) if taken >> i & 1)}
    found, never, world = ask(nodes, spec, busy)
    if never is not None and never.reason is Reason.UNKNOWN_LEVEL:
        return
    assert (found is not None) == brute_force(world, spec, everything=False)
    if never is not None:
        assert not brute_force(world, spec, everything=True)


@given(node_lists(small=True), gang_texts(roles=2, largest=2))
@examples(150)
def test_never_is_said_only_where_no_state_of_the_cluster_would_do(nodes, text) -> None:
    spec = builders.gang("g", text)
    found, never, world = ask(nodes, spec)
    if never is None or never.reason is Reason.UNKNOWN_LEVEL:
        return
    assert found is None
    assert not brute_force(world, spec, everything=True)


@given(node_lists(), gang_texts(), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=12), st.data())
@examples(200)
def test_more_free_devices_never_turn_yes_into_no(nodes, text, taken, data) -> None:
    spec = builders.gang("g", text)
    busy: dict[str, set[str]] = {}
    for row, device in taken:
        busy.setdefault(f"n{row % len(nodes)}", set()).add(f"gpu-{device}")
    some = data.draw(st.integers(0, len(taken)))
    freer: dict[str, set[str]] = {}
    for row, device in taken[:some]:
        freer.setdefault(f"n{row % len(nodes)}", set()).add(f"gpu-{device}")
    before, _, _ = ask(nodes, spec, {name: tuple(sorted(d)) for name, d in busy.items()})
    after, _, _ = ask(nodes, spec, {name: tuple(sorted(d)) for name, d in freer.items()})
    assert before is None or after is not None


@given(node_lists(), gang_texts(), st.permutations(range(5)))
@examples(150)
def test_the_names_of_equal_nodes_decide_nothing(nodes, text, order) -> None:
    spec = builders.gang("g", text)
    renamed = [replace(node, name=NodeName(f"n{order[i]}"), device_pool=f"n{order[i]}") for i, node in enumerate(nodes)]
    first, never, _ = ask(nodes, spec)
    second, never_too, _ = ask(renamed, spec)
    assert (first is None) == (second is None)
    assert (never is None) == (never_too is None)
    if first is not None and second is not None:
        assert first.level == second.level


@pytest.mark.parametrize("memory_gib", [0, 80, 81])
def test_memory_is_compared_in_bytes(memory_gib: int) -> None:
    spec = builders.gang("g", "1x1")
    spec = replace(spec, roles=(replace(spec.roles[0], gpu_memory_bytes=memory_gib * GIB),))
    found, _, _ = ask([builders.node("n0", "1 memory=80")], spec)
    assert (found is not None) == (memory_gib <= 80)
