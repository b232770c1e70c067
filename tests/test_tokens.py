"""What tokens cost: numbers by hand, sums that are exact whatever is divided, peaks where clocks change."""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from priced_books import BEGIN as T0
from priced_books import EUR, HOUR, NANO, TICKS, posting, segment, split

from fairlead.errors import UnreadableInput
from fairlead.ledger.entry import Entry, EntryKind
from fairlead.ledger.periods import clipped
from fairlead.reports.token_counts import Count, TokenClass
from fairlead.reports.tokens import NO_COUNTS, WEIGHTS, Cell, Paid, Terms, divided
from fairlead.timezones import window_of

PROMPT, ANSWER = TokenClass("prompt", "no", "short"), TokenClass("completion", "no", "short")
CACHED, LONG = TokenClass("prompt", "yes", "short"), TokenClass("completion", "no", "long")
PLAIN = Terms(weights=dict.fromkeys(WEIGHTS, NANO))


def count(hours: tuple[float, float], of: TokenClass, within: int, beyond: int = 0, **more: Any) -> Count:
    begin, end = (T0 + int(hour * HOUR) for hour in hours)
    return Count(**{"line": 1, "gang": "g1", "from_ms": begin, "to_ms": end, "of": of, "within": within,
                    "beyond": beyond, **more})  # fmt: skip


def held(hours: tuple[int, int], cost: int = 0, queue: str = "vision") -> Entry:
    return segment(hours, f"held:lab:{queue}:in-quota", cost, gang="g1")


def of_hours(entries: list[Entry], rows: list[Count], terms: Terms = PLAIN, hours: tuple[int, int] = (0, 10)) -> Any:
    return divided(entries, rows, terms, (T0 + hours[0] * HOUR, T0 + hours[1] * HOUR))


def euros(found: dict[Any, Cell], **_: Any) -> dict[Any, Fraction]:
    """What each class cost, over all else."""
    sums: dict[Any, Fraction] = {}
    for key, cell in found.items():
        sums[key.of] = sums.get(key.of, Fraction(0)) + Fraction(cell.money.get("EUR", 0), NANO)
    return sums


def test_the_default_weights_divide_where_nobody_measured() -> None:
    rows = [count((0, 2), PROMPT, 600), count((0, 2), ANSWER, 100, 50), count((0, 2), CACHED, 2_000)]
    # 600 x 1, 150 x 4 and 2,000 x 0.1 are 1,400
    found = of_hours([held((0, 2), 14)], rows, Terms())
    assert euros(found) == {PROMPT: 6, ANSWER: 6, CACHED: 2}
    assert {key.of: (cell.within, cell.beyond) for key, cell in found.items()}[ANSWER] == (100, 50)
    long = of_hours([held((0, 2), 14)], [count((0, 2), ANSWER, 100), count((0, 2), LONG, 100)],
                    Terms(weights={**WEIGHTS, "long": 6 * NANO}))  # fmt: skip
    assert euros(long) == {ANSWER: 2, LONG: 12}


def test_busy_time_divides_instead_of_tokens_and_idle_time_goes_along() -> None:
    rows = [count((0, 2), PROMPT, 900, busy_ms=HOUR // 4), count((0, 2), ANSWER, 100, busy_ms=3 * HOUR // 4)]
    found = of_hours([held((0, 2), 8), split((0, 2), "vision", {"use:lab:vision:used": 1, "use:lab:vision:idle": 1})],
                     rows, Terms())  # fmt: skip
    assert euros(found) == {PROMPT: 2, ANSWER: 6}
    assert {key.of: (cell.held, cell.used, cell.known) for key, cell in found.items()} == {
        PROMPT: (TICKS // 2, TICKS // 4, TICKS // 2),
        ANSWER: (3 * TICKS // 2, 3 * TICKS // 4, 3 * TICKS // 2),
    }


def test_an_idle_hour_costs_its_tokens_more_and_one_without_tokens_goes_by_the_weights() -> None:
    rows = [count((0, 1), ANSWER, 1_000), count((1, 2), ANSWER, 10), count((2, 3), ANSWER, 0), count((2, 3), PROMPT, 0)]
    found = of_hours([held((0, 3), 30)], rows, Terms())
    assert euros(found) == {ANSWER: 28, PROMPT: 2}
    assert sum(cell.within for cell in found.values()) == 1_010


def test_time_that_no_row_tells_of_stays_apart() -> None:
    found = of_hours([held((0, 4), 40)], [count((1, 2), ANSWER, 5), count((3, 3.5), PROMPT, 5)])
    assert euros(found) == {ANSWER: 10, PROMPT: 5, NO_COUNTS: 25}
    assert euros(of_hours([held((0, 4), 40)], [])) == {NO_COUNTS: 40}


def test_rows_of_other_times_are_cut_where_anything_changes() -> None:
    # Questions told for two hours, answers for each: 10 EUR of the first hour, 20 of the second.
    rows = [count((0, 2), PROMPT, 200), count((0, 1), ANSWER, 100), count((1, 2), ANSWER, 300)]
    found = of_hours([held((0, 1), 10), held((1, 2), 20)], rows)
    assert euros(found) == {PROMPT: 5 + 5, ANSWER: 5 + 15}
    # A window that cuts a row takes its part: half of the questions.
    second = of_hours([held((0, 1), 10), held((1, 2), 20)], rows, hours=(1, 2))
    assert euros(second) == {PROMPT: 5, ANSWER: 15}
    assert {key.of: cell.within for key, cell in second.items()} == {PROMPT: 100, ANSWER: 300}


def test_tokens_lie_where_devices_were_held() -> None:
    # Held from 1 to 2 of the hours 0 to 4: whatever cuts the row, the tokens are there.
    entries, rows = [held((1, 2), 10)], [count((0, 4), ANSWER, 7)]
    assert [cell.within for cell in of_hours(entries, rows, hours=(0, 1)).values()] == []
    assert [cell.within for cell in of_hours(entries, rows, hours=(1, 4)).values()] == [7]
    with pytest.raises(UnreadableInput, match=r"^line 9: from: the gang held no device from 2026-09-21T16:00:00Z to"):
        of_hours(entries, [count((2, 4), ANSWER, 1, line=9)])
    assert of_hours(entries, [count((2, 4), ANSWER, 0)]) == of_hours(entries, [])


def test_what_was_taken_back_costs_nothing_and_the_platform_pays_none_of_it() -> None:
    back = held((1, 2), 10)
    back = Entry(**{name: getattr(back, name) for name in back.__slots__} | {
        "id": "back", "kind": EntryKind.REVERSAL,
        "postings": tuple(posting(p.account, -p.amount, p.unit) for p in back.postings)})  # fmt: skip
    topology = split((0, 1), "vision", {"waste:topology:lab:vision": 1})
    borne = (posting("spend:lab:vision:in-quota", -NANO, EUR), posting("credit:topology", NANO, EUR))
    topology = Entry(**{name: getattr(topology, name) for name in topology.__slots__} | {
        "postings": (*topology.postings, *borne)})  # fmt: skip
    found = of_hours([held((0, 2), 20), back, topology], [count((0, 2), ANSWER, 4)])
    (cell,) = found.values()
    assert (cell.held, cell.known, cell.used, cell.money) == (TICKS, TICKS, 0, {"EUR": 10 * NANO})


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000


PEAKS = [
    # zone, peak, from, to, hours in all, hours of them in peaks
    ("Europe/Berlin", "08:00-20:00", "2026-06-01T00:00+02:00", "2026-06-02T00:00+02:00", 24, 12),
    ("Europe/Berlin", "22:00-06:00", "2026-06-01T00:00+02:00", "2026-06-02T00:00+02:00", 24, 8),
    ("Europe/Berlin", "00:00-24:00", "2026-06-01T00:00+02:00", "2026-06-03T00:00+02:00", 48, 48),
    ("Europe/Berlin", "01:00-04:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00", 23, 2),  # 02:00 is skipped
    ("Europe/Berlin", "02:00-03:00", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00", 23, 0),
    ("Europe/Berlin", "02:00-03:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", 25, 2),  # it comes twice
    ("Europe/Berlin", "08:00-20:00", "2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00", 25, 12),
    ("America/Sao_Paulo", "00:00-02:00", "2018-11-04T01:00-02:00", "2018-11-05T00:00-02:00", 23, 1),  # no midnight
    ("America/Sao_Paulo", "23:00-24:00", "2019-02-16T00:00-02:00", "2019-02-17T00:00-03:00", 25, 2),
    ("America/Sao_Paulo", "08:00-20:00", "2026-10-25T00:00-03:00", "2026-10-26T00:00-03:00", 24, 12),
    ("America/Sao_Paulo", "19:30-20:00", "2026-10-25T19:00-03:00", "2026-10-25T20:00-03:00", 1, 0.5),
]


@pytest.mark.parametrize(("zone", "peak", "begins", "ends", "hours", "in_peak"), PEAKS)
def test_a_row_is_cut_at_the_edges_of_peaks(
    zone: str, peak: str, begins: str, ends: str, hours: int, in_peak: float
) -> None:
    span = (ms(begins), ms(ends))
    assert span[1] - span[0] == hours * HOUR
    terms = Terms(weights=WEIGHTS, peak=window_of(None, *peak.split("-"), zone, field="peak"))
    entry = segment((0, 1), "held:lab:vision:in-quota", gang="g1")
    ticks, nanos = TICKS * hours, 1_000 * hours
    entry = Entry(**{name: getattr(entry, name) for name in entry.__slots__} | {
        "from_ms": span[0], "to_ms": span[1],
        "postings": (posting("capacity:main", -ticks), posting(entry.account, ticks),
                     posting("spend:lab:vision:in-quota", nanos, EUR),
                     posting("revenue:H100", -nanos, EUR))})  # fmt: skip
    row = Count(line=1, gang="g1", from_ms=span[0], to_ms=span[1], of=PROMPT, within=10 * hours, beyond=2 * hours)
    found = {key.when: cell for key, cell in divided([entry], [row], terms, span).items()}
    for when, part in (("peak", in_peak), ("off-peak", hours - in_peak)):
        cell = found.pop(when, Cell())
        told = (cell.within, cell.beyond, cell.held, cell.money.get("EUR", 0))
        assert told == (10 * part, 2 * part, TICKS * part, 1_000 * part), when
    assert not found


CLASSES = (PROMPT, ANSWER, CACHED, LONG)
QUARTER = HOUR // 4
moments = st.integers(0, 40 * QUARTER)


@st.composite
def lives(draw: Any) -> tuple[list[Entry], list[Count], list[int], Terms]:
    """Held stretches of two queues with odd money and samples, rows of odd times over them, and moments to cut at."""
    entries: list[Entry] = []
    for _ in range(draw(st.integers(1, 6))):
        begin = draw(moments)
        end = begin + draw(st.integers(1, 3 * HOUR))
        queue, ticks = (
            draw(st.sampled_from(["vision", "speech"])),
            (end - begin) * draw(st.sampled_from([840, 120, 70])),
        )
        of_use, nanos = draw(st.integers(0, ticks)), draw(st.integers(0, 10**13))
        for made in (
            segment((0, 1), f"held:lab:{queue}:in-quota", 1, gang="g1"),
            split((0, 1), queue, {f"use:lab:{queue}:used": 1}, gang="g1"),
        ):
            first = -of_use if made.kind is EntryKind.SPLIT else -ticks
            amounts = (first, -first, nanos, -nanos)
            parts = tuple(posting(p.account, amount, p.unit) for p, amount in zip(made.postings, amounts, strict=False))
            entries.append(Entry(**{name: getattr(made, name) for name in made.__slots__} | {
                "from_ms": T0 + begin, "to_ms": T0 + end, "postings": parts}))  # fmt: skip
    rows: list[Count] = []
    busy = draw(st.booleans())
    for of in CLASSES:
        edges = sorted(draw(st.lists(moments, max_size=6, unique=True)))
        for begin, end in zip(edges[::2], edges[1::2], strict=False):
            touches = any(e.from_ms < T0 + end and e.to_ms > T0 + begin for e in entries)
            within, beyond = (draw(st.integers(0, 10**7)) if touches else 0 for _ in range(2))
            rows.append(Count(
                line=len(rows), gang="g1", from_ms=T0 + begin, to_ms=T0 + end, of=of, within=within, beyond=beyond,
                busy_ms=(draw(st.integers(0, HOUR)) if touches else 0) if busy else None,
            ))  # fmt: skip
    peak = draw(st.sampled_from([None, window_of(None, "08:00", "20:30", "Asia/Kolkata", field="peak")]))
    cuts = [-(10**9), *sorted(draw(st.lists(moments, max_size=3, unique=True))), 10**9]
    weights = {word: draw(st.sampled_from([1, NANO // 3, NANO, 7 * NANO])) for word in WEIGHTS}
    return entries, rows, [T0 + cut for cut in cuts], Terms(weights=weights, peak=peak)


def totals(found: dict[Any, Cell]) -> tuple[int, ...]:
    whole = Cell()
    for cell in found.values():
        whole.add(cell)
    return whole.held, whole.used, whole.known, whole.money.get("EUR", 0), whole.within, whole.beyond


@given(lives())
def test_parts_are_the_whole_to_the_tick_the_nano_unit_and_the_token(life: Any) -> None:
    entries, rows, cuts, terms = life
    parts = [divided(entries, rows, terms, window) for window in pairwise(cuts)]
    for window, part in zip(pairwise(cuts), parts, strict=True):
        due = [0, 0, 0]  # what any other report has of this window
        for entry in entries:
            amounts = clipped([(p.unit, p.amount) for p in entry.postings], (entry.from_ms, entry.to_ms), window)
            if entry.kind is EntryKind.SPLIT:
                due[1] += amounts[1]
            else:
                due[0], due[2] = due[0] + amounts[1], due[2] + amounts[2]
        held_ticks, used, known, nanos, _, _ = totals(part)
        assert [held_ticks, used, nanos] == due
        assert known == used
        assert all(cell.held >= 0 and cell.within >= 0 and cell.beyond >= 0 for cell in part.values())
    sums = tuple(map(sum, zip(*map(totals, parts), strict=True)))
    assert sums[4:] == (sum(row.within for row in rows), sum(row.beyond for row in rows))
    assert sums == totals(divided(entries, rows, terms, (cuts[0], cuts[-1])))
    assert divided(entries[::-1], rows[::-1], terms, (cuts[0], cuts[-1])) == divided(
        entries, rows, terms, (cuts[0], cuts[-1])
    )


@given(lives())
def test_each_class_has_its_own_tokens_and_no_row_no_tokens(life: Any) -> None:
    entries, rows, cuts, terms = life
    found = divided(entries, rows, terms, (cuts[0], cuts[-1]))
    for of in CLASSES:
        assert sum(c.within for k, c in found.items() if k.of == of) == sum(r.within for r in rows if r.of == of)
    assert all(not cell.within and not cell.beyond for key, cell in found.items() if key.of == NO_COUNTS)


@given(lives(), st.one_of(st.none(), st.integers(0, 10**13)), st.integers(0, 10**13))
def test_what_the_platform_paid_lies_over_the_held_time(life: Any, hardware: int | None, fixed: int) -> None:
    entries, rows, cuts, terms = life
    paid = {("lab", queue): Paid("EUR", hardware, fixed) for queue in ("vision", "speech")}
    for window in pairwise(cuts):
        charged, found = (divided(entries, rows, terms, window, money) for money in (None, paid))
        assert found.keys() == charged.keys()
        for queue in ("vision", "speech"):
            its = [cell for key, cell in found.items() if key.queue == queue]
            some = any(cell.held for cell in its)
            assert sum(cell.fixed for cell in its) == (fixed if some else 0)
            assert sum(cell.money.get("EUR", 0) for cell in its) == ((hardware or 0) if some else 0)
            assert (hardware is not None) or not any(cell.money for cell in its)
        for key, cell in found.items():
            same = charged[key]
            assert (cell.held, cell.used, cell.within) == (same.held, same.used, same.within)


def test_paid_time_costs_the_same_whatever_was_charged() -> None:
    rows = [count((0, 3), ANSWER, 30), count((3, 4), ANSWER, 10)]
    paid = {("lab", "vision"): Paid("EUR", 8 * NANO, 2 * NANO)}
    entries, window = [held((0, 1), 90), held((1, 4))], (T0, T0 + 4 * HOUR)
    (cell,) = divided(entries, rows, PLAIN, window, paid).values()
    assert (cell.money, cell.fixed, cell.within) == ({"EUR": 8 * NANO}, 2 * NANO, 40)
    for part in divided(entries, rows[:1], PLAIN, window, paid).items():
        assert part[1].money["EUR"] == {ANSWER: 6 * NANO, NO_COUNTS: 2 * NANO}[part[0].of]
    gone = Entry(**{name: getattr(entries[1], name) for name in entries[1].__slots__} | {
        "id": "gone", "kind": EntryKind.REVERSAL,
        "postings": tuple(posting(p.account, -p.amount, p.unit) for p in entries[1].postings)})  # fmt: skip
    (nothing,) = divided([entries[1], gone], [], PLAIN, window, paid).values()
    assert (nothing.held, nothing.money, nothing.fixed) == (0, {}, 0)
