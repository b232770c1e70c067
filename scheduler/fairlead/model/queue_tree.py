"""Whether queues make a sound tree: what is wrong with which, and what is in force of those that are not sound.

What one Queue says of itself is refused where it is written; what only the whole tree shows is found here, and bounded:

- a queue whose way up to a root is broken (a parent that is missing, a circle, more than `LEVELS_MAX` levels) takes
  nobody in, and neither do those below it. What runs there goes on, charged to it as if it were a root;
- guarantees that add up to more than what they are taken from are cut, all in the same proportion, to what there is.

One pass over the queues, and one over their children: O(queues) however deep they stand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fairlead.model.tenancy import Queue

LEVELS_MAX = 16
"""Queues on the way from a root to a leaf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeProblem:
    """What is wrong with a queue's place in the tree. One that is `closed` takes nobody in."""

    field: str
    problem: str
    mend: str
    closed: bool

    @property
    def text(self) -> str:
        """The sentence for a condition or an error."""
        return f"{self.field}: {self.problem}; {self.mend}"


def tree_problems(queues: Mapping[str, Queue]) -> dict[str, TreeProblem]:
    """Return what is wrong with each queue, by name; sound queues are not in it. O(queues)."""
    found: dict[str, TreeProblem] = {}
    depth = _depths(queues, found)
    children = _children(queues, depth)
    promised = _promised(queues, children, depth)
    for name, queue in queues.items():
        if name not in found:
            for problem in _unpayable(queue, children.get(name, []), promised):
                found[name] = problem
                break
    return found


def sound_tree(queues: Mapping[str, Queue], problems: Mapping[str, TreeProblem]) -> dict[str, Queue]:
    """Return the queues in force: closed ones are roots, guarantees are cut to what there is.

    The same objects where nothing is wrong.
    """
    if not problems:
        return dict(queues)
    closed = {name for name, problem in problems.items() if problem.closed}
    sound = {name: replace(queue, parent="") if name in closed else queue for name, queue in queues.items()}
    depth = _depths(sound, {})
    children = _children(sound, depth)
    promised = _promised(sound, children, depth)
    granted = {name: min(promised[name], _most(sound[name])) for name in sound}
    for name in sorted(sound, key=lambda one: (depth.get(one, 0), one)):
        below = children.get(name, [])
        asked = sum(promised[child] for child in below)
        have = granted[name]
        if asked > have:
            for child in below:
                granted[child] = min(granted[child], have * promised[child] // asked)
    return {
        name: queue if queue.guaranteed_gpus <= granted[name] else replace(queue, guaranteed_gpus=granted[name])
        for name, queue in sound.items()
    }


def _depths(queues: Mapping[str, Queue], found: dict[str, TreeProblem]) -> dict[str, int]:
    """Return how far below its root each queue stands (a root: 1); those that reach none are noted in `found`."""
    depth: dict[str, int] = {}
    for start in queues:
        path: dict[str, None] = {}
        name = start
        while name in queues and name not in depth and name not in found and name not in path:
            path[name] = None
            name = queues[name].parent
        if name in path:
            circle = list(path)[list(path).index(name) :]
            for one in circle:
                found[one] = _closed("spec.parent", f"{one!r} is above itself", "name another parent, or none")
                del path[one]
        for one in reversed(path):
            parent = queues[one].parent
            if not parent:
                depth[one] = 1
            elif parent not in queues:
                mend = "create it, or name another parent, or none"
                found[one] = _closed("spec.parent", f"there is no queue {parent!r}", mend)
            elif parent in found:
                mend = f"mend spec.parent of {parent!r} first"
                found[one] = _closed("spec.parent", f"{parent!r} leads to no root", mend)
            elif depth[parent] >= LEVELS_MAX:
                problem = f"{parent!r} stands on level {LEVELS_MAX}, the last that there is"
                found[one] = _closed("spec.parent", problem, "name a queue nearer to the root")
            else:
                depth[one] = depth[parent] + 1
    return depth


def _closed(field: str, problem: str, mend: str) -> TreeProblem:
    return TreeProblem(field=field, problem=problem, mend=mend, closed=True)


def _children(queues: Mapping[str, Queue], depth: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the sound children of each queue, by name."""
    children: dict[str, list[str]] = {}
    for name in sorted(depth):
        if queues[name].parent:
            children.setdefault(queues[name].parent, []).append(name)
    return children


def _promised(
    queues: Mapping[str, Queue], children: Mapping[str, list[str]], depth: Mapping[str, int]
) -> dict[str, int]:
    """Return what each queue is to have guaranteed: its own word or, where it gives none, the sum of those below it."""
    promised = {name: queue.guaranteed_gpus for name, queue in queues.items()}
    for name in sorted(depth, key=lambda one: -depth[one]):
        promised[name] = promised[name] or sum(promised[child] for child in children.get(name, []))
    return promised


def _most(queue: Queue) -> int:
    """Return the most that the queue and those below it may be guaranteed."""
    bounds = [bound for bound in (queue.limit_gpus, queue.guaranteed_gpus or None) if bound is not None]
    return min(bounds, default=1 << 62)


def _unpayable(queue: Queue, children: list[str], promised: Mapping[str, int]) -> Iterator[TreeProblem]:
    """Yield guarantees that cannot all be kept."""
    limit, own = queue.limit_gpus, queue.guaranteed_gpus
    if limit is not None and own > limit:
        problem = f"{limit} is below guaranteed, {own}"
        yield TreeProblem(
            field="spec.resources[gpu].limit", problem=problem, mend="raise limit or lower guaranteed", closed=False
        )
    asked = sum(promised[child] for child in children)
    if asked > _most(queue):
        bound = f"its own, {own}" if own and own <= _most(queue) else f"its limit, {limit}"
        yield TreeProblem(
            field="spec.resources[gpu].guaranteed",
            problem=f"the queues below it are guaranteed {asked} GPUs together, above {bound}",
            mend="lower theirs or raise this queue's; until then theirs are cut in proportion",
            closed=False,
        )
