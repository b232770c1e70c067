"""The order in which waiting gangs are looked at, re-decided after every placement."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from fairlead.ordering.standing import Standing
from fairlead.world.snapshot import Waiting


def inside_queue(waiting: Waiting) -> tuple[int, int, str]:
    """Priority first, then age, then uid, so that the order is total."""
    return (-waiting.gang.priority, waiting.gang.submitted_ms, waiting.gang.id)


def in_order(waiting: Iterable[Waiting], standing: Standing) -> Iterator[Waiting]:
    """Yield gangs: the queue that stands furthest back first, inside it by priority and age.

    `standing` is read again before each step, so what the caller charges to it moves the order. O(log queues) a step.
    """
    by_queue: dict[str, list[Waiting]] = {}
    for item in waiting:
        by_queue.setdefault(item.gang.queue, []).append(item)
    for items in by_queue.values():
        items.sort(key=inside_queue, reverse=True)  # the next one is the last: pop() is cheap
    heap = [standing.order_key(name) for name in sorted(by_queue)]
    heapq.heapify(heap)
    while heap:
        key = heap[0]
        fresh = standing.order_key(key[2])
        if fresh != key:
            heapq.heapreplace(heap, fresh)
            continue
        items = by_queue[key[2]]
        yield items.pop()
        if not items:
            heap.remove(key)
            heapq.heapify(heap)


def positions(waiting: Iterable[Waiting]) -> dict[str, int]:
    """Return each gang's place in its own queue, from 1."""
    count: dict[str, int] = {}
    placed: dict[str, int] = {}
    for item in sorted(waiting, key=lambda w: (w.gang.queue, *inside_queue(w))):
        count[item.gang.queue] = count.get(item.gang.queue, 0) + 1
        placed[item.gang.id] = count[item.gang.queue]
    return placed
