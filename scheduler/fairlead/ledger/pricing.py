"""What entries cost: the part of the meter that knows prices.

Held time and what is kept for a reservation is charged. What a poor placement cost of held time is given back.

Theory of operation. `hear` takes every record in the journal's order, before the meter makes entries of it; `price`
takes those entries, cuts them where their price changes, and adds what they cost. What a hold is priced by is fixed
when it is first told of (the queue's chain and the MIG profile), so what takes it back costs what it
did. The model of a device is the one it had then.

Amounts are frozen when they are posted. A price that comes later for a time that was posted already waits in `late`
until whoever has the entries answers it: `correction` is the difference, as a fact that goes through the journal and
becomes one entry. So at any time the net of all entries is what the price books say.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fairlead.ledger import accounts
from fairlead.ledger.accounts import Kind
from fairlead.ledger.entry import FORTH, PODS, TIMELINE, Entry, EntryKind, Origin, Posting, State, entry_id
from fairlead.ledger.outcomes import TOPOLOGY
from fairlead.ledger.payers import Payer, Payers
from fairlead.ledger.prices import PriceList, Rate, Terms
from fairlead.ledger.saved import SavedLate, SavedPricing
from fairlead.model.codec import Record
from fairlead.model.events import GangSeen, GrowIntended, Intended, KeptFree, NodeSeen, QueueGone, QueueSeen, Recovered
from fairlead.model.gang import GangId
from fairlead.model.prices import Adjusted, AdjustedLine, PriceBook, PriceBookGone, PriceBookSeen, PriceTier
from fairlead.model.tenancy import Queue, ancestors

RESERVATION = "reservation/"
"""How rules begin that keep devices free for who pays for them."""
LATE_PRICE = "late-price"
"""The reason of adjustments that prices make, and who is said to have made them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatePrice:
    """Prices changed for a time of which entries up to number `up_to` were posted by `before`."""

    fact: str
    at_ms: int
    from_ms: int | None
    to_ms: int | None
    up_to: int
    before: PriceList
    after: PriceList


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a piece of an interval costs a queue; `rate` is None where nothing prices it.

    `credit` is the reason for which it is given back; "" where it is charged.
    """

    tenant: str
    queue: str
    from_ms: int
    to_ms: int
    rate: Rate | None
    credit: str = ""

    @property
    def nanos(self) -> int:
        """The amount in nano-units of the rate's currency, negative where it is given back."""
        amount = 0 if self.rate is None else self.rate.nanos(self.from_ms, self.to_ms)
        return -amount if self.credit else amount

    @property
    def sku(self) -> str:
        """Who earns it, "" where it is given back."""
        return "" if self.rate is None or self.credit else self.rate.sku


HEARD = (
    NodeSeen, QueueSeen, QueueGone, GangSeen, Intended, Recovered, GrowIntended, KeptFree, PriceBookSeen, PriceBookGone,
    Adjusted,
)  # fmt: skip
"""The kinds of records that `Pricing.hear` learns from."""
_ELSE = {PriceTier.RESERVED: PriceTier.IN_QUOTA, PriceTier.OPPORTUNISTIC: PriceTier.BORROWED}
"""What a tier costs that has no price of its own: a reservation is quota, spare capacity is somebody else's."""


def tiers_for(tier: PriceTier) -> tuple[PriceTier, ...]:
    """Return the tiers by which what is held in one may be priced, the first that has a price."""
    return (tier, _ELSE[tier]) if tier in _ELSE else (tier,)


class Pricing:
    """The fold. `late` are prices whose corrections are not in the journal yet, in order."""

    def __init__(self) -> None:
        """Start without prices."""
        self.list = PriceList()
        self.late: list[LatePrice] = []
        self._books: dict[str, PriceBook] = {}
        self._entries = 0
        self._posted_to_ms: int | None = None
        self._models: dict[tuple[str, str], list[tuple[int, str]]] = {}
        self._queues: dict[str, Queue] = {}
        self._payers = Payers()
        self._kept: dict[tuple[str, str], tuple[str, ...]] = {}

    @classmethod
    def restored(cls, saved: SavedPricing, id_of: Callable[[GangId], GangId]) -> Pricing:
        """Return the prices that were saved; `id_of` a gang is the one string to keep of it."""
        pricing = cls()
        pricing._books, pricing.list = saved.books, PriceList(saved.books.values())
        pricing.late = [
            LatePrice(
                fact=late.fact, at_ms=late.at_ms, from_ms=late.from_ms, to_ms=late.to_ms, up_to=late.up_to,
                before=PriceList(late.before), after=PriceList(late.after),
            )
            for late in saved.late
        ]  # fmt: skip
        pricing._entries, pricing._posted_to_ms = saved.entries, saved.posted_to_ms
        pricing._models, pricing._queues = dict(saved.models), saved.queues
        pricing._payers.restore(saved.gangs, saved.holds, id_of)
        pricing._kept = dict(saved.kept)
        return pricing

    def saved(self) -> SavedPricing:
        """Return all that it knows."""
        late = [
            SavedLate(
                fact=one.fact, at_ms=one.at_ms, from_ms=one.from_ms, to_ms=one.to_ms, up_to=one.up_to,
                before=one.before.books, after=one.after.books,
            )
            for one in self.late
        ]  # fmt: skip
        gangs, holds = self._payers.saved()
        return SavedPricing(
            books=self._books, late=late, entries=self._entries, posted_to_ms=self._posted_to_ms,
            models=list(self._models.items()), queues=self._queues, gangs=gangs, holds=holds,
            kept=list(self._kept.items()),
        )  # fmt: skip

    def hear(self, record: Record, fact: str, cluster: str) -> tuple[Entry, ...]:
        """Take one record; return the entry of an adjustment."""
        match record:
            case NodeSeen(node=node):
                for gpu in node.machine.gpus:
                    known = self._models.setdefault((node.name, gpu.device), [])
                    if not known or known[-1][1] != gpu.model:
                        known.append((record.at_ms, gpu.model))
            case QueueSeen(queue=queue):
                self._queues[queue.name] = queue
            case QueueGone(name=name):
                self._queues.pop(name, None)
            case GangSeen(gang=gang):
                self._payers.learn(gang)
            case Intended() | Recovered() | GrowIntended():
                self._payers.open(record, self._queues)
            case KeptFree() if record.queue and record.keeper.startswith(RESERVATION):
                chain = ancestors(record.queue, self._queues) or (record.queue,)
                self._kept.setdefault((record.keeper, record.queue), chain)
            case PriceBookSeen(book=book):
                self._change({**self._books, book.name: book}, fact, record.at_ms)
            case PriceBookGone(name=name) if name in self._books:
                closed = self._books[name].closed(record.at_ms)
                self._change({**self._books, name: closed}, fact, record.at_ms)
            case Adjusted():
                self.late = [late for late in self.late if late.fact != record.refers]
                return self.count(_adjustment(record, fact, cluster))
            case _:
                pass
        return ()

    def price(self, entries: Iterable[Entry], cluster: str) -> tuple[Entry, ...]:
        """Add to entries what they cost, each cut where its price changes."""
        if not self._books:
            return self.count(tuple(entries))
        return self.count(
            tuple(
                piece
                for entry in entries
                for piece in ((entry,) if entry.kind in PODS else self._priced(entry, cluster))
            )
        )

    def count(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Note that entries are posted; every one that is has to be told, so that numbers are known."""
        self._entries += len(entries)
        for entry in entries:
            if entry.kind in TIMELINE:
                self._posted_to_ms = max(self._posted_to_ms or entry.to_ms, entry.to_ms)
        return entries

    def holding(self, now_ms: int) -> tuple[str, ...]:
        """Return the names of the books that hold now or later."""
        return tuple(book.name for book in self.list.books if book.closed(now_ms) != book)

    def charges(
        self, node: str, device: str, state: State, span: tuple[int, int], by: PriceList | None = None
    ) -> Iterator[Charge]:
        """Yield what an interval of a device costs, nothing where it is held by nobody who pays."""
        payer = self._terms(node, device, state, span[0])
        if payer is not None:
            tenant, queue, terms, credit = payer
            for begin, end, rate in (by or self.list).rates(terms, *span):
                yield Charge(tenant=tenant, queue=queue, from_ms=begin, to_ms=end, rate=rate, credit=credit)

    def charges_of(self, entry: Entry) -> Iterator[Charge]:
        """Yield what an entry costs by the prices that are known now."""
        return self.charges(entry.node, entry.device, _state(entry), (entry.from_ms, entry.to_ms))

    @property
    def models(self) -> Mapping[tuple[str, str], Sequence[tuple[int, str]]]:
        """(node, device) -> (since when, model), in order; the first holds for the time before, too."""
        return self._models

    def model_of(self, node: str, device: str, at_ms: int) -> str:
        """Return the model that a device had at a moment, "" where it was never seen."""
        models = self._models.get((node, device), ())
        return models[max(0, bisect_right(models, at_ms, key=lambda known: known[0]) - 1)][1] if models else ""

    def correction(self, late: LatePrice, posted: Iterable[Entry]) -> Adjusted:
        """Return what to post for prices that came late. `posted` are the entries of their time up to `late.up_to`."""
        lines: dict[tuple[str, str, PriceTier, str, str], int] = {}
        span: list[int] = []
        for entry in posted:
            begin = entry.from_ms if late.from_ms is None else max(entry.from_ms, late.from_ms)
            end = entry.to_ms if late.to_ms is None else min(entry.to_ms, late.to_ms)
            if entry.kind in PODS or begin >= end:
                continue
            sign = 1 if entry.kind in FORTH else -1
            state = _state(entry)
            for factor, by in ((-sign, late.before), (sign, late.after)):
                for charge in self.charges(entry.node, entry.device, state, (begin, end), by):
                    if charge.rate is not None:
                        span += (charge.from_ms, charge.to_ms)
                        rate = charge.rate
                        key = (charge.tenant, charge.queue, rate.tier, rate.currency, charge.sku)
                        lines[key] = lines.get(key, 0) + factor * charge.nanos
        return Adjusted(
            actor=LATE_PRICE,
            reason=LATE_PRICE,
            lines=tuple(
                AdjustedLine(tenant=tenant, queue=queue, tier=tier, currency=currency, sku=sku, nanos=nanos)
                for (tenant, queue, tier, currency, sku), nanos in sorted(lines.items())
                if nanos
            ),
            from_ms=min(span, default=late.at_ms),
            to_ms=max(span, default=late.at_ms),
            at_ms=late.at_ms,
            refers=late.fact,
        )

    def _change(self, books: dict[str, PriceBook], fact: str, at_ms: int) -> None:
        before, after = self.list, PriceList(books.values())
        self._books, self.list = books, after
        span = before.differs(after)
        if span is None or self._posted_to_ms is None or (span[0] is not None and span[0] >= self._posted_to_ms):
            return
        self.late.append(
            LatePrice(
                fact=fact, at_ms=at_ms, from_ms=span[0], to_ms=span[1], up_to=self._entries, before=before, after=after
            )
        )

    def _terms(self, node: str, device: str, state: State, at_ms: int) -> tuple[str, str, Terms, str] | None:
        """Return who pays for a state, tenant and queue, on which terms, and why it is given back; None: nobody pays.

        What a poor placement cost is the platform's.
        """
        account, credit = accounts.parse(state.account), ""
        if account.kind is Kind.RESERVED_IDLE:
            chain = self._kept.get((state.reason, state.actor))
            payer, tier = None if chain is None else Payer(chain), PriceTier.RESERVED_IDLE
            tenant, queue = ("", "") if chain is None else (chain[-1], chain[0])
        elif account.kind is Kind.HELD:
            payer, tier = self._payers.of(state.gang, state.attempt), PriceTier(account.tier)
            tenant, queue = account.tenant, account.queue
        elif account.kind is Kind.WASTE and account.cause == TOPOLOGY:
            payer, tier = self._payers.of(state.gang, state.attempt), PriceTier(state.reason.partition("/")[2])
            tenant, queue, credit = account.tenant, account.queue, TOPOLOGY
        else:
            return None
        if payer is None:
            return None
        terms = Terms(
            model=self.model_of(node, device, at_ms),
            mig=payer.profile(state.rank),
            chain=payer.chain,
            tiers=tiers_for(tier),
            ticks=state.ticks,
        )
        return tenant, queue, terms, credit

    def _priced(self, entry: Entry, cluster: str) -> Iterator[Entry]:
        state = _state(entry)
        charges = list(self.charges_of(entry))
        if all(charge.rate is None for charge in charges):
            yield entry
            return
        sign = 1 if entry.kind in FORTH else -1
        for charge in charges:
            piece = entry if len(charges) == 1 else _cut(entry, state, charge, cluster)
            if charge.rate is not None:
                line = AdjustedLine(
                    tenant=charge.tenant,
                    queue=charge.queue,
                    tier=charge.rate.tier,
                    sku=charge.sku,
                    currency=charge.rate.currency,
                    nanos=sign * charge.nanos,
                )
                piece = replace(piece, postings=(*piece.postings, *_postings([line], charge.credit)))
            yield piece


def _state(entry: Entry) -> State:
    return State(
        account=entry.account,
        pool=entry.pool,
        gang=entry.gang,
        namespace=entry.namespace,
        name=entry.name,
        attempt=entry.attempt,
        rank=entry.rank,
        actor=entry.actor,
        reason=entry.reason,
        ticks=abs(entry.postings[1].amount) // (entry.to_ms - entry.from_ms),
    )


def _cut(entry: Entry, state: State, charge: Charge, cluster: str) -> Entry:
    """Return the piece of an entry that a charge is of. Where the end lies is only uncertain at the end."""
    span = (charge.from_ms, charge.to_ms)
    share = charge.to_ms - charge.from_ms, entry.to_ms - entry.from_ms
    return replace(
        entry,
        id=entry_id(Origin(cluster, entry.fact, entry.at_ms), entry.kind, (entry.node, entry.device), state, span),
        from_ms=charge.from_ms,
        to_ms=charge.to_ms,
        estimated_ms=entry.estimated_ms if charge.to_ms == entry.to_ms else 0,
        postings=tuple(replace(part, amount=part.amount // share[1] * share[0]) for part in entry.postings),
    )


def _adjustment(record: Adjusted, fact: str, cluster: str) -> tuple[Entry, ...]:
    """Return the entry of an adjustment, none where it changes nothing."""
    postings = _postings(record.lines, record.reason)
    if not postings:
        return ()
    return (
        Entry(
            id=hashlib.sha256(f"{cluster}\n{EntryKind.ADJUSTMENT}\n{fact}".encode()).hexdigest(),
            kind=EntryKind.ADJUSTMENT,
            fact=fact,
            at_ms=record.at_ms,
            node="",
            device="",
            pool="",
            from_ms=record.from_ms,
            to_ms=record.to_ms,
            actor=record.actor,
            reason=f"{record.reason}: {record.note}" if record.note else record.reason,
            refers=record.refers,
            postings=postings,
        ),
    )


def _postings(lines: Iterable[AdjustedLine], reason: str) -> tuple[Posting, ...]:
    """Return both sides of every line: what a queue is charged, and who earned it."""
    sums: dict[tuple[str, str], int] = {}
    for line in lines:
        unit = accounts.money(line.currency)
        other = accounts.revenue(line.sku) if line.sku else accounts.credit(reason)
        for account, nanos in ((accounts.spend(line.tenant, line.queue, line.tier), line.nanos), (other, -line.nanos)):
            sums[unit, account] = sums.get((unit, account), 0) + nanos
    return tuple(Posting(account=account, amount=nanos, unit=unit) for (unit, account), nanos in sums.items() if nanos)
