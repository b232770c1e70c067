"""PriceBooks: the object, what becomes of it, its status, and the facts about all of them."""

# ruff: noqa: RUF012  # msgspec makes a new list or dict of an empty default
from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import msgspec

from fairlead.errors import UnreadableInput
from fairlead.model.costs import cost_of, fixed_of
from fairlead.model.events import Event, PriceBookGone, PriceBookSeen
from fairlead.model.prices import PriceBook, check_book, price_of
from fairlead_operator.custom_objects import API
from fairlead_operator.objects import Meta, Record, Resource
from fairlead_operator.watch import Change

log = logging.getLogger(__name__)

MESSAGE_MAX = 32_768


class PerHourSpec(Record, frozen=True, kw_only=True):
    """A price by tier, as text."""

    in_quota: str = ""
    borrowed: str = ""
    reserved: str = ""
    reserved_idle: str = ""
    opportunistic: str = ""


class PriceSpec(Record, frozen=True, kw_only=True):
    """What is priced, for whom, when, and how much."""

    model: str = ""
    mig: str = ""
    queue: str = ""
    begins: str = msgspec.field(default="", name="from")
    ends: str = msgspec.field(default="", name="to")
    per_hour: PerHourSpec = PerHourSpec()


class PurchaseSpec(Record, frozen=True, kw_only=True):
    """GPUs that were bought together."""

    price: str = ""
    gpus: int = 1
    life_months: int = 0
    in_service: str = ""
    residual: str = ""
    spares_percent: str = ""


class OutlaySpec(Record, frozen=True, kw_only=True):
    """What is paid by the month or by the hour, for some GPUs together."""

    per_month: str = ""
    per_hour: str = ""
    gpus: int = 1


class PowerSpec(Record, frozen=True, kw_only=True):
    """What a GPU draws, and what that costs."""

    watts: int = 0
    per_kwh: str = ""
    pue: str = ""


class CostSpec(Record, frozen=True, kw_only=True):
    """What the platform pays for GPUs of a model."""

    model: str = ""
    begins: str = msgspec.field(default="", name="from")
    ends: str = msgspec.field(default="", name="to")
    purchase: PurchaseSpec | None = None
    rental: OutlaySpec | None = None
    power: PowerSpec | None = None
    networking: OutlaySpec | None = None
    storage: OutlaySpec | None = None
    engineering: OutlaySpec | None = None


class FixedSpec(Record, frozen=True, kw_only=True):
    """What the platform pays in a month whatever is held."""

    name: str = ""
    per_month: str = ""
    begins: str = msgspec.field(default="", name="from")
    ends: str = msgspec.field(default="", name="to")


class PriceBookSpec(Record, frozen=True, kw_only=True):
    """Prices in one currency, and what the platform itself pays."""

    currency: str = ""
    prices: list[PriceSpec] = []
    costs: list[CostSpec] = []
    fixed: list[FixedSpec] = []


class PriceBookObject(Record, frozen=True, kw_only=True):
    """A PriceBook."""

    metadata: Meta
    spec: PriceBookSpec = PriceBookSpec()


PRICE_BOOKS = Resource("PriceBook", API, "pricebooks", PriceBookObject, namespaced=False)


def decode_book(found: PriceBookObject, others: Iterable[PriceBook] = ()) -> PriceBook:
    """Return the price book, if it can stand beside the others.

    Raises
    ------
    UnreadableInput
        The spec says what we cannot honour; the text names the field and the mend.
    """
    field = f"PriceBook {found.metadata.name}: spec"
    prices = tuple(
        price_of(
            {"model": said.model, "mig": said.mig, "queue": said.queue, "from": said.begins, "to": said.ends},
            msgspec.to_builtins(said.per_hour),
            field=f"{field}.prices[{at}]",
        )
        for at, said in enumerate(found.spec.prices)
    )
    costs = tuple(
        cost_of(msgspec.to_builtins(said), field=f"{field}.costs[{at}]") for at, said in enumerate(found.spec.costs)
    )
    fixed = tuple(
        fixed_of(msgspec.to_builtins(said), field=f"{field}.fixed[{at}]") for at, said in enumerate(found.spec.fixed)
    )
    book = PriceBook(name=found.metadata.name, currency=found.spec.currency, prices=prices, costs=costs, fixed=fixed)
    return check_book(book, others, field=field)


class PriceFacts:
    """Tells the books of price books as the watch sees them, nothing twice.

    One that cannot be honoured is in `problems`, and its last good state goes on. One that overlaps with another waits
    until that one has changed; those that hold already go before.
    """

    def __init__(
        self, put: Callable[[Event], None], now_ms: Callable[[], int], problems: dict[tuple[str, str], str]
    ) -> None:
        """Start with nothing known."""
        self._put = put
        self._now_ms = now_ms
        self._problems = problems
        self._objects: dict[str, PriceBookObject] = {}
        self._told: dict[str, PriceBook] = {}

    def on_price_book(self, change: Change, old: PriceBookObject | None, new: PriceBookObject | None) -> None:
        """A PriceBook changed; all are looked at, because one may have made room for another."""
        seen = new or old
        assert seen is not None
        name = seen.metadata.name
        if change is Change.DELETED:
            self._objects.pop(name, None)
            self._problems.pop(("PriceBook", name), None)
            self.gone([name] if name in self._told else [])
        else:
            self._objects[name] = seen
        good: dict[str, PriceBook] = {}
        for one in sorted(self._objects, key=lambda name: (name not in self._told, name)):
            others = {**self._told, **good}
            others.pop(one, None)
            try:
                book = decode_book(self._objects[one], others.values())
            except UnreadableInput as error:
                if self._problems.get(("PriceBook", one)) != str(error):
                    log.warning("PriceBook %s is not taken over: %s", one, error)
                self._problems["PriceBook", one] = str(error)
                continue
            self._problems.pop(("PriceBook", one), None)
            good[one] = book
            if self._told.get(one) != book:
                self._told[one] = book
                self._put(PriceBookSeen(book=book, at_ms=self._now_ms()))

    def gone(self, names: Iterable[str]) -> None:
        """Tell that books are not there any more; at the start, those that only the journal still has."""
        for name in names:
            self._told.pop(name, None)
            self._put(PriceBookGone(name=name, at_ms=self._now_ms()))
