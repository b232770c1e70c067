"""Compare the holds that are open in the books with a list of the cluster's pods and claims, by hand.

The operator does this every minute by what it watches. This is for when it does not run, or for whoever wants to see
it: the same comparison (`drift.py`), with the bound pods of the list in the place of what the scheduler knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from fairlead.errors import UnreadableInput
from fairlead.model import codec
from fairlead.model.events import EndedUnseen, GrowIntended, Intended, MemberReleased, MemberRunning, Recovered
from fairlead.model.hardware import NodeName
from fairlead.model.labels import GANG_UID, member_in
from fairlead.service.drift import Differences, differences, ended
from fairlead.service.ports import Hold
from fairlead.store import engine as database
from fairlead.store import journal, snapshots
from fairlead.units import utc_text
from fairlead.world.gangs import Hold as Held
from fairlead.world.use import Use

SETTLED_MS = 600_000
"""A hold is told of before its pod is bound; within this time the pod may still come, or the gang be torn down."""
COMMAND = f"kubectl get pods,resourceclaims -A -l {GANG_UID} -o json"
_SAYS_SO = (Intended, Recovered, GrowIntended, MemberRunning)


class _Owner(msgspec.Struct, frozen=True):
    kind: str = ""
    uid: str = ""


class _Meta(msgspec.Struct, frozen=True, rename="camel"):
    labels: dict[str, str] = {}
    owner_references: list[_Owner] = []


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_name: str = ""
    resource_claims: list[object] = []


class _Status(msgspec.Struct, frozen=True):
    phase: str = ""
    allocation: object = None


class _Object(msgspec.Struct, frozen=True):
    kind: str = ""
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _Listed(msgspec.Struct, frozen=True):
    items: list[_Object]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a list of pods and claims says at `at_ms`: bound pods that are not over, and claims that hold devices."""

    bound: Mapping[Hold, Held]
    allocated: frozenset[Hold]
    at_ms: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How books and cluster differ. `since_ms` has of each hold that only the books have open when it last went on.

    Those of `young` began so shortly before the list that their pods may still have been on their way.
    """

    found: Differences
    since_ms: Mapping[Hold, int]
    young: frozenset[Hold]

    @property
    def over(self) -> tuple[Hold, ...]:
        """The holds that have ended, which nobody told the books; sorted."""
        return tuple(sorted(self.since_ms.keys() - self.young))

    def facts(self, at_ms: int, actor: str) -> tuple[EndedUnseen | MemberReleased, ...]:
        """Return what ends them in the books."""
        evidence = f"open in the books; a list of {utc_text(at_ms)} has no bound pod and no claim of it ({actor})"
        return ended({hold: self.since_ms[hold] for hold in self.over}, evidence, at_ms) if self.over else ()


def read_list(data: bytes, at_ms: int, *, name: str) -> Cluster:
    """Read what `COMMAND` prints.

    Raises
    ------
    UnreadableInput
        It is no such list; the text says what is wrong and how to make one.
    """
    how = f"make it with `{COMMAND}`"
    try:
        listed = msgspec.json.decode(data, type=_Listed)
    except msgspec.DecodeError as error:
        raise UnreadableInput(f"{name}: {error}; {how}") from None
    if not listed.items:
        raise UnreadableInput(f"{name}: items is empty, so every hold would have ended; {how}")
    bound: dict[Hold, Held] = {}
    allocated: set[Hold] = set()
    for number, item in enumerate(listed.items):
        if item.kind not in ("Pod", "ResourceClaim"):
            raise UnreadableInput(f"{name}: items[{number}].kind: is {item.kind!r}; {how}")
        owners = [(owner.kind, owner.uid) for owner in item.metadata.owner_references]
        member = member_in(item.metadata.labels, owners)
        if member is None:
            continue
        if item.kind == "ResourceClaim":
            allocated |= {member} if item.status.allocation is not None else set()
        elif item.spec.node_name and item.status.phase not in ("Succeeded", "Failed"):
            devices = ("its claim's",) if item.spec.resource_claims else ()
            node = NodeName(item.spec.node_name)
            bound[member] = Held(node=node, use=Use(devices=devices), queue="", since_ms=at_ms)
    return Cluster(bound, frozenset(allocated), at_ms)


def compare(engine: database.Engine, cluster: Cluster) -> Comparison:
    """Compare what is open after a replay of the journal; reads only. Raises BooksDoNotVerify, Unreachable."""
    with database.reading(engine) as connection:
        meter = snapshots.current(connection)
        nodes = {held.node for held in cluster.bound.values()}
        found = differences(cluster.bound, nodes, meter.open_holds(), cluster.allocated)
        since_ms = {
            hold: max(_said(connection, hold), default=cluster.at_ms) for hold in found.only_books - cluster.allocated
        }
    young = frozenset(hold for hold, since in since_ms.items() if cluster.at_ms - since < SETTLED_MS)
    return Comparison(found, since_ms, young)


def _said(connection: database.Connection, hold: Hold) -> Iterator[int]:
    """Yield the times of all facts that say of a hold's attempt that it went on then."""
    for row in journal.of_subject(connection, hold[0], [kind.__name__ for kind in _SAYS_SO]):
        record = codec.decode(row.payload)
        assert isinstance(record, _SAYS_SO), record
        if record.attempt == hold[1]:
            yield record.at_ms
