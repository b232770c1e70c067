"""By what the holds of each attempt are priced, of all attempts ever.

Theory of operation. Most gangs of a queue are alike here: they have its chain of queues, no MIG profiles, and one
attempt. So all that is known of a gang is one value that never changes, and gangs of which the same is known share it.
What only one gang is likely to have, many attempts or many members with MIG profiles, is not shared: then each value
that it had before the next attempt or member would be kept, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar, cast

from fairlead.model.events import GrowIntended, Intended, Recovered
from fairlead.model.gang import Gang, GangId
from fairlead.model.tenancy import Queue, ancestors

_SHARED = 8
"""The most attempts, or members with MIG profiles, that what is shared has."""

SavedGang = tuple[str, dict[str, str]]
"""What a gang asks for: of which queue, and role -> MIG profile."""
SavedPayer = tuple[tuple[str, int], tuple[str, ...], dict[int, str]]
"""(gang and attempt, chain of queues, rank -> MIG profile)."""

_T = TypeVar("_T", bound=tuple[object, ...])


class Payer(NamedTuple):
    """The queue that pays and those above it, nearest first; `mig` are (rank, MIG profile), by rank."""

    chain: tuple[str, ...]
    mig: tuple[tuple[int, str], ...] = ()

    def profile(self, rank: int) -> str:
        """Return the MIG profile of a member, "" where it has whole devices or a part by thousandths."""
        at = bisect_left(self.mig, rank, key=lambda part: part[0])
        return self.mig[at][1] if at < len(self.mig) and self.mig[at][0] == rank else ""


class _Asked(NamedTuple):
    """What a gang asks for: of which queue, and (role, MIG profile)."""

    queue: str
    profiles: tuple[tuple[str, str], ...]


class _Gang(NamedTuple):
    """What is known of one; `asked` None where nobody described it. `attempts` are by number."""

    asked: _Asked | None = None
    attempts: tuple[tuple[int, Payer], ...] = ()


_NEW = _Gang()


class Payers:
    """Changed only by `Pricing`."""

    def __init__(self) -> None:
        """Know nobody."""
        self._gangs: dict[GangId, _Gang] = {}
        self._shared: dict[tuple[type, object], object] = {}

    def learn(self, gang: Gang) -> None:
        """Learn what a gang asks for; attempts that were told of before stay what they are."""
        profiles = tuple((role.name, role.mig) for role in gang.roles if role.mig)
        self._ask(gang.id, _Asked(gang.queue, profiles))

    def open(self, record: Intended | Recovered | GrowIntended, queues: dict[str, Queue]) -> None:
        """Fix what the members of an attempt are priced by, the first time that each is told of."""
        asked = self._gangs.get(record.gang, _NEW).asked or _Asked("", ())
        known = self.of(record.gang, record.attempt)
        payer = known or Payer(ancestors(asked.queue, queues) or (asked.queue,))
        if asked.profiles:
            profiles = dict(asked.profiles)
            told = {one.rank: profiles[one.role] for one in reversed(record.placement.members) if one.role in profiles}
            payer = Payer(payer.chain, tuple(sorted((told | dict(payer.mig)).items())))
        if payer != known:
            self._pay(record.gang, record.attempt, payer)

    def of(self, gang: str, attempt: int) -> Payer | None:
        """Return by what the holds of an attempt are priced, None where it never had any."""
        attempts = self._gangs.get(GangId(gang), _NEW).attempts
        at = bisect_left(attempts, attempt, key=lambda one: one[0])
        return attempts[at][1] if at < len(attempts) and attempts[at][0] == attempt else None

    def saved(self) -> tuple[dict[str, SavedGang], list[SavedPayer]]:
        """Return what gangs asked for, and by what each attempt is priced, sorted by gang and attempt."""
        asked: dict[_Asked, SavedGang] = {}  # one of all that are equal here, too: there may be a million
        profiles: dict[tuple[tuple[int, str], ...], dict[int, str]] = {}
        gangs: dict[str, SavedGang] = {
            gang: asked.setdefault(known.asked, (known.asked.queue, dict(known.asked.profiles)))
            for gang, known in self._gangs.items()
            if known.asked is not None
        }
        holds: list[SavedPayer] = [
            ((gang, attempt), payer.chain, profiles.setdefault(payer.mig, dict(payer.mig)))
            for gang, known in sorted(self._gangs.items())
            for attempt, payer in known.attempts
        ]
        return gangs, holds

    def restore(
        self, gangs: dict[str, SavedGang], holds: Iterable[SavedPayer], id_of: Callable[[GangId], GangId]
    ) -> None:
        """Know what was saved; `id_of` a gang is the one string to keep of it."""
        for gang, (queue, profiles) in gangs.items():
            self._ask(id_of(GangId(gang)), _Asked(queue, tuple(profiles.items())))
        for (gang, attempt), chain, mig in holds:
            self._pay(id_of(GangId(gang)), attempt, Payer(chain, tuple(sorted(mig.items()))))

    def _ask(self, gang: GangId, asked: _Asked) -> None:
        attempts = self._gangs.get(gang, _NEW).attempts
        self._keep(gang, _Gang(self._one(asked), attempts))

    def _pay(self, gang: GangId, attempt: int, payer: Payer) -> None:
        """Price an attempt by a payer from now on."""
        payer = Payer(self._one(payer.chain), payer.mig)
        if len(payer.mig) <= _SHARED:
            payer = self._one(payer)
        asked, attempts = self._gangs.get(gang, _NEW)
        at = bisect_left(attempts, attempt, key=lambda one: one[0])
        known = at < len(attempts) and attempts[at][0] == attempt
        self._keep(gang, _Gang(asked, (*attempts[:at], (attempt, payer), *attempts[at + known :])))

    def _keep(self, gang: GangId, known: _Gang) -> None:
        few = len(known.attempts) <= _SHARED and all(len(payer.mig) <= _SHARED for _, payer in known.attempts)
        self._gangs[gang] = self._one(known) if few else known

    def _one(self, value: _T) -> _T:
        """Return the one object of all that are equal."""
        return cast(_T, self._shared.setdefault((type(value), value), value))
