"""Which devices are kept free, by which rule and for whom: said once, and again when it is something else.

Room that is being made for a gang, what a gang was promised, a reservation in its time, and what pools keep. Devices
that somebody holds all the same (a guest, a backfilled job) may be among them: they are held. So little is to be said:
of a reservation its beginning and its end; of a pool's reserve something only when the idle devices named last are not
as many any more as it keeps. Members that have a part of a device keep nothing: what is left of it is everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fairlead.model.effects import Effect, EndNomination, Nominate, Place
from fairlead.model.gang import GangId, Placement
from fairlead.model.hardware import NodeName
from fairlead.model.keeping import Keep, KeptDevices, KeptFree
from fairlead.model.promises import EndPromise, Promise
from fairlead.placement.fence import highest_bits
from fairlead.planning.pool_rules import PoolRules
from fairlead.world.overlay import Overlay
from fairlead.world.snapshot import World

KeepMemo = dict[str, object]
"""keeper -> what its devices were made from last, so that they are not made again."""


def keeping(
    world: World, overlay: Overlay, pools: PoolRules | None, effects: Iterable[Effect], memo: KeepMemo
) -> list[Keep]:
    """Return what is to be said, by keeper, once `effects` are decided. `overlay` has all of them, and no fence."""
    found: dict[str, Keep] = {}
    known = world.kept
    wanted = set[str]()
    for keeper, queue, source in _placements(world, tuple(effects)):
        wanted.add(keeper)
        if keeper not in known or memo.get(keeper) is not source:
            found[keeper] = Keep(keeper=keeper, queue=queue, devices=_devices_of(source))
            memo[keeper] = source
    for one in world.reserved:
        keeper, rows = f"reservation/{one.reservation.name}", (world.inventory.version, one.rows)
        if one.start_ms > world.now_ms:
            continue
        wanted.add(keeper)
        if keeper not in known or memo.get(keeper) != rows:
            masks = {row: int(world.inventory.all_mask[row]) for row in one.rows}
            found[keeper] = Keep(keeper=keeper, queue=one.reservation.queue, devices=_named(world, masks))
            memo[keeper] = rows
    for keeper, gpus in sorted(pools.keeps().items()) if pools is not None else ():
        free = {row: int(overlay.columns.free_mask[row] & world.inventory.healthy_mask[row]) for row in gpus}
        masks = {row: highest_bits(mask, gpus[row]) for row, mask in free.items() if mask}
        count = sum(mask.bit_count() for mask in masks.values())
        if count:
            wanted.add(keeper)
        if count and _idle(known.get(keeper), world, overlay) != count:
            found[keeper] = Keep(keeper=keeper, queue="", devices=_named(world, masks))
    for keeper in known.keys() - wanted:
        found[keeper] = Keep(keeper=keeper, queue="", devices=())
    for keeper in memo.keys() - wanted:
        del memo[keeper]
    said = (found[keeper] for keeper in sorted(found))
    return [one for one in said if not _is_known(known.get(one.keeper), one)]


def _placements(world: World, effects: tuple[Effect, ...]) -> Iterator[tuple[str, str, Placement]]:
    """Yield (keeper, queue, placement) of every nomination and promise that stands after the effects."""
    rooms = {waiting.gang.id: waiting.nomination.placement for waiting in world.waiting.nominated if waiting.nomination}
    promised = {one.gang: one.placement for one in world.promises}
    for effect in effects:
        match effect:
            case Nominate(gang=gang, placement=placement):
                rooms[gang] = placement
            case Promise(gang=gang, placement=placement):
                promised[gang] = placement
            case EndNomination(gang=gang) | Place(gang=gang):
                rooms.pop(gang, None)
                if isinstance(effect, Place):
                    promised.pop(gang, None)
            case EndPromise(gang=gang):
                promised.pop(gang, None)
            case _:
                pass
    for rule, placements in (("nomination", rooms), ("promise", promised)):
        for gang, placement in placements.items():
            yield f"{rule}/{gang}", _queue_of(world, gang), placement


def _queue_of(world: World, gang: GangId) -> str:
    waiting = world.waiting.get(gang)
    return "" if waiting is None else waiting.gang.queue


def _devices_of(placement: Placement) -> KeptDevices:
    on_node: dict[NodeName, list[str]] = {}
    for member in placement.members:
        if member.devices and not member.share_milli:
            on_node.setdefault(member.node, []).extend(member.devices)
    return tuple((node, tuple(sorted(on_node[node]))) for node in sorted(on_node))


def _named(world: World, masks: Mapping[int, int]) -> KeptDevices:
    named = {world.inventory.nodes[row].name: world.inventory.devices(row, mask) for row, mask in masks.items() if mask}
    return tuple((node, named[node]) for node in sorted(named))


def _idle(known: KeptFree | None, world: World, overlay: Overlay) -> int:
    """Count the devices named last that are idle now."""
    idle = 0
    for node, devices in known.devices if known is not None else ():
        row = world.inventory.row.get(node)
        if row is not None:
            mask = world.inventory.mask(row, devices) & int(world.inventory.healthy_mask[row])
            idle += (mask & int(overlay.columns.free_mask[row])).bit_count()
    return idle


def _is_known(known: KeptFree | None, one: Keep) -> bool:
    if known is None:
        return not one.devices
    return (known.devices, known.queue) == (one.devices, one.queue)
