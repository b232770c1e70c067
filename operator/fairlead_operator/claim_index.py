"""Which claims hold which device, as the claim watch tells it: the last look before a gang is bound.

The API server takes the same device in two claims, so nobody but us can see that it happened. Versions of claims only
grow; once the watch has shown our own write, it has shown everything that was written before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from fairlead_operator.device_objects import Claim

Device = tuple[str, str, str]
"""(driver, pool, device name)."""


def devices_of(claim: Claim) -> tuple[Device, ...]:
    """Return what a claim holds; administrative access holds nothing."""
    allocation = claim.status.allocation
    if allocation is None:
        return ()
    return tuple((r.driver, r.pool, r.device) for r in allocation.devices.results if not r.admin_access)


class ClaimIndex:
    """Devices by claim and claims by device. Feed it every change of the claim watch, and nothing else."""

    def __init__(self) -> None:
        """Start empty."""
        self._held: dict[str, tuple[Device, ...]] = {}
        self._holders: dict[Device, set[str]] = {}
        self._version = 0
        self._moved = asyncio.Event()

    def change(self, old: Claim | None, new: Claim | None, *, deleted: bool) -> None:
        """Take in one change; `new` is the last state where `deleted`, if the server told it."""
        seen = new or old
        assert seen is not None
        uid = seen.metadata.uid
        for device in self._held.pop(uid, ()):
            holders = self._holders[device]
            holders.discard(uid)
            if not holders:
                del self._holders[device]
        if not deleted and new is not None:
            held = devices_of(new)
            if held:
                self._held[uid] = held
            for device in held:
                self._holders.setdefault(device, set()).add(uid)
        if new is not None and new.metadata.resource_version.isdecimal():
            self._version = max(self._version, int(new.metadata.resource_version))
            self._moved.set()

    def held_by_others(self, devices: Iterable[Device], uid: str) -> tuple[Device, ...]:
        """Return those of `devices` that a claim other than `uid` holds."""
        return tuple(device for device in devices if self._holders.get(device, set()) - {uid})

    def doubles(self) -> dict[Device, tuple[str, ...]]:
        """Return every device that more than one claim holds, with the claims' uids."""
        return {d: tuple(sorted(uids)) for d, uids in sorted(self._holders.items()) if len(uids) > 1}

    async def caught_up(self, version: str, within_s: float) -> bool:
        """Wait until the watch has shown `version`; False where it has not within the time."""
        if not version.isdecimal():
            return False
        try:
            async with asyncio.timeout(within_s):
                while self._version < int(version):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True
