"""What `fairlead report tokens` is given beside the books: a file of counts, and how money is divided among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fairlead.cli.report_answer import Asked, books_calendar
from fairlead.errors import UnreadableInput

if TYPE_CHECKING:
    from fairlead.model.calendars import Span
    from fairlead.model.windows import Zone
    from fairlead.reports.token_books import TokenCosts
    from fairlead.reports.token_counts import Count
    from fairlead.reports.tokens import Terms
    from fairlead.store.engine import Engine


def looking(
    path: Path, peak: str | None, weights: Sequence[str], basis: str, currency: str | None, asked: Asked
) -> Callable[[Engine, Span | None], TokenCosts]:
    """Read a file of counts, and return how to look up what its tokens cost in a span."""
    from fairlead.reports import costs, token_books

    if basis not in token_books.BASES:
        raise UnreadableInput(f"--basis: {basis!r} is none of {', '.join(token_books.BASES)}")
    rows, known = _counts_of(path), cache(costs.known)

    def look(engine: Engine, span: Span | None) -> TokenCosts:
        terms = _terms_of(peak, weights, (asked.calendar or books_calendar(engine)).zone)
        paid = known(engine) if basis == token_books.COST else None
        return token_books.from_database(engine, span, rows, str(path), terms, currency=currency, costs=paid)

    return look


def _counts_of(path: Path) -> list[Count]:
    from fairlead.reports.token_counts import read

    try:
        with path.open("rb") as file:
            return list(read(file, str(path)))
    except OSError as problem:
        raise UnreadableInput(f"--counts: {path}: {problem.strerror}") from problem


def _terms_of(peak: str | None, weights: Sequence[str], zone: Zone) -> Terms:
    """Return how money is divided, from ``08:00-20:00`` on a zone's clocks and words such as ``completion=4``."""
    from fairlead.reports.tokens import Terms
    from fairlead.timezones import window_of

    if peak is None:
        return Terms(weights=_weights_of(weights))
    begins, dash, ends = peak.partition("-")
    if not dash:
        raise UnreadableInput(f"--peak: {peak!r} is no time of a day; write for example 08:00-20:00")
    return Terms(weights=_weights_of(weights), peak=window_of(None, begins, ends, zone.name, field="--peak"))


def _weights_of(said: Sequence[str]) -> dict[str, int]:
    from fairlead.reports.tokens import WEIGHTS
    from fairlead.units import nanos_of

    found: dict[str, int] = {}
    for text in said:
        word, _, amount = text.partition("=")
        if word not in WEIGHTS:
            raise UnreadableInput(f"--weight: {word!r} is none of {', '.join(WEIGHTS)}; write for example completion=4")
        if word in found:
            raise UnreadableInput(f"--weight: {word} is said twice")
        found[word] = nanos_of(amount, field=f"--weight {word}")
        if not found[word]:
            raise UnreadableInput(f"--weight: {text}: must be more than 0; 0.000000001 is the least")
    return {**WEIGHTS, **found}
