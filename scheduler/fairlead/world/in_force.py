"""The queues as they are in force at a moment: a sound tree, and what declared exceptions add to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fairlead.model.queue_tree import TreeProblem, sound_tree, tree_problems
from fairlead.model.quota_exception import QuotaException, granted
from fairlead.model.tenancy import Queue
from fairlead.world.tenants import Tenants


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InForce:
    """What holds from `since_ms` until `until_ms`, None where only a fact can change it.

    queues      by name, made sound, exceptions added
    plain       the same without exceptions
    problems    what is wrong with a queue's place in the tree
    exceptions  those that act
    capped      whether any queue has a cap on jobs that hold devices, or a budget
    peaked      whether any queue holds something back in peak periods
    """

    queues: Mapping[str, Queue] = field(default_factory=dict[str, Queue])
    plain: Mapping[str, Queue] = field(default_factory=dict[str, Queue])
    problems: Mapping[str, TreeProblem] = field(default_factory=dict[str, TreeProblem])
    exceptions: tuple[QuotaException, ...] = ()
    capped: bool = False
    peaked: bool = False
    since_ms: int = 0
    until_ms: int | None = None


class ForceKeeper:
    """Works out what is in force; the same value until a fact or a moment changes it."""

    def __init__(self) -> None:
        """Nothing is in force yet."""
        self._version: int | None = None
        self._last = InForce()

    def at(self, tenants: Tenants, now_ms: int) -> InForce:
        """Return what is in force at `now_ms`. O(queues) when something has changed, else O(1)."""
        last = self._last
        if self._version == tenants.version and (last.until_ms is None or now_ms < last.until_ms):
            return last
        if self._version == tenants.version:
            plain, problems = last.plain, last.problems
        else:
            problems = tree_problems(tenants.queues)
            plain = sound_tree(tenants.queues, problems)
        known = [tenants.exceptions[name] for name in sorted(tenants.exceptions)]
        acting = tuple(one for one in known if one.acts_at(now_ms) and one.queue in plain)
        queues = dict(plain) if acting else plain
        for one in acting:
            queues = {**queues, one.queue: granted(queues[one.queue], one)}
        turns = [moment for one in known for moment in (one.starts_ms, one.expires_ms)]
        self._version = tenants.version
        self._last = InForce(
            queues=queues,
            plain=plain,
            problems=problems,
            exceptions=acting,
            capped=any(queue.caps.bounds_running for queue in queues.values()),
            peaked=any(queue.caps.peaks for queue in queues.values()),
            since_ms=max((moment for moment in turns if moment <= now_ms), default=0),
            until_ms=min((moment for moment in turns if moment > now_ms), default=None),
        )
        return self._last
