"""Do the books verify? Every entry by itself, the chain, and the whole timeline against the journal.

`audit` reads journal rows and entries once each, in order, and trusts nothing in them. It proves, per device and
account, that the net of all entries is what the sweep finds in the journal, and so that in every pool

    capacity × time = held + reserved-idle + stranded + free + down + unmanaged

in ticks, exactly, up to where each device is posted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

from fairlead.errors import UnreadableInput
from fairlead.ledger import accounts
from fairlead.ledger.accounts import BESIDE, MONEY_KINDS, TICKS, Account, Kind
from fairlead.ledger.audit_adjustments import due_of, misbooked
from fairlead.ledger.audit_money import MoneyAudit
from fairlead.ledger.audit_pods import beside_in, in_words, wrong_pod
from fairlead.ledger.chain import Head, Sealed, link
from fairlead.ledger.entry import FORTH, OUTCOMES, PODS, TIMELINE, Entry, EntryKind, entry_bytes, id_of, unbalanced
from fairlead.ledger.records import Finding, JournalRow, check_row
from fairlead.ledger.sweep import Sweep, word
from fairlead.ledger.sweep_use import Span, What
from fairlead.model.prices import Adjusted
from fairlead.units import TICKS_PER_GPU_MS

MAX_FINDINGS = 20
_BROKEN = "the chain breaks: this entry or its place was changed"


@dataclass(slots=True, kw_only=True)
class Audit:
    """What was looked at and what was found. No findings: the books verify.

    `balances` is account -> ticks, `beside` unit -> account -> amount of what pods had beside devices, `money` currency
    -> account -> nano-units.
    """

    records: int = 0
    entries: int = 0
    devices: int = 0
    head: Head = field(default_factory=Head)
    journal_head: Head = field(default_factory=Head)
    newest_ms: int | None = None
    balances: dict[str, int] = field(default_factory=dict[str, int])
    beside: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    money: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def verified(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_data(self) -> dict[str, Any]:
        """Return it as plain data for JSON; the first finding is the one to look at."""
        return {**asdict(self), "verified": self.verified, "findings": [asdict(f) for f in self.findings]}

    def add(self, finding: Finding) -> None:
        """Note a finding, up to `MAX_FINDINGS`."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)


_Booked = list[tuple[int, int, int, What, int]]
"""(from_ms, to_ms, +1 or -1, what, entry number)."""
_Edges = dict[tuple[str, str, bool], _Booked]
"""By node, device, and whether it is about what became of what was held."""
_Pods = dict[tuple[str, str, int, int], _Booked]
"""By node, gang, attempt and rank."""


def audit(cluster: str, rows: Iterable[JournalRow], entries: Iterable[Sealed]) -> Audit:
    """Verify the books of `cluster`. Rows and entries come in order of their numbers."""
    found = Audit()
    sweep, money = Sweep(), MoneyAudit(cluster)
    facts: dict[str, tuple[int, int]] = {}
    adjusted: dict[str, Adjusted] = {}
    broken: dict[str, int] = {}
    for row in rows:
        record, problem = check_row(row, found.journal_head)
        found.records, found.journal_head = found.records + 1, Head(row.number, row.hash)
        facts[row.id] = (row.number, row.at_ms)
        if problem is not None:
            broken[row.id] = row.number
            found.add(problem)
        if record is not None:
            sweep.read(record)
            money.note(row.number, row.id, record)
        if isinstance(record, Adjusted):
            adjusted[row.id] = record
    intervals: _Edges = {}
    pods: _Pods = {}
    for sealed in entries:
        problems = list(_check_entry(cluster, sealed, found, facts, broken))
        if not problems:
            fact = sealed.entry.fact
            is_adjustment = sealed.entry.kind is EntryKind.ADJUSTMENT
            wrong = (
                misbooked(sealed.entry, adjusted.pop(fact, None))
                if is_adjustment
                else money.wrong(sealed.entry, facts[fact][0])
            )
            problems = [Finding(entry=sealed.number, field=name, message=message) for name, message in wrong]
        found.entries += 1
        found.head = Head(sealed.number, sealed.hash)
        if problems:
            found.add(problems[0])
            continue
        entry = sealed.entry
        for part in entry.postings:
            sums = _sums_of(found, part.unit)
            sums[part.account] = sums.get(part.account, 0) + part.amount
        if entry.kind is EntryKind.ADJUSTMENT:
            continue
        booked = (entry.from_ms, entry.to_ms, 1 if entry.kind in FORTH else -1, _what(entry), sealed.number)
        if entry.kind in PODS:
            pods.setdefault((entry.node, entry.gang, entry.attempt, entry.rank), []).append(booked)
        else:
            intervals.setdefault((entry.node, entry.device, entry.kind in OUTCOMES), []).append(booked)
    for fact, said in adjusted.items():
        if due_of(said):
            found.add(Finding(record=facts[fact][0], field="lines", message="no entry books what was adjusted"))
    found.newest_ms = sweep.newest
    if not found.findings:
        _compare(found, sweep, intervals)
        _compare_pods(found, sweep, pods)
    found.findings.sort(key=lambda f: [inf if number is None else number for number in (f.entry, f.record)])
    return found


def explain(cluster: str, sealed: Sealed, head: Head, facts: dict[str, tuple[int, int]]) -> Finding:
    """Say what is wrong with an entry that does not follow on `head`; `facts` maps its fact to (number, at_ms)."""
    problems = _check_entry(cluster, sealed, Audit(head=head), facts, {})
    return next(problems, Finding(entry=sealed.number, field="hash", message=_BROKEN))


def _check_entry(
    cluster: str, sealed: Sealed, found: Audit, facts: dict[str, tuple[int, int]], broken: dict[str, int]
) -> Iterator[Finding]:
    """Yield what is wrong with an entry taken by itself, the most telling first."""
    entry, number = sealed.entry, sealed.number
    if number != found.head.number + 1:
        yield Finding(
            entry=number, field="number", message=f"{found.head.number + 1} should come here: entries are missing"
        )
    for name, message in _check_fields(entry):
        yield Finding(entry=number, field=name, message=message)
        return
    if entry.fact in broken:
        record = broken[entry.fact]
        yield Finding(entry=number, record=record, field="fact", message=f"journal record {record} below it is broken")
    elif entry.fact not in facts:
        yield Finding(entry=number, field="fact", message=f"the journal has no record {entry.fact}")
    elif facts[entry.fact][1] != entry.at_ms:
        yield Finding(entry=number, field="at_ms", message=f"is {entry.at_ms}, its fact says {facts[entry.fact][1]}")
    if entry.kind is not EntryKind.ADJUSTMENT and _id_due(cluster, entry) != entry.id:
        yield Finding(entry=number, field="id", message="is not made from what the entry says")
    if link(found.head.hash, number, entry_bytes(entry)) != sealed.hash:
        yield Finding(entry=number, field="hash", message=_BROKEN)


def _check_fields(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong) for what an entry must say whatever the facts."""
    numbers = ("at_ms", "from_ms", "to_ms", "attempt", "rank", "estimated_ms")
    texts = ("id", "fact", "node", "device", "pool", "gang", "namespace", "name", "actor", "reason", "refers")
    for name in (*numbers, *texts):
        value = getattr(entry, name)
        if not isinstance(value, int if name in numbers else str):
            yield name, f"is {value!r}, which is no {'integer' if name in numbers else 'text'}"
            return
    if entry.kind not in tuple(EntryKind):
        yield "kind", f"is {entry.kind!r}"
    if entry.kind in (*TIMELINE, *OUTCOMES):
        yield from _check_timeline(entry)
    elif entry.kind in PODS:
        yield from wrong_pod(entry)
    elif entry.from_ms > entry.to_ms:
        yield "to_ms", f"is {entry.to_ms}, before from_ms {entry.from_ms}"
    yield from _check_postings(entry)


def _check_postings(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the lines of any entry: their accounts, their units, and that each unit sums to zero."""
    if len(entry.postings) < 2:
        yield "postings", f"there are {len(entry.postings)}, not 2 or more"
    for line, part in enumerate(entry.postings):
        if type(part.amount) is not int:
            yield f"postings[{line}].amount", f"is {part.amount!r}, which is no integer"
            return
        try:
            account, is_money = accounts.parse(part.account), accounts.currency_of(part.unit) is not None
        except (UnreadableInput, AttributeError) as error:
            yield f"postings[{line}].account", str(error)
            continue
        if is_money != (account.kind in MONEY_KINDS) or (entry.kind in PODS) != (part.unit in BESIDE):
            yield f"postings[{line}].unit", f"{part.account} has no {part.unit}"
    for unit, amount in unbalanced(entry.postings).items():
        yield "postings", f"{unit} sum to {amount}, not to zero"


def _check_timeline(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with what an entry says of its device: from capacity to one account, so long, so much."""
    if entry.from_ms >= entry.to_ms:
        yield "to_ms", f"is {entry.to_ms}, not after from_ms {entry.from_ms}"
    ours = [part for part in entry.postings if part.unit == TICKS]
    if len(ours) != 2 or tuple(ours) != entry.postings[:2]:
        yield "postings", f"there are {len(ours)} in ticks, not the first 2"
        return
    ticks = (entry.to_ms - entry.from_ms) * _per_ms(entry) * (1 if entry.kind in FORTH else -1)
    for line, (part, due) in enumerate(zip(ours, (-ticks, ticks), strict=True)):
        try:
            account = accounts.parse(part.account)
        except (UnreadableInput, AttributeError) as error:
            yield f"postings[{line}].account", str(error)
            continue
        if not _belongs(entry, account, line):
            yield f"postings[{line}].account", f"{part.account} does not belong on this line"
        elif account.pool and account.pool != entry.pool:
            yield f"postings[{line}].account", f"{part.account} is not of pool {entry.pool}"
        if type(part.amount) is not int or part.amount != due:
            yield f"postings[{line}].amount", f"is {part.amount!r}, must be {due}"


def _id_due(cluster: str, entry: Entry) -> str:
    if entry.kind in PODS:
        return id_of(cluster, entry, 0, beside_in(entry))
    return id_of(cluster, entry, _per_ms(entry))


def _per_ms(entry: Entry) -> int:
    """Return the part of its device that an entry is of, all of it where its ticks are no part that could be."""
    ticks, span = entry.postings[1].amount, entry.to_ms - entry.from_ms
    whole = type(ticks) is int and ticks % span == 0 and 0 < abs(ticks) // span <= TICKS_PER_GPU_MS
    return abs(ticks) // span if whole else TICKS_PER_GPU_MS


def _what(entry: Entry) -> What:
    who = (entry.account, entry.pool, entry.gang, entry.attempt, entry.rank, entry.namespace, entry.name)
    if entry.kind in PODS:
        return (*who, 0, entry.actor, in_words(entry))
    return (*who, _per_ms(entry), entry.actor, entry.reason)


def _belongs(entry: Entry, account: Account, line: int) -> bool:
    """Whether an account may stand on one of the first two lines of an entry about a device."""
    if entry.kind in TIMELINE:
        return account.kind not in (Kind.USE, Kind.WASTE) and (account.kind is Kind.CAPACITY) == (line == 0)
    other = account.kind is Kind.USE and account.use == "unmeasured"
    return account.kind in (Kind.USE, Kind.WASTE) and other == (line == 0)


def _compare(found: Audit, sweep: Sweep, intervals: _Edges) -> None:
    """Hold the net of all entries of every device against what the journal says it was in, and what became of it."""
    expected: dict[str, int] = {}
    for node, device, spans, became in sweep.spans():
        found.devices += 1
        for about, line in ((False, spans), (True, became)):
            booked = intervals.pop((node, device, about), [])
            until = _until(found, booked, line, sweep.last_cut)
            for finding in _compare_device(f"{node}/{device}", line, booked, until):
                found.add(finding)
                break
            _expect(expected, line, until)
    for (node, device, _), strays in sorted(intervals.items()):
        found.add(Finding(entry=strays[0][4], field="device", message=f"no fact ever named {node}/{device}"))
    for account in sorted({*expected, *found.balances}):
        due, is_ = expected.get(account, 0), found.balances.get(account, 0)
        if due != is_:
            found.add(Finding(field=account, message=f"its balance is {is_} ticks; the journal says {due}"))


def _compare_pods(found: Audit, sweep: Sweep, booked: _Pods) -> None:
    """Hold the net of all entries of every pod against what the journal says that it had beside devices."""
    for key in sorted({*sweep.pods, *booked}):
        entries, line = booked.get(key, []), sweep.pods.get(key, [])
        until = _until(found, entries, line, sweep.last_cut)
        for finding in _compare_device(f"pod {key[3]} of {key[1]} on {key[0]}", line, entries, until):
            found.add(finding)
            break


def _until(found: Audit, booked: _Booked, line: list[Span], cut: int | None) -> int:
    """Return up to where to compare: the last end, change or cut. No entry may end after the newest record."""
    until = max([*(to for _, to, _, _, _ in booked), *(begin for begin, _ in line), cut or 0])
    if found.newest_ms is not None and until > found.newest_ms:
        last = max(number for _, to, _, _, number in booked if to == until)
        found.add(Finding(entry=last, field="to_ms", message=f"is {until}, after the newest record"))
    return until


def _sums_of(found: Audit, unit: str) -> dict[str, int]:
    """Return the balances of a unit."""
    currency = accounts.currency_of(unit)
    if currency is not None:
        return found.money.setdefault(currency, {})
    return found.balances if unit == TICKS else found.beside.setdefault(unit, {})


def _expect(expected: dict[str, int], line: list[Span], until: int) -> None:
    """Add what a device's entries must sum to, account by account."""
    for at, (begin, parts) in enumerate(line):
        end = min(line[at + 1][0] if at + 1 < len(line) else until, until)
        for what in parts if begin < end else ():
            ticks = (end - begin) * what[7]
            for account, amount in ((what[0], ticks), (_other_side(what), -ticks)):
                expected[account] = expected.get(account, 0) + amount


def _other_side(what: What) -> str:
    kind, *parts = what[0].split(":")
    if kind == "use":
        return f"use:{parts[0]}:{parts[1]}:unmeasured"
    return f"use:{parts[1]}:{parts[2]}:unmeasured" if kind == "waste" else f"capacity:{word(what[1])}"


def _compare_device(device: str, spans: list[Span], booked: _Booked, until: int) -> Iterator[Finding]:
    """Sweep the edges of both; yield where they differ."""
    edges: dict[int, list[tuple[What, int]]] = {}
    for begin, end, sign, what, _ in booked:
        edges.setdefault(begin, []).append((what, sign))
        edges.setdefault(end, []).append((what, -sign))
    due_at = dict(spans)
    net: dict[What, int] = {}
    due: tuple[What, ...] = ()
    moments = sorted({*edges, *due_at, until})
    for now, then in pairwise(moments):
        due = due_at.get(now, due)
        for what, sign in edges.get(now, ()):
            net[what] = net.get(what, 0) + sign
        there = {what: count for what, count in net.items() if count}
        if now >= until or there == dict.fromkeys(due, 1):
            continue
        numbers = [n for a, b, _, what, n in booked if a < then and b > now and what in there and what not in due]
        twice = [n for a, b, _, what, n in booked if a < then and b > now and what in due]
        said = ", ".join(f"{count} × {_text(what)}" for what, count in sorted(there.items())) or "nothing"
        truth = " and ".join(_text(what) for what in due) or "that it was not in the fleet"
        yield Finding(
            entry=min(numbers) if numbers else max(twice, default=None),
            field="account",
            message=f"{device} from {now} to {then}: booked {said}; the journal says {truth}",
        )


def _text(what: What) -> str:
    part = "" if what[7] == TICKS_PER_GPU_MS else f" for {what[7]} of {TICKS_PER_GPU_MS} ticks"
    part += f" for {what[8] or 'nobody'} by {what[9]}" if what[9] else ""
    return what[0] + (f" by {what[5]}/{what[6]} attempt {what[3]} rank {what[4]}" if what[2] else "") + part
