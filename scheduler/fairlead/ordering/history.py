"""What past usage says about who is next: decayed usage of queues, and Slurm's classic rank where a policy asks for it.

It orders and gives no right: nothing is ever taken from anybody because of what he used before.
"""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.ordering.queue_tree import QueueTree
from fairlead.ordering.slurm_classic import Association, ClassicShare, ClassicTree
from fairlead.world.past_usage import Past, usage_at


class History:
    """Past usage as it counts at one moment. Everything is worked out when it is asked for first."""

    def __init__(self, tree: QueueTree, past: Mapping[str, Past], now_ms: int) -> None:
        """Look at nothing yet."""
        self._tree, self._past, self._now_ms = tree, past, now_ms
        self._used: dict[str, int] = {}
        self._classic: dict[str, tuple[ClassicTree, dict[str, int], dict[str, ClassicShare]]] = {}

    def used(self, queue: str) -> int:
        """Return a queue's own decayed usage, in thousandths of a GPU × ms."""
        known = self._used.get(queue)
        if known is None:
            half_life_ms = self._tree.policy_of(queue).half_life_ms
            known = self._used[queue] = usage_at(self._past, queue, self._now_ms, half_life_ms)
        return known

    def classic_rank(self, queue: str) -> int:
        """Return a queue's rank among all below its `classic_root`: the smaller, the larger its fair-share factor."""
        root = self._tree.classic_root(queue)
        assert root is not None, queue
        if root not in self._classic:
            members = self._tree.classic_members(root)
            tree = ClassicTree(
                {
                    name: Association("" if self._tree.parents[name] == root else self._tree.parents[name], shares)
                    for name, shares in members.items()
                }
            )
            inside = tree.inside({name: self.used(name) for name in members if name in self._past})
            self._classic[root] = (tree, inside, {})
        tree, inside, memo = self._classic[root]
        return tree.share(queue, inside, memo).rank()
