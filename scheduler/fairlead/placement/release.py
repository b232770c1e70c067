"""Many victims released at once in an overlay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fairlead.placement.amounts import FIXED
from fairlead.placement.victim import Held, Victim, takings_on
from fairlead.world.overlay import Lot, Overlay

ONE_BY_ONE = 4
"""Rows up to which summing them up first does not pay."""


def release(overlay: Overlay, victims: Sequence[Victim], extended: Sequence[str]) -> None:
    """Give back whatever victims hold; `extended` names what follows the fixed amounts of a `Held`."""
    plain = [held for victim in victims for held in victim.held if held.plain]
    if len(plain) <= ONE_BY_ONE:
        plain = []
    for victim in victims:
        for held in victim.held:
            if not plain or not held.plain:
                for taking in takings_on(victim, held.row, overlay.inventory):
                    overlay.give(taking)
    if plain:
        overlay.give_lot(_lot(overlay, plain, extended))


def _lot(overlay: Overlay, held: Sequence[Held], extended: Sequence[str]) -> Lot:
    rows, at = np.unique(np.array([one.row for one in held], dtype=np.int64), return_inverse=True)
    masks = np.zeros(len(rows), dtype=np.int64)
    np.bitwise_or.at(masks, at, np.array([one.mask for one in held], dtype=np.int64))
    masks &= ~overlay.columns.free_mask[rows]
    amounts = np.zeros((len(FIXED) + len(extended), len(rows)), dtype=np.int64)
    for column, amount in zip(amounts, np.array([one.amounts for one in held], dtype=np.int64).T, strict=True):
        np.add.at(column, at, amount)
    cpus: dict[int, int] = {}
    nics: dict[int, int] = {}
    for one in held:
        if one.cpus:
            cpus[one.row] = cpus.get(one.row, 0) ^ one.cpus
        if one.nics:
            nics[one.row] = nics.get(one.row, 0) ^ one.nics
    names = (*FIXED, *extended)
    used = {name: column for name, column in zip(names, amounts, strict=True) if column.any()}
    return Lot(rows, masks, used, tuple(cpus.items()), tuple(nics.items()))
