"""Totals of the books by other means: the sorted edges of each device in plain integers, with no code of the ledger.

It knows facts (`fairlead.model`) and nothing else of the product. Of one moment, the fact that comes later in the list
counts; facts must not be older than 48 hours when they come. Devices are whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from fairlead.model import events as ev


class Oracle:
    """Reads facts in the order in which they were first delivered."""

    def __init__(self, facts: Iterable[Any]) -> None:
        self.parents: dict[str, str] = {}
        self.queue_of: dict[str, str] = {}
        self.asks: dict[str, tuple[int, int, int]] = {}
        self.node_facts: dict[str, list[Any]] = {}
        self.lost: dict[str, list[tuple[int, int]]] = {}
        self.holds: dict[tuple[str, int, int], dict[str, Any]] = {}
        self.ends: dict[tuple[str, int, int], int] = {}
        known: list[Any] = []
        for fact in facts:
            if fact not in known:
                known.append(fact)
                self.read(fact)

    def read(self, fact: Any) -> None:
        if isinstance(fact, ev.QueueSeen):
            self.parents[fact.queue.name] = fact.queue.parent
        elif isinstance(fact, ev.GangSeen):
            self.queue_of[fact.gang.id] = fact.gang.queue
            need = fact.gang.roles[0].pod.requests
            self.asks[fact.gang.id] = (need.cpu_milli, need.memory_bytes, need.pods)
        elif isinstance(fact, ev.NodeSeen):
            self.node_facts.setdefault(fact.node.name, []).append(fact)
            since = fact.node.not_ready_since_ms
            if since is not None and since < fact.at_ms:
                self.lost.setdefault(fact.node.name, []).append((since, fact.at_ms))
        elif isinstance(fact, ev.NodeGone | ev.NodeUsed | ev.ForeignDevices):
            self.node_facts.setdefault(fact.name, []).append(fact)
        elif isinstance(fact, ev.Intended):
            for member in fact.placement.members:
                self.begin(fact, member)
        elif isinstance(fact, ev.MemberReleased):
            self.end((fact.gang, fact.attempt, fact.rank), fact.at_ms)
        elif isinstance(fact, ev.PlaceFailed):
            for rank in fact.released:
                self.end((fact.gang, fact.attempt, rank), fact.at_ms)
        else:
            raise AssertionError(f"the oracle does not know {fact}")

    def begin(self, fact: Any, member: Any) -> None:
        assert member.share_milli in (0, 1000)
        root = queue = self.queue_of.get(fact.gang) or "unknown"
        while self.parents.get(root):
            root = self.parents[root]
        account = f"held:{root}:{queue}:{fact.tier.value}"
        there = self.holds.setdefault((fact.gang, fact.attempt, member.rank), {
            "node": member.node, "devices": member.devices, "account": account, "begin": fact.at_ms,
            "asks": self.asks.get(fact.gang, (0, 0, 1)),
        })  # fmt: skip
        there["begin"] = min(there["begin"], fact.at_ms)

    def end(self, key: tuple[str, int, int], at_ms: int) -> None:
        self.ends[key] = min(at_ms, self.ends.get(key, at_ms))

    def ticks(self, until_ms: int) -> dict[str, int]:
        """Account -> ticks up to `until_ms`; capacity is left out."""
        totals: dict[str, int] = {}
        for node, facts in self.node_facts.items():
            in_time = sorted(enumerate(facts), key=lambda pair: (pair[1].at_ms, pair[0]))
            devices = {g.device for f in facts if isinstance(f, ev.NodeSeen) for g in f.node.machine.gpus}
            spans = self.spans(node, [f.at_ms for f in facts if isinstance(f, ev.NodeGone)])
            edges = {f.at_ms for f in facts} | {e for span in self.lost.get(node, ()) for e in span}
            edges |= {edge for _, begin, end in spans for edge in (begin, end) if edge is not None} | {until_ms}
            line = [edge for edge in sorted(edges) if edge <= until_ms]
            for begin, end in pairwise(line):
                here = [fact for _, fact in in_time if fact.at_ms <= begin]
                holds = [hold for hold, a, b in spans if a <= begin and (b is None or begin < b)]
                for device in devices:
                    account = self.account(node, device, begin, here, holds)
                    if account:
                        totals[account] = totals.get(account, 0) + (end - begin) * 840
        return totals

    def spans(self, node: str, gone: list[int]) -> list[tuple[dict[str, Any], int, int | None]]:
        found: list[tuple[dict[str, Any], int, int | None]] = []
        for key, hold in self.holds.items():
            if hold["node"] == node:
                ends = [at for at in (self.ends.get(key), *[g for g in gone if g > hold["begin"]]) if at is not None]
                if not ends or min(ends) > hold["begin"]:
                    found.append((hold, hold["begin"], min(ends) if ends else None))
        return found

    def account(self, node: str, device: str, at: int, here: list[Any], holds: list[dict[str, Any]]) -> str:
        last: dict[type, Any] = {}
        for fact in here:
            last[ev.NodeSeen if isinstance(fact, ev.NodeGone) else type(fact)] = fact
        seen = last.get(ev.NodeSeen)
        if seen is None or isinstance(seen, ev.NodeGone):
            return ""
        gpu = next((g for g in seen.node.machine.gpus if g.device == device), None)
        if gpu is None:
            return ""
        pool = seen.node.pool or "-"
        if not seen.node.ready or any(a <= at < b for a, b in self.lost.get(node, ())):
            return f"down:{pool}:node-lost"
        if not gpu.healthy:
            return f"down:{pool}:unhealthy"
        mine = sorted((hold for hold in holds if device in hold["devices"]), key=lambda hold: hold["begin"])
        if mine:
            return str(mine[0]["account"])
        if not seen.node.pool or (ev.ForeignDevices in last and device in last[ev.ForeignDevices].devices):
            return f"unmanaged:{pool}"
        if seen.node.unschedulable:
            return f"down:{pool}:cordoned"
        room = seen.node.allocatable
        free = [room.cpu_milli, room.memory_bytes, room.pods]
        taken = last[ev.NodeUsed].taken if ev.NodeUsed in last else None
        theirs = [(taken.cpu_milli, taken.memory_bytes, taken.pods)] if taken else []
        for asks in [*(hold["asks"] for hold in holds), *theirs]:
            free = [have - ask for have, ask in zip(free, asks, strict=True)]
        return f"{'stranded' if min(free) <= 0 else 'free'}:{pool}"


def gpu_ms(facts: Iterable[Any], until_ms: int) -> dict[str, int]:
    """Account -> GPU-ms of whole devices up to a moment, without capacity."""
    return {account: ticks // 840 for account, ticks in Oracle(facts).ticks(until_ms).items() if ticks}
