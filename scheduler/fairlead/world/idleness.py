"""Since when devices are idle, as the counts of their nodes tell, and of which attempts all of them are.

A window in which a device was busy for less than `IDLE_BELOW` counts as idle. Windows that follow each other make one
time; so do those between which a node's counts failed to come for no more than `GAP_MS`. What nobody counts (MIG
instances, nodes without an agent) is never idle. A new process begins to count anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairlead.model.events import DevicesCounted
from fairlead.model.gang import GangId, ServiceClass
from fairlead.model.hardware import NodeName
from fairlead.model.queue_caps import IdleRule
from fairlead.model.tenancy import Queue, ancestors
from fairlead.world.gangs import Attempt, GangRecord, HoldKey

IDLE_BELOW = 50
"""Thousandths of the time: a context that is only kept alive comes to less, a job that waits for its data to more."""
GAP_MS = 5 * 60_000

Span = tuple[int, int]
"""(idle from, counted until), UTC ms; equal where it was busy last."""


class Idleness:
    """The spans of all devices; changed by facts alone."""

    def __init__(self) -> None:
        """Nothing has been counted."""
        self.spans: dict[NodeName, dict[str, Span]] = {}

    def hear(
        self,
        fact: DevicesCounted,
        holds: Iterable[HoldKey],
        gangs: Mapping[GangId, GangRecord],
        queues: dict[str, Queue],
    ) -> dict[GangId, None]:
        """Take a node's count; return the gangs that are idle for too long by it, or no longer are.

        `holds` are those on the node.
        """
        turned: dict[GangId, None] = {}
        self._count(fact)
        for gang, number in sorted({key[:2] for key in holds}):
            record = gangs.get(gang)
            attempt = None if record is None else record.current
            if record is None or attempt is None or attempt.number != number:
                continue
            chain = ancestors(record.queue, queues)
            rule = None if record.gang is None else rule_for(record.gang.service_class, chain, queues)
            since_ms = None if rule is None else self._since(attempt, rule.after_ms, fact.name)
            if since_ms != attempt.idle_ms:
                attempt.idle_ms = since_ms
                turned[gang] = None
        return turned

    def _count(self, fact: DevicesCounted) -> None:
        known = self.spans.setdefault(fact.name, {})
        for device, busy in fact.busy:
            from_ms, until_ms = known.get(device, (fact.from_ms, fact.from_ms))
            if busy >= IDLE_BELOW:
                from_ms = max(from_ms, fact.at_ms)
            elif fact.from_ms > until_ms + GAP_MS:
                from_ms = fact.from_ms
            known[device] = from_ms, max(until_ms, fact.at_ms)

    def _since(self, attempt: Attempt, after_ms: int, node: NodeName) -> int | None:
        """Return since when all devices of an attempt are idle, None where that is not for so long; `node` first."""
        if attempt.all_running_ms is None:
            return None
        from_ms, until_ms = attempt.all_running_ms, None
        members = [attempt.member(rank) for rank in attempt.holding]
        for member in sorted(members, key=lambda one: one.node != node):
            if member.mig_start >= 0:  # a counter of the GPU, if there is one, says nothing of one instance
                return None
            spans = self.spans.get(member.node, {})
            for device in member.devices:
                begins_ms, counted_ms = spans.get(device, (0, 0))
                from_ms = max(from_ms, begins_ms)
                until_ms = counted_ms if until_ms is None else min(until_ms, counted_ms)
                if until_ms - from_ms < after_ms:
                    return None
        return from_ms if until_ms is not None else None


def rule_for(service_class: ServiceClass | None, chain: Iterable[str], queues: Mapping[str, Queue]) -> IdleRule | None:
    """Return the rule of the first queue of a chain that has one, if it is for a class; None is any."""
    found = (queues[name].caps.idle for name in chain if name in queues)
    rule = next((rule for rule in found if rule is not None), None)
    return rule if rule is not None and (service_class is None or rule.is_for(service_class)) else None
