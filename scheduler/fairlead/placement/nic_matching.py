"""Which NICs go with which GPUs: as many as can be at the best path class, each GPU its own (R21)."""

from __future__ import annotations

from collections.abc import Sequence

from fairlead.topology.paths import UNKNOWN_RANK

_RANKS = UNKNOWN_RANK + 1


def match(ranks: Sequence[Sequence[int]], gpus: int, per_gpu: int, nics: int) -> tuple[int, int] | None:
    """Give each GPU of `gpus` `per_gpu` NICs out of `nics`, no NIC twice; None where there are not as many.

    `ranks` is the class rank from each GPU to each NIC. The most pairs are at rank 0, then the most at rank 1, and so
    on; of such choices the one with the lowest mask. Returns (NIC mask, rank of the worst pair).
    """
    rows = [gpu for gpu in range(len(ranks)) if gpus >> gpu & 1 for _ in range(per_gpu)]
    columns = [nic for nic in range(nics.bit_length()) if nics >> nic & 1]
    if len(rows) > len(columns):
        return None
    # One pair more at a rank outweighs any number at the ranks after it, and any pair outweighs the mask.
    base, shift = len(rows) + 1, len(columns)
    price = [(base**_RANKS - base ** (UNKNOWN_RANK - rank)) << shift for rank in range(_RANKS)]
    costs = [[price[ranks[gpu][nic]] + (1 << at) for at, nic in enumerate(columns)] for gpu in rows]
    chosen = cheapest(costs)
    worst = max((ranks[gpu][columns[at]] for gpu, at in zip(rows, chosen, strict=True)), default=0)
    return sum(1 << columns[at] for at in chosen), worst


def own_nic(ranks: Sequence[Sequence[int]], nics: int) -> tuple[int, ...]:
    """Return for each GPU the NIC that it will talk through, -1 for none.

    It is one of the nearest, shared as little as can be. Of equals the first GPU gets the first NIC, as communication
    libraries pair them.
    """
    columns = [nic for nic in range(nics.bit_length()) if nics >> nic & 1]
    if not columns:
        return (-1,) * len(ranks)
    count = len(ranks)
    # A slot is the n-th use of a NIC, dearer than every use before it; then the order of GPUs decides.
    nearest = [min(row[nic] for nic in columns) for row in ranks]
    users = {nic: sum(row[nic] == near for row, near in zip(ranks, nearest, strict=True)) for nic in columns}
    slots = [(nic, turn) for turn in range(count) for nic in columns if turn < users[nic]]
    scale = (len(columns) + 1) ** count
    far = scale * (count + 1) ** (count + 2)
    costs: list[list[int]] = []
    for gpu, row in enumerate(ranks):
        weight = (len(columns) + 1) ** (count - 1 - gpu)
        costs.append(
            [
                (scale * (count + 1) ** turn if row[nic] == nearest[gpu] else far) + weight * columns.index(nic)
                for nic, turn in slots
            ]
        )
    return tuple(slots[at][0] for at in cheapest(costs))


def cheapest(costs: Sequence[Sequence[int]]) -> list[int]:
    """Return for each row a column of its own so that the sum of costs is least.

    This is the Hungarian method, O(rows² columns). There are at least as many columns as rows. Costs are exact integers
    of any size.
    """
    height, width = len(costs), len(costs[0]) if costs else 0
    above = sum(max(row) for row in costs) + 1
    row_price, column_price = [0] * (height + 1), [0] * (width + 1)
    row_of, before = [0] * (width + 1), [0] * (width + 1)  # column 0 and row 0 stand for "none"
    for row in range(1, height + 1):
        row_of[0], column = row, 0
        least, seen = [above * 4] * (width + 1), [False] * (width + 1)
        while row_of[column]:
            seen[column] = True
            at, step, following = row_of[column], above * 4, 0
            for other in range(1, width + 1):
                if seen[other]:
                    continue
                reduced = costs[at - 1][other - 1] - row_price[at] - column_price[other]
                if reduced < least[other]:
                    least[other], before[other] = reduced, column
                if least[other] < step:
                    step, following = least[other], other
            for other in range(width + 1):
                if seen[other]:
                    row_price[row_of[other]] += step
                    column_price[other] -= step
                else:
                    least[other] -= step
            column = following
        while column:
            row_of[column] = row_of[before[column]]
            column = before[column]
    found = [0] * height
    for column in range(1, width + 1):
        if row_of[column]:
            found[row_of[column] - 1] = column - 1
    return found
