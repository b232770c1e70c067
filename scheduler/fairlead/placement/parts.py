"""How many shares or MIG instances each device still takes, and pods the NICs of a node: columns over rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fairlead.model.gang import Role, Share
from fairlead.world.fleet import Columns, IntColumn, may_join


def parts_on(role: Role, group: int, columns: Columns, rows: IntColumn, devices: IntColumn) -> IntColumn:
    """Return how many shares or instances of a role's kind each device takes. Shape (rows, devices)."""
    if role.share is not None:
        return shares_on(role.share, group, columns, rows, devices)
    return instances_on(role.mig, group, columns, rows, devices)


def instances_on(profile: str, group: int, columns: Columns, rows: IntColumn, devices: IntColumn) -> IntColumn:
    """Return how many instances of a profile each device takes beside what is on it. Shape (rows, devices).

    `devices` are the bits of those that may carry one, `group` the tenant; 0 asks without a look at who is there.
    """
    states, bits = columns.mig_state[rows], np.arange(columns.mig_state.shape[1])
    whole_or_cut = columns.free_mask[rows] | columns.mig.parts_only[rows]
    opens = (((whole_or_cut[:, None] >> bits) & 1).astype(np.bool_) & (states == 0)) | (states > 0)
    may = ((devices[:, None] >> bits) & 1).astype(np.bool_) & opens & may_join(group, columns.group[rows])
    return np.where(may, columns.mig.room(profile, rows, states), 0)


def shares_on(share: Share, group: int, columns: Columns, rows: IntColumn, devices: IntColumn) -> IntColumn:
    """Return how many shares each device takes: one that is idle, or shared by the same group. Shape (rows, devices).

    `devices` are the bits of those that may carry one. A group of 0 is one that nobody has had a share of yet.
    """
    bits = np.arange(columns.milli.shape[1])
    idle = ((columns.free_mask[rows, None] >> bits) & 1).astype(np.bool_)
    beside = (columns.group[rows] == group) if group else np.zeros_like(idle)
    may = ((devices[:, None] >> bits) & 1).astype(np.bool_) & (idle | beside)
    room = columns.milli[rows] // share.milli
    if share.memory_bytes:
        room = np.minimum(room, columns.vram[rows] // share.memory_bytes)
    return np.where(may, np.maximum(room, 0), 0)


def nics_room(role: Role, nics: IntColumn, taken: Mapping[int, int], rows: IntColumn) -> IntColumn:
    """Return how many pods of a role the NICs that are up and free on each of `rows` allow. Shape (rows,)."""
    free = nics[rows].copy()
    for at, row in enumerate(rows.tolist()):
        if row in taken:
            free[at] &= ~taken[row]
    return np.bitwise_count(free).astype(np.int64) // (role.gpus * role.nics_per_gpu)
