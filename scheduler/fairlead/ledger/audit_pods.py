"""The auditor's look at entries about pods: each by itself. How they net is compared with `Sweep.pods`."""

from __future__ import annotations

from collections.abc import Iterator

from fairlead.ledger.accounts import BESIDE
from fairlead.ledger.entry import FORTH, Amounts, Entry
from fairlead.ledger.sweep import word


def beside_in(entry: Entry) -> Amounts:
    """Return what an entry of some time says that a pod had a ms, of every second posting; 0 where it is not whole."""
    time = entry.to_ms - entry.from_ms
    said = [(part.unit, part.amount) for part in entry.postings[1::2]]
    return tuple((unit, abs(amount) // time if amount % time == 0 else 0) for unit, amount in said)


def in_words(entry: Entry) -> str:
    """Return the same as `Sweep` says it."""
    return " ".join(f"{amount} {unit}" for unit, amount in beside_in(entry))


def wrong_pod(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield (field, what is wrong) of an entry about a pod: pairs of postings, each from capacity to a queue."""
    if entry.from_ms >= entry.to_ms:
        yield "to_ms", f"is {entry.to_ms}, not after from_ms {entry.from_ms}"
        return
    if entry.device or not entry.gang:
        yield "device", f"is {entry.device!r} of gang {entry.gang!r}; an entry about a pod is of a gang and no device"
    for line, part in enumerate(entry.postings):
        said = (type(part.account), type(part.amount), type(part.unit))
        if said != (str, int, str):
            yield f"postings[{line}]", f"is {part.account!r}, {part.amount!r}, {part.unit!r}"
            return
    units = [part.unit for part in entry.postings]
    if units[::2] != units[1::2] or units[::2] != [unit for unit in BESIDE if unit in units]:
        yield "postings", f"are in {', '.join(units)}; they come in pairs of one unit, each unit once and in its order"
        return
    pair = (f"capacity:{word(entry.pool)}", entry.account)
    if not entry.account.startswith("held:"):
        yield "postings[1].account", f"{entry.account} does not belong on this line"
    sign = (entry.to_ms - entry.from_ms) * (1 if entry.kind in FORTH else -1)
    for at, (unit, each) in enumerate(beside_in(entry)):
        for line, due in ((2 * at, -sign * each), (2 * at + 1, sign * each)):
            part = entry.postings[line]
            if part.account != pair[line % 2]:
                yield f"postings[{line}].account", f"is {part.account}, must be {pair[line % 2]}"
            if not each or part.amount != due:
                yield f"postings[{line}].amount", f"is {part.amount!r} {unit}, must be {due or 'more than nothing'}"
