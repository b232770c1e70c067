"""What an adjustment by hand moves: an amount over a queue and what is below it, or all that one entry charged."""

from __future__ import annotations

from collections.abc import Mapping

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind
from fairlead.ledger.entry import Entry
from fairlead.ledger.prices import largest_remainder
from fairlead.model.prices import AdjustedLine, PriceTier

REASON_MAX, NOTE_MAX = 64, 1_024


def said(text: str, most: int, *, field: str) -> str:
    """Return a text that people give, without blanks around it.

    Raises
    ------
    UnreadableInput
        It is empty, too long, or has characters that cannot be printed; the message names `field`.
    """
    found = text.strip()
    if not found or len(found) > most or not found.isprintable():
        raise UnreadableInput(f"{field}: must be 1 to {most} characters that can be printed; it is {text[:80]!r}")
    return found


def divided(nanos: int, currency: str, spent: Mapping[str, int]) -> tuple[AdjustedLine, ...]:
    """Divide an amount over accounts of spending in proportion to what was spent there; the lines sum to it exactly.

    Raises
    ------
    UnreadableInput
        Nothing was spent, so there is nothing to go by.
    """
    weights = {account: amount for account, amount in sorted(spent.items()) if amount > 0}
    if not weights:
        raise UnreadableInput("--queue: nothing was spent there in that time; name a tier with --tier")
    parts = largest_remainder(nanos, list(weights.values()))
    return tuple(_line(account, part, currency) for account, part in zip(weights, parts, strict=True) if part)


def taken_back(entry: Entry) -> tuple[AdjustedLine, ...]:
    """Return the lines that take back all that an entry charged.

    Raises
    ------
    UnreadableInput
        It charged nothing.
    """
    charged = [part for part in entry.postings if accounts.parse(part.account).kind is Kind.SPEND and part.amount]
    if not charged:
        raise UnreadableInput("--entry: it charged nothing; `fairlead ledger show` says what entries did")
    return tuple(_line(part.account, -part.amount, accounts.currency_of(part.unit) or "") for part in charged)


def _line(account: str, nanos: int, currency: str) -> AdjustedLine:
    found = accounts.parse(account)
    return AdjustedLine(
        tenant=found.tenant, queue=found.queue, tier=PriceTier(found.tier), nanos=nanos, currency=currency
    )
