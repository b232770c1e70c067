"""The bill of one gang in docs/explanation/books.md: from its hold to two statements, with a correction after close."""

from __future__ import annotations

from pathlib import Path

from ledger_facts import node
from months import BEGIN, HOUR, Months, ms
from price_words import price, priced

from fairlead.model.events import NodeSeen
from fairlead.reports import statements
from fairlead.reports.booked import By, booked
from fairlead.reports.charges import chargeback
from fairlead.units import gpu_hours_text, money_text

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "books.md"


class Priced(Months):
    """An hour of a GPU costs 2.50 EUR, told before anything happens."""

    def tell_first(self) -> None:
        self.at(BEGIN, priced(price("inQuota=2.50"), at_ms=BEGIN))


def table(months: Months, name: str) -> list[str]:
    """The lines of the gang in a statement as the page writes them."""
    sums: dict[tuple[str, str], list[int]] = {}
    for line in statements.statement(months.engine, name).lines:
        if line.account.startswith(("held:", "spend:")) and line.gang:
            kind = sums.setdefault((name, line.of), [0, 0])
            kind[line.unit != "ticks"] += line.amount
    return [f"| {of} | {hours_text(ticks)} | {money_text(nanos)} |" for (_, of), (ticks, nanos) in sorted(sums.items())]


def hours_text(ticks: int) -> str:
    gpu_ms = abs(ticks) // 840
    return f"{'-' if ticks < 0 else ''}{gpu_hours_text(gpu_ms)}"


def test_the_bill_of_one_gang(tmp_path: Path) -> None:
    months = Priced(tmp_path).pass_to("2026-10-01T00:00Z")
    months.close("2026-09", wait=False)
    september = table(months, "2026-09")
    assert september == ["| 2026-09 | 2.000 | 5.00 |"]
    # Half an hour before midnight in Berlin the node had died; that is heard of four and a half hours later.
    lost, back = ms("2026-09-30T21:30Z"), ms("2026-10-01T02:00Z")
    months.at(back, NodeSeen(node=node(not_ready_since_ms=lost), at_ms=back), NodeSeen(node=node(), at_ms=back + HOUR))
    months.pass_to("2026-11-03T00:00Z").close("2026-10")
    assert table(months, "2026-09") == september
    october = table(months, "2026-10")
    assert october == ["| 2026-09 | -1.000 | -2.50 |"]
    span = next(step.span for step in months.steps() if step.period == "2026-10")
    (row,) = chargeback(booked(months.engine, span), By.QUEUE).rows
    assert row == ("lab", "vision", "in-quota", "usage", "", "2026-09", "EUR", -2_500_000_000)
    page = PAGE.read_text(encoding="utf-8")
    assert all(line in page for line in [*september, *october])
    assert months.findings() == []
