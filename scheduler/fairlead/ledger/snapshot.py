"""A meter as bytes and back, so that books which were kept for years need not be replayed from their first record.

A snapshot is derived: it says nothing that a replay of the journal up to its record would not, and whoever doubts one
deletes it. `FORM` changes whenever what is written looks otherwise, so that no other release's bytes are misread; then
the journal is replayed, unless the form before is among the `READABLE`.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import msgspec

from fairlead.errors import UnreadableInput
from fairlead.ledger.meter import Meter
from fairlead.ledger.saved import SavedMeter

_MEANING = 1
"""To be raised where the same fields come to mean something else."""
_LEVEL = 1  # states and names repeat, so the fastest level is nearly as small as the best


def freeze(meter: Meter) -> bytes:
    """Return all that a meter knows."""
    return zlib.compress(msgspec.msgpack.encode(meter.saved()), _LEVEL)


def thaw(data: bytes, cluster: str) -> Meter:
    """Return the meter that `freeze` wrote, which goes on as that one would have.

    Raises
    ------
    UnreadableInput
        These are no such bytes.
    """
    try:
        saved = msgspec.msgpack.decode(zlib.decompress(data), type=SavedMeter)
        return Meter.restored(cluster, saved)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError, LookupError) as error:
        raise UnreadableInput(f"not a snapshot of the books: {error}") from error


def _bare(schema: Any) -> Any:
    """Return a schema without its descriptions: another wording is no other form."""
    match schema:
        case dict():
            return {key: _bare(value) for key, value in schema.items() if key != "description"}
        case list():
            return [_bare(value) for value in schema]
        case _:
            return schema


def _form() -> str:
    fields = msgspec.json.encode(_bare(msgspec.json.schema(SavedMeter)), order="deterministic")
    return hashlib.sha256(b"%d\n" % _MEANING + fields).hexdigest()


FORM = _form()
"""What the bytes look like, as a SHA-256."""
READABLE = (FORM, "9504ff762cb48779175e7c62a4783f99ce90c3e0214a9c79ab93d57d9483da56")
"""`FORM`, and those before it that lack only fields with a default: `thaw` reads them."""
