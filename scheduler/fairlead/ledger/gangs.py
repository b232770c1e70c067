"""Who all gangs ever were, told apart for ever: what many of them have in common is kept once."""

from __future__ import annotations

from dataclasses import dataclass

from fairlead.ledger.attempts import Who
from fairlead.model.events import GangRefused, GangSeen
from fairlead.model.gang import GangId
from fairlead.model.hardware import Resources

_Requests = dict[str, Resources]
_NOBODY = Who("", "", "")


@dataclass(slots=True)
class _Known:
    """A `Who`, and the one string of the gang's id that others keep, too."""

    id: GangId
    namespace: str
    name: str
    queue: str
    requests: _Requests


class Gangs:
    """Changed only by `Meter`. A gang that nobody described is in no queue and has no names."""

    def __init__(self) -> None:
        """Know no gang."""
        self._known: dict[GangId, _Known] = {}
        self._words: dict[str, str] = {}
        self._requests: dict[tuple[tuple[str, Resources], ...], _Requests] = {}

    def learn(self, record: GangSeen | GangRefused) -> None:
        """Learn who a gang is; that one was refused says nothing new of who is known."""
        match record:
            case GangSeen(gang=gang):
                requests = {role.name: role.pod.requests for role in gang.roles}
                self._add(gang.id, Who(gang.namespace, gang.name, gang.queue, requests))
            case GangRefused() if record.gang not in self._known:
                self._add(record.gang, Who(record.namespace, record.name, record.queue))
            case _:
                pass

    def who(self, gang: GangId) -> Who:
        """Return who a gang is. What its pods ask for is not to be changed."""
        one = self._known.get(gang)
        return _NOBODY if one is None else Who(one.namespace, one.name, one.queue, one.requests)

    def queue_of(self, gang: str) -> str:
        """Return the queue of a gang."""
        one = self._known.get(GangId(gang))
        return "" if one is None else one.queue

    def id_of(self, gang: GangId) -> GangId:
        """Return a gang's id as the object that is kept of it, so that no second one is."""
        one = self._known.get(gang)
        return gang if one is None else one.id

    def saved(self) -> dict[str, Who]:
        """Return who all are."""
        return {gang: self.who(gang) for gang in self._known}

    def restore(self, saved: dict[str, Who]) -> None:
        """Know who was saved."""
        for gang, who in saved.items():
            self._add(GangId(gang), who)

    def _add(self, gang: GangId, who: Who) -> None:
        namespace, queue = (self._words.setdefault(word, word) for word in (who.namespace, who.queue))
        requests = self._requests.setdefault(tuple(who.requests.items()), who.requests)
        self._known[gang] = _Known(self.id_of(gang), namespace, who.name, queue, requests)
