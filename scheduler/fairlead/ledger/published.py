"""What is published of the books outside their database: the ends of their chains, as fields of a ConfigMap.

Who writes it and who compares it with the books later use the same names, which are here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from fairlead.errors import UnreadableInput
from fairlead.ledger.chain import Head
from fairlead.ledger.periods import Step

NAME = "fairlead-chain-head"
COMMAND = f"kubectl get configmap {NAME} -o json"
_DIGITS_MAX = 18  # what a database's integer holds
_HASH = re.compile(r"[0-9a-f]{64}")


class Fields(NamedTuple):
    """Under which names the end of a chain stands in the ConfigMap."""

    number: str
    hash: str


ENTRIES = Fields("number", "hash")
STEPS = Fields("periodNumber", "periodHash")
JOURNAL = Fields("journalNumber", "journalHash")
PERIOD = "period"


@dataclass(frozen=True, slots=True)
class Published:
    """The ends of the chain of entries, of that of period steps, and of the journal's, None where it is not known.

    `period` says what the last step was: a period and the state that it came to, "" where there was no step yet.
    """

    entries: Head
    steps: Head | None = None
    period: str = ""
    journal: Head | None = None

    @property
    def ends(self) -> dict[Fields, Head]:
        """What is known of each chain."""
        all_of_them = {ENTRIES: self.entries, STEPS: self.steps, JOURNAL: self.journal}
        return {fields: head for fields, head in all_of_them.items() if head is not None}

    def to_data(self) -> dict[str, str]:
        """Return it as fields of the ConfigMap; what is not known has none."""
        data: dict[str, str] = {}
        for fields, head in self.ends.items():
            data |= {fields.number: str(head.number), fields.hash: head.hash}
        return data if self.steps is None else data | {PERIOD: self.period}


def with_step(entries: Head, step: Step | None, journal: Head | None = None) -> Published:
    """Return what is to be published of the chains; `step` is the last one, None where there is none yet."""
    if step is None:
        return Published(entries, Head(), journal=journal)
    return Published(entries, Head(step.number, step.hash), f"{step.period} {step.state}", journal)


def decimal(text: str) -> int | None:
    """Return the number that a field says, None where it says none that could be."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX else None


class _ConfigMap(msgspec.Struct):
    data: dict[str, str]


def read_config_map(content: bytes, *, name: str) -> Published:
    """Read what `COMMAND` prints; `name` is what messages call it.

    Raises
    ------
    UnreadableInput
        It is no such ConfigMap; the text names the field and how to make the file.
    """
    try:
        data = msgspec.json.decode(content, type=_ConfigMap).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableInput(f"{name}: {error}; {_HOW}") from None
    return from_data(data, name=name)


def from_data(data: Mapping[str, str], *, name: str) -> Published:
    """Read the fields of the ConfigMap. Raises UnreadableInput as `read_config_map` does."""
    steps, journal = (_head(data, fields, name) if data.keys() & set(fields) else None for fields in (STEPS, JOURNAL))
    return Published(_head(data, ENTRIES, name), steps, data.get(PERIOD, "") if steps else "", journal)


_HOW = f"make it with `{COMMAND}` in the operator's namespace"


def _head(data: Mapping[str, str], fields: Fields, name: str) -> Head:
    for field in fields:
        if field not in data:
            raise UnreadableInput(f"{name}: data.{field} is missing; {_HOW}")
    said, digest = data[fields.number], data[fields.hash]
    number = decimal(said)
    if number is None:
        raise UnreadableInput(f"{name}: data.{fields.number}: {said!r} is no decimal number; {_HOW}")
    if not _HASH.fullmatch(digest):
        raise UnreadableInput(f"{name}: data.{fields.hash}: {digest!r} is no SHA-256 of 64 hex digits; {_HOW}")
    return Head(number, digest)
