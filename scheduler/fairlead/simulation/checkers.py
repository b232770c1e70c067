"""One checker per promise of the design (section 10) that a running world can break; each looks at the real fleet."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.model.effects import Phase
from fairlead.model.hardware import NodeName
from fairlead.simulation.driver import Checker, Driver

UNBIND_MS = 30_000


def gangs_are_whole(driver: Driver) -> Sequence[str]:
    """P1: no gang is partly bound for longer than 30 s after its first binding."""
    broken: list[str] = []
    for (gang, attempt), pods in driver.fleet.pods.items():
        members = len(pods.placement.members)
        if not 0 < len(pods.bound) < members or pods.first_bound_ms is None:
            continue
        # Members of a gang that was whole come to their end one by one, and a dead node keeps its pod's binding.
        was_whole = len(pods.ended) > 0 or len(pods.running) > 0
        on_dead = any(pods.by_rank[rank].node in driver.fleet.down for rank in pods.bound)
        if not was_whole and not on_dead and driver.now_ms > pods.first_bound_ms + UNBIND_MS:
            broken.append(f"P1: {gang}#{attempt} has {len(pods.bound)} of {members} members bound for over 30 s")
    return broken


def devices_are_exclusive(driver: Driver) -> Sequence[str]:
    """P2: an exclusive device is in one claim, and never in ours and in somebody else's once both are bound."""
    broken: list[str] = []
    for (node, device), holders in driver.fleet.holders.items():
        if len(holders) > 1:
            broken.append(f"P2: {device} on {node} is held by {len(holders)} members: {holders}")
        if device in driver.fleet.foreign.get(NodeName(node), ()):
            key = holders[0][0]
            if driver.fleet.pods[key].state == "bound":
                broken.append(f"P2: {device} on {node} is bound by {key} and allocated by another client")
    return broken


class LimitsHold:
    """P3: no decision of ours raises a queue's use above its limit. Remembers what was held before."""

    def __init__(self) -> None:
        """Nothing is held yet."""
        self._used: dict[str, int] = {}

    def __call__(self, driver: Driver) -> Sequence[str]:
        """Compare every queue with the step before."""
        broken: list[str] = []
        for queue in driver.engine.queue_views():
            before = self._used.get(queue.name, 0)
            if queue.limit_gpus is not None and queue.used_gpus > max(queue.limit_gpus, before):
                broken.append(f"P3: queue {queue.name} holds {queue.used_gpus}, limit {queue.limit_gpus}, was {before}")
            self._used[queue.name] = queue.used_gpus
        return broken


def every_device_has_one_state(driver: Driver) -> Sequence[str]:
    """P4, as far as the state shows it: free + held + foreign + down is what the node has."""
    broken: list[str] = []
    for node in driver.engine.node_views():
        if node.free + node.held + node.foreign + node.down != node.gpus:
            broken.append(f"P4: {node.name}: {node.free}+{node.held}+{node.foreign}+{node.down} is not {node.gpus}")
    return broken


def what_waits_has_a_reason(driver: Driver) -> Sequence[str]:
    """P9: every gang that waits, was refused or has failed says why, in a sentence that is complete."""
    broken: list[str] = []
    for gang in driver.engine.gang_views(driver.now_ms):
        if gang.phase in (Phase.PENDING, Phase.REFUSED, Phase.SUSPENDED, Phase.FAILED):
            if gang.refusal is None:
                broken.append(f"P9: {gang.namespace}/{gang.name} is {gang.phase} without a reason")
            elif "{" in gang.refusal.message:
                broken.append(f"P9: {gang.namespace}/{gang.name}: unfinished sentence {gang.refusal.message!r}")
        if gang.phase is Phase.PENDING and gang.position is None:
            broken.append(f"P9: {gang.namespace}/{gang.name} waits without a place in its queue")
    return broken


def nothing_stays_on_lost_nodes(driver: Driver) -> Sequence[str]:
    """No gang is left to itself on a node that was declared lost: the same step that declares it stops the gang."""
    lost = driver.engine.state.lost & driver.fleet.down.keys()
    broken: list[str] = []
    for gang in driver.engine.gang_views(driver.now_ms) if lost else ():
        nodes = {member.node for member in gang.placement.members} if gang.placement else set()
        if gang.phase in (Phase.PLACING, Phase.STARTING, Phase.RUNNING) and nodes & lost:
            broken.append(f"P1: {gang.namespace}/{gang.name} is {gang.phase} on lost node {min(nodes & lost)}")
    return broken


def all_checkers() -> tuple[Checker, ...]:
    """Return a fresh set; one of them has a memory."""
    return (
        gangs_are_whole,
        devices_are_exclusive,
        LimitsHold(),
        every_device_has_one_state,
        what_waits_has_a_reason,
        nothing_stays_on_lost_nodes,
    )
