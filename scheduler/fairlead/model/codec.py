"""Facts as bytes and back: canonical JSON, so that the same fact has the same bytes and the same id everywhere.

Object keys are sorted, there are no floats and no spaces, a reason is its token. A record of the journal is a fact or a
`Cut`. Bytes that were written once must stay readable: a new field of an event needs a default, a field is never
renamed. What journals have already must also get the same bytes again, because its id is made of them: a field that
came after the first version is left out where it has its default.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from typing import Any, get_args, get_type_hints

import msgspec

from fairlead.errors import UnreadableInput
from fairlead.model import events
from fairlead.model.events import Event
from fairlead.model.reasons import BY_TOKEN, Refusal
from fairlead.model.reservation import DurationsLearned, ReservationGone, ReservationSeen
from fairlead.model.standings import Standings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A line through the books: every open segment is posted up to `at_ms` (UTC ms) and goes on.

    It is no fact about the world and changes no state, but it is journaled, so that a replay of the journal makes the
    same entries.
    """

    at_ms: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A fact that an earlier process journaled already was told to this one too; `fact` is its id.

    It changes nothing in the books. A replay of this process's decisions needs to know when it came.
    """

    fact: str
    at_ms: int


Record = Event | Cut | Again | Standings
"""What a journal holds."""

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (*get_args(events.Event), Cut, Again, Standings)}
"""Tag -> class, of everything that can be written."""

_REFUSAL_FIELDS = {
    name: next((field.name for field in dataclasses.fields(kind) if field.name in ("refusal", "cause")), "")
    for name, kind in KINDS.items()
}
_ENCODER = msgspec.json.Encoder(order="sorted")
_LATER = (
    b'"slowed_permille":0,', b'"meter":0,', b'"idle_milli":0,', b'"unplaced":[],', b'"idle":null,',
    b'"costs":[],', b'"fixed":[],', b'"on_cost_anomaly":"notify",', b'"acknowledged":null,',
)  # fmt: skip
"""Fields with their defaults, as they are left out; quotes in a text are escaped, so it is never one of these."""


def encode(record: Record) -> bytes:
    """Return the canonical bytes of a fact or cut; equal records give equal bytes."""
    kind = type(record).__name__
    at = _REFUSAL_FIELDS[kind]
    body: Any = record
    if at:
        body = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
        refusal: Refusal = body[at]
        body[at] = {"reason": refusal.reason.token, "details": refusal.details}
    data = _ENCODER.encode({"kind": kind, "fact": body})
    for unsaid in _LATER:
        data = data.replace(unsaid, b"")
    return data


def decode(data: bytes | str) -> Record:
    """Read what `encode` wrote.

    Raises
    ------
    UnreadableInput
        The bytes are no record; the text says where they go wrong.
    """
    try:
        tagged = msgspec.json.decode(data, type=_Tagged)
        kind = KINDS.get(tagged.kind)
        if kind is None:
            raise UnreadableInput(f"kind: {tagged.kind!r} is no kind of fact that this version knows")
        at = _REFUSAL_FIELDS[tagged.kind]
        if not at:
            return _decoder(tagged.kind).decode(tagged.fact)  # type: ignore[no-any-return]
        return _with_refusal(kind, at, msgspec.json.decode(tagged.fact, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UnreadableInput(f"not a record of the journal: {error}") from error


def fact_id(data: bytes) -> str:
    """Return the id of a record with these canonical bytes: their SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def subject(record: Record) -> str:
    """Return whom a record is about: a gang's uid, or the name of a node, queue or pool; "" for a cut."""
    match record:
        case events.NodeSeen():
            return record.node.name
        case (
            events.NodeGone()
            | events.NodeLost()
            | events.NodeUsed()
            | events.ForeignDevices()
            | events.DevicesCounted()
        ):
            return record.name
        case events.QueueSpent() | events.CostAlarmed():
            return record.queue
        case events.PriceBookSeen():
            return record.book.name
        case events.PriceBookGone():
            return record.name
        case events.QueueSeen():
            return record.queue.name
        case events.PoolSeen():
            return record.pool.name
        case events.ExceptionSeen():
            return record.exception.name
        case events.PolicySeen():
            return record.policy.name
        case events.QueueGone() | events.PoolGone() | events.ExceptionGone() | events.PolicyGone():
            return record.name
        case events.GangSeen():
            return record.gang.id
        case ReservationSeen():
            return record.reservation.name
        case ReservationGone():
            return record.name
        case DurationsLearned():
            return record.queue
        case events.KeptFree():
            return record.keeper
        case (
            Cut()
            | Again()
            | Standings()
            | events.EndedUnseen()
            | events.Adjusted()
            | events.Started()
            | events.Decided()
            | events.SwitchesSet()
            | events.BooksFull()
        ):
            return ""
        case _:
            return record.gang


class _Tagged(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    fact: msgspec.Raw


class _Reasoned(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    details: tuple[tuple[str, str | int], ...]


@functools.cache
def _decoder(name: str) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(KINDS[name])


@functools.cache
def _hints(name: str) -> dict[str, Any]:
    return get_type_hints(KINDS[name])


def _with_refusal(kind: type[Any], at: str, raw: dict[str, msgspec.Raw]) -> Record:
    reasoned = msgspec.json.decode(raw.pop(at), type=_Reasoned)
    reason = BY_TOKEN.get(reasoned.reason)
    if reason is None:
        raise UnreadableInput(f"{at}.reason: {reasoned.reason!r} is no reason that this version knows")
    hints = _hints(kind.__name__)
    values = {name: msgspec.json.decode(value, type=hints[name]) for name, value in raw.items()}
    return kind(**values, **{at: Refusal(reason, reasoned.details)})  # type: ignore[no-any-return]
