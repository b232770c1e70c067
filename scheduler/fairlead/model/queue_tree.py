"""Whether queues make a sound tree: what is wrong with which, and what is in force of those that are not sound.

What one Queue says of itself is refused where it is written; what only the whole tree shows is found here, and bounded:

- a queue whose way up to a root is broken (a parent that is missing, a circle, more than `LEVELS_MAX` levels) takes
  nobody in, and neither do those below it. What runs there goes on, charged to it as if it were a root;
- guarantees of a resource that add up to more than what they are taken from are cut, all in the same proportion, to
  what there is. What is guaranteed of GPU models is guaranteed of GPUs too.

A pass over the queues and one over their children for each resource that a queue names: O(queues × resources), however
deep they stand; where guarantees are cut, as often as a cut makes another one due.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fairlead.model.quota import GPU, OF_MODEL, unit_of, words_of
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
    """Return what is wrong with each queue, by name; sound queues are not in it. O(queues × resources)."""
    found: dict[str, TreeProblem] = {}
    depth = _depths(queues, found)
    children = _children(queues, depth)
    for resource in _resources(queues):
        promised = _promised(resource, queues, children, depth)
        for name, queue in queues.items():
            if name not in found:
                for problem in _unpayable(resource, queue, children.get(name, []), promised):
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
    before: dict[str, Queue] = {}
    while before != sound:  # a cut of one model is one of GPUs too; guarantees only shrink, so this ends
        before = sound
        for resource in _resources(sound):
            granted = _granted(resource, sound, children, depth)
            sound = {name: _cut(queue, resource, granted[name]) for name, queue in sound.items()}
    return sound


def _granted(
    resource: str, queues: Mapping[str, Queue], children: Mapping[str, list[str]], depth: Mapping[str, int]
) -> dict[str, int]:
    """Return the most that each queue can be guaranteed of a resource, from the roots down."""
    promised = _promised(resource, queues, children, depth)
    granted: dict[str, int] = {}
    for name, queue in queues.items():
        most = _most(resource, queue)
        granted[name] = promised[name] if most is None else min(promised[name], most)
    for name in sorted(depth, key=depth.__getitem__):
        below = children.get(name, [])
        asked = sum(promised[child] for child in below)
        have = granted[name]
        if asked > have:
            for child in below:
                granted[child] = min(granted[child], have * promised[child] // asked)
    return granted


def _resources(queues: Mapping[str, Queue]) -> list[str]:
    """Return the resources that queues speak of; GPUs come before those of a model, which are a part of them."""
    named = {quota.resource for queue in queues.values() for quota in queue.quotas} - {GPU}
    return [GPU, *sorted(named)]


def _own(resource: str, queue: Queue) -> int:
    """Return what a queue says that it is guaranteed, in whole units as people write them."""
    if resource == GPU:
        return max(queue.guaranteed_gpus, _of_models(queue) // unit_of(GPU))
    quota = queue.quota(resource)
    return 0 if quota is None else quota.guaranteed // unit_of(resource)


def _of_models(queue: Queue) -> int:
    return sum(quota.guaranteed for quota in queue.quotas if quota.resource.startswith(OF_MODEL))


def _cut(queue: Queue, resource: str, most: int) -> Queue:
    """Return the queue with no more than `most` whole units guaranteed."""
    if _own(resource, queue) <= most:
        return queue
    if resource != GPU:
        mine = unit_of(resource) * most
        quotas = tuple(replace(q, guaranteed=mine) if q.resource == resource else q for q in queue.quotas)
        return replace(queue, quotas=quotas)
    whole = _of_models(queue) // unit_of(GPU)
    quotas = queue.quotas
    if whole > most:
        unit = unit_of(GPU)
        quotas = tuple(
            replace(q, guaranteed=q.guaranteed // unit * most // whole * unit) if q.resource.startswith(OF_MODEL) else q
            for q in quotas
        )
    return replace(queue, guaranteed_gpus=min(queue.guaranteed_gpus, most), quotas=quotas)


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
    resource: str, queues: Mapping[str, Queue], children: Mapping[str, list[str]], depth: Mapping[str, int]
) -> dict[str, int]:
    """Return what each queue is to have guaranteed: its own word or, where it gives none, the sum of those below it."""
    promised = {name: _own(resource, queue) for name, queue in queues.items()}
    for name in sorted(depth, key=lambda one: -depth[one]):
        promised[name] = promised[name] or sum(promised[child] for child in children.get(name, []))
    return promised


def _limit(resource: str, queue: Queue) -> int | None:
    if resource == GPU:
        return queue.limit_gpus
    quota = queue.quota(resource)
    return None if quota is None or quota.limit is None else quota.limit // unit_of(resource)


def _most(resource: str, queue: Queue) -> int | None:
    """Return the most that the queue and those below it may be guaranteed, None where it says nothing of that."""
    bounds = [bound for bound in (_limit(resource, queue), _own(resource, queue) or None) if bound is not None]
    return min(bounds, default=None)


def _unpayable(resource: str, queue: Queue, children: list[str], promised: Mapping[str, int]) -> Iterator[TreeProblem]:
    """Yield guarantees that cannot all be kept."""
    limit, own, where = _limit(resource, queue), _own(resource, queue), f"spec.resources[{resource}]"
    if limit is not None and own > limit:
        yield TreeProblem(
            field=f"{where}.limit",
            problem=f"{limit} is below guaranteed, {own}",
            mend="raise limit or lower guaranteed",
            closed=False,
        )
    asked = sum(promised[child] for child in children)
    most = _most(resource, queue)
    if most is not None and asked > most:
        bound = f"its own, {own}" if own and own <= most else f"its limit, {limit}"
        yield TreeProblem(
            field=f"{where}.guaranteed",
            problem=f"the queues below it are guaranteed {asked} {words_of(resource)} together, above {bound}",
            mend="lower theirs or raise this queue's; until then theirs are cut in proportion",
            closed=False,
        )
