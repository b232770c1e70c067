"""CPU cores and memory from the NUMA nodes of the GPUs (R20): whose, how much, and how much comes from farther away."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.placement.local_shape import LocalShape


class NumaShares:
    """Answers for one machine shape. CPU sets are integers with a bit per CPU."""

    __slots__ = ("_near", "_shape", "cpus")

    def __init__(self, shape: LocalShape) -> None:
        """Remember the shape; O(NUMA nodes)."""
        self._shape = shape
        self.cpus = sum(shape.cpus)
        self._near: dict[int, tuple[list[tuple[int, int]], tuple[int, ...]]] = {}

    def cores(self, gpus: int, count: int, free: int) -> tuple[int, int]:
        """See `LocalTable.cores_for`."""
        homes, others = self.near(gpus)
        if count <= 0 or not homes or not self.cpus:
            return 0, 0
        own = self._shape.cpus
        if len(homes) == 1:  # most pods: one NUMA node that has enough
            inside = own[homes[0][0]] & free
            if inside.bit_count() >= count:
                return self._take(inside, count), 0
        room = [(cpus & free).bit_count() for cpus in own]
        shares = share(count, 2 if self._shape.threads else 1, homes, others, room)
        if shares is None:
            return 0, count
        mask = 0
        for node, wanted in enumerate(shares):
            if wanted:
                mask |= self._take(own[node] & free, wanted)
        return mask, count - sum(shares[node] for node, _ in homes)

    def memory(self, gpus: int, amount: int, free: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """See `LocalTable.memory_for`."""
        assert len(free) == len(self._shape.cpus), (len(free), len(self._shape.cpus))
        homes, others = self.near(gpus)
        if amount <= 0 or not homes:
            return (), 0
        shares = share(amount, 1, homes, others, [max(0, each) for each in free])
        if shares is None:
            return (), amount
        return tuple(shares), amount - sum(shares[node] for node, _ in homes)

    def near(self, gpus: int) -> tuple[list[tuple[int, int]], tuple[int, ...]]:
        """Return (NUMA node, GPUs of the set there) by node, and the other nodes, the nearest to any of these first."""
        known = self._near.get(gpus)
        if known is None:
            shape = self._shape
            weights: dict[int, int] = {}
            for gpu, node in enumerate(shape.numa):
                if gpus >> gpu & 1 and node >= 0:
                    weights[node] = weights.get(node, 0) + 1
            rest = [node for node in range(len(shape.cpus)) if node not in weights]
            rest.sort(key=lambda node: (min((shape.distance[home][node] for home in weights), default=0), node))
            known = self._near[gpus] = (sorted(weights.items()), tuple(rest))
        return known

    def _take(self, inside: int, count: int) -> int:
        """Return the lowest `count` CPUs of a set, whole cores first, then those whose other thread is not free."""
        apart = self._shape.threads
        if not apart:
            return lowest(inside, count)
        whole = inside & (inside >> apart)  # second threads have none above them
        taken = lowest(whole, min(count // 2, whole.bit_count()))
        taken |= taken << apart
        left = count - taken.bit_count()
        if left:
            single = inside & ~(whole | whole << apart)
            more = lowest(single, min(left, single.bit_count()))
            left -= more.bit_count()
            taken |= more
        return taken | lowest(inside & ~taken, left) if left else taken


def share(
    amount: int, unit: int, homes: Sequence[tuple[int, int]], others: Sequence[int], room: Sequence[int]
) -> list[int] | None:
    """Split an amount over NUMA nodes by the weights of `homes`, in whole units while it goes; the rest to `others`.

    `room` is what every node has at most. Returns the amount of every node, None where all of them have too little.
    """
    given = [0] * len(room)
    left = amount
    open_homes = [(node, weight) for node, weight in homes if room[node] > 0]
    while left and open_homes:
        total, units = sum(weight for _, weight in open_homes), left // unit
        parts = [units * weight // total * unit for _, weight in open_homes]
        spare = left - sum(parts)
        for at in range(len(parts)):  # what the division leaves: a unit each, the lowest node first
            more = min(unit, spare)
            parts[at] += more
            spare -= more
        for (node, _), part in zip(open_homes, parts, strict=True):
            taken = min(part, room[node] - given[node])
            given[node] += taken
            left -= taken
        open_homes = [(node, weight) for node, weight in open_homes if given[node] < room[node]]
    for node in others:
        taken = min(left, room[node])
        given[node] += taken
        left -= taken
    return None if left else given


def lowest(mask: int, count: int) -> int:
    """Return the lowest `count` bits of a mask that has as many.

    >>> bin(lowest(0b1011010, 2))
    '0b1010'
    """
    if count <= 0:
        return 0
    run = (mask & -mask) * ((1 << count) - 1)
    if mask & run == run:  # they stand side by side
        return run
    low, high = count, mask.bit_length()
    while low < high:
        middle = (low + high) // 2
        if (mask & (1 << middle) - 1).bit_count() < count:
            low = middle + 1
        else:
            high = middle
    return mask & (1 << low) - 1
