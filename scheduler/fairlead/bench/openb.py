"""The packing protocol of FGD (Weng et al., USENIX ATC'23): fill a fleet with a list of pods, and see what stays free.

Pods arrive one by one in an order drawn from the seed, until 1.3 times the fleet's GPUs have been asked for. None
leaves, none is tried twice; one that fits nowhere is dropped and still counts as arrived. After every pod the share of
GPU that was asked for and the share that was placed are noted. Unallocated GPU at 100 % arrived is the mean over all
pods after which the share asked for rounds to 100 %.

The protocol keeps its own books of what is free, so a policy that puts a pod where it does not fit is found out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Protocol

from fairlead.bench.openb_files import GPU_MILLI, OpenbNode, OpenbPod
from fairlead.clock import monotonic_ms
from fairlead.errors import UnreadableInput

ARRIVED_PERCENT_MAX = 130
TIE_BREAK = "lowest rank in one random order of the nodes per seed"
Spot = tuple[int, tuple[int, ...]]
"""Row of the node in the order of the run, and the devices that are taken."""


class Placer(Protocol):
    """A policy over one fleet. Rows are in rank order: among equals the lowest row is right."""

    def place(self, pod: OpenbPod) -> Spot | None:
        """Choose for one pod and remember it as running; None where it fits nowhere."""
        ...


PlacerFactory = Callable[[Sequence[OpenbNode], Sequence[OpenbPod], random.Random], Placer]
"""Makes a placer from the nodes in rank order, the list of pods (for policies that know it) and a random stream."""


@dataclass(frozen=True, slots=True)
class OpenbResult:
    """What a policy left. `unallocated` is per arrived percent, one number a seed, in percent of all GPU."""

    seeds: tuple[int, ...]
    unallocated: Mapping[int, tuple[float, ...]]
    seconds: tuple[float, ...]

    def document(self, policy: str) -> dict[str, object]:
        """Return what ``--json`` prints; `sd` is that of a sample, 0 for a single seed."""
        return {
            "policy": policy,
            "tie_break": "none: uniformly at random" if policy == "random" else TIE_BREAK,
            "seeds": list(self.seeds),
            "arrived": {
                str(percent): {
                    "unallocated_percent": {
                        "mean": round(fmean(values), 3),
                        "sd": round(stdev(values), 3) if len(values) > 1 else 0.0,
                    }
                }
                for percent, values in self.unallocated.items()
            },
            "seconds_per_run": round(median(self.seconds), 2),
        }


def sweep(
    nodes: Sequence[OpenbNode],
    pods: Sequence[OpenbPod],
    factory: PlacerFactory,
    *,
    seeds: Sequence[int],
    arrived: Sequence[int],
) -> OpenbResult:
    """Run the protocol once a seed.

    Raises
    ------
    UnreadableInput
        No pod's arrival rounds to a percentage that is asked for: the fleet is too small for the list.
    """
    found: dict[int, list[float]] = {percent: [] for percent in arrived}
    seconds: list[float] = []
    for seed in seeds:
        started_ms = monotonic_ms()
        bins = run(nodes, pods, factory, seed=seed, until=max(arrived))
        seconds.append((monotonic_ms() - started_ms) / 1000)
        for percent in arrived:
            if percent not in bins:
                raise UnreadableInput(f"--arrived {percent}: no arrival of seed {seed} rounds to it; more GPUs needed")
            found[percent].append(bins[percent])
    return OpenbResult(tuple(seeds), {percent: tuple(values) for percent, values in found.items()}, tuple(seconds))


def run(
    nodes: Sequence[OpenbNode],
    pods: Sequence[OpenbPod],
    factory: PlacerFactory,
    *,
    seed: int,
    until: int = ARRIVED_PERCENT_MAX,
) -> dict[int, float]:
    """Run one seed; returns arrived percent -> unallocated percent, up to `until`."""
    ranked = list(nodes)
    random.Random(f"{seed}/ranks").shuffle(ranked)
    books = _Books(ranked)
    placer = factory(ranked, pods, random.Random(f"{seed}/policy"))
    asked = placed = 0
    sums: dict[int, tuple[int, int]] = {}
    for pod in arrivals(pods, capacity=books.capacity, seed=seed):
        asked += pod.milli
        percent = (200 * asked + books.capacity) // (2 * books.capacity)
        if percent > until:
            break
        spot = placer.place(pod)
        if spot is not None:
            books.take(pod, spot)
            placed += pod.milli
        total, count = sums.get(percent, (0, 0))
        sums[percent] = (total + placed, count + 1)
    return {percent: 100 - 100 * total / (count * books.capacity) for percent, (total, count) in sums.items()}


def arrivals(pods: Sequence[OpenbPod], *, capacity: int, seed: int) -> list[OpenbPod]:
    """Return the pods of one run in order: the list shuffled, then drawn from until 1.3 of the capacity is asked for.

    A list that asks for more loses pods at random. `capacity` is in thousandths of a GPU.
    """
    listed = sorted(pods, key=lambda pod: pod.name)
    chosen = list(listed)
    random.Random(f"{seed}/arrivals").shuffle(chosen)
    draw = random.Random(f"{seed}/draws")
    limit = capacity * ARRIVED_PERCENT_MAX
    asked = 100 * sum(pod.milli for pod in chosen)
    while asked > limit:
        asked -= 100 * chosen.pop(draw.randrange(len(chosen))).milli
    while asked < limit:
        pod = listed[draw.randrange(len(listed))]
        if asked + 100 * pod.gpu_milli > limit:
            break
        chosen.append(pod)
        asked += 100 * pod.milli
    return chosen


class _Books:
    """What is free by the protocol's own count."""

    def __init__(self, nodes: Sequence[OpenbNode]) -> None:
        """All of it is free."""
        self.nodes = nodes
        self.capacity = GPU_MILLI * sum(node.gpus for node in nodes)
        self.cpu = [node.cpu_milli for node in nodes]
        self.memory = [node.memory_mib for node in nodes]
        self.devices = [[GPU_MILLI] * node.gpus for node in nodes]

    def take(self, pod: OpenbPod, spot: Spot) -> None:
        """Book a pod; a spot that breaks a rule of the protocol is a bug of the policy."""
        row, devices = spot
        self.cpu[row] -= pod.cpu_milli
        self.memory[row] -= pod.memory_mib
        for device in devices:
            self.devices[row][device] -= pod.gpu_milli
        node = self.nodes[row]
        named = len(set(devices)) == pod.gpus
        room = self.cpu[row] >= 0 and self.memory[row] >= 0 and all(self.devices[row][d] >= 0 for d in devices)
        model = not pod.models or node.model.casefold() in pod.models
        assert (named, room, model) == (True, True, True), f"{pod.name} does not fit {node.name} on devices {devices}"
