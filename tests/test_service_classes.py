"""The table of service classes: what the page says is what holds, and both decoders take their defaults from it."""

from pathlib import Path

from fairlead.model.gang import ServiceClass
from fairlead.model.service_classes import TERMS, Borrows, OwnTerms, borrows_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "explanation" / "pools.md"
TURNS = ("first", "second", "third", "fourth", "never")
WAITS = {None: "–", 300_000: "5 min", 86_400_000: "24 h"}


def test_the_page_has_the_table_that_holds() -> None:
    rows = [
        line.strip("| \n").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"
    ]
    told = {row[0].strip().strip("`"): [cell.strip(" *") for cell in row[1:]] for row in rows}
    assert set(told) == {kind.value for kind in ServiceClass}
    for kind, terms in TERMS.items():
        stopped, turn, wait, lends, slices = told[kind.value]
        assert stopped == ("yes" if terms.preemptible else "no")
        assert turn.startswith(TURNS[terms.stopped])
        assert wait == WAITS[terms.queue_time_ms]
        assert lends == terms.borrows
        assert ("servingOnTimeSlices" in slices) == terms.dedicated


def test_a_pool_says_otherwise_for_itself_and_for_no_other_class() -> None:
    own = (OwnTerms(service_class=ServiceClass.BATCH, borrows=Borrows.NEVER),)
    assert borrows_of(ServiceClass.BATCH, own) is Borrows.NEVER
    assert borrows_of(ServiceClass.BATCH, ()) is Borrows.YIELDING
    assert borrows_of(ServiceClass.OPPORTUNISTIC, own) is Borrows.YIELDING
