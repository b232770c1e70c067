"""What became of device time: allocated, used, idle, wasted; idle jobs by owner; what was kept free for whom."""

from __future__ import annotations

from fairlead.ledger.accounts import Kind
from fairlead.reports.booked import Booked, By, columns_of, gpu_ms
from fairlead.reports.charges import currency_in, document, measured_in, sums_by
from fairlead.reports.document import Document, Value

_FLEET = (Kind.HELD, Kind.RESERVED_IDLE, Kind.STRANDED, Kind.FREE, Kind.DOWN, Kind.UNMANAGED)


def efficiency(found: Booked, by: By) -> Document:
    """Return what of everybody's held time was used, idle and wasted, and how much nobody measured.

    The five parts sum to what was held. Beside the rows stand the parts that the fleet's capacity divides into.
    """
    measured = measured_in(found)
    rows: list[tuple[Value, ...]] = []
    for key, sums in sorted(sums_by(found, by).items()):
        if not sums.ticks:
            continue
        said = {how: sums.became(how, measured) for how in ("used", "idle", "unattributable")}
        known = sum(ticks or 0 for ticks in said.values()) + sums.wasted
        rows.append(
            (
                *key,
                gpu_ms(sums.ticks),
                *(None if ticks is None else gpu_ms(ticks) for ticks in said.values()),
                gpu_ms(sums.wasted) if measured else None,
                gpu_ms(sums.ticks - known),
                None if said["used"] is None else _permille(said["used"], sums.ticks),
            )
        )
    columns = (
        *columns_of(by), "held_gpu_ms", "used_gpu_ms", "idle_gpu_ms", "unattributable_gpu_ms", "wasted_gpu_ms",
        "unmeasured_gpu_ms", "used_permille",
    )  # fmt: skip
    return document("efficiency", found, columns, rows, fleet(found))


def fleet(found: Booked) -> dict[str, Value]:
    """Return what there was, and where it went."""
    parts = {kind: sum(line.amount for _, line in found.of(kind)) for kind in _FLEET}
    facts: dict[str, Value] = {"capacity_gpu_ms": found.capacity_gpu_ms}
    return facts | {f"{kind.value.replace('-', '_')}_gpu_ms": gpu_ms(ticks) for kind, ticks in parts.items()}


def idle(found: Booked, currency: str | None = None) -> Document:
    """Return the jobs that held devices idle, the most idle first, with whose they are and what that cost."""
    money, measured = currency_in(found, currency), measured_in(found)
    rows: list[tuple[Value, ...]] = []
    unmeasured = 0
    for key, sums in sums_by(found, By.JOB, money).items():
        ticks = sums.became("idle", measured)
        unmeasured += sums.ticks - sums.wasted - sum(sums.use.get(how, 0) for how in ("used", "idle", "unattributable"))
        if not ticks or not sums.ticks:
            continue
        cost = (sum(sums.cost.values()) + sums.borne) * ticks // sums.ticks if sums.cost else None
        rows.append((*key, gpu_ms(sums.ticks), gpu_ms(ticks), _permille(ticks, sums.ticks), cost))
    rows.sort(key=lambda row: (-int(row[6] or 0), *map(str, row[:5])))
    columns = (*columns_of(By.JOB), "held_gpu_ms", "idle_gpu_ms", "idle_permille", "idle_cost_nanos")
    facts: dict[str, Value] = {"currency": money or None, "unmeasured_gpu_ms": gpu_ms(unmeasured)}
    return document("idle", found, columns, rows, facts)


def reservations(found: Booked) -> Document:
    """Return what was kept free for whom by which rule, and how much of what a queue had reserved it held."""
    held: dict[tuple[str, str], int] = {}
    kept: dict[tuple[str, str], int] = {}
    for account, line in found.of(Kind.HELD):
        if account.tier == "reserved":
            key = (account.queue, "reservation")
            held[key] = held.get(key, 0) + line.amount
    for _, line in found.of(Kind.RESERVED_IDLE):
        key = (line.actor, line.reason.partition("/")[0])
        kept[key] = kept.get(key, 0) + line.amount
    rows: list[tuple[Value, ...]] = []
    for key in sorted({*held, *kept}):
        reserved = held.get(key, 0) + kept.get(key, 0)
        used = held.get(key, 0) if key[1] == "reservation" else None
        rows.append(
            (
                *key,
                None if used is None else gpu_ms(used),
                gpu_ms(kept.get(key, 0)),
                None if used is None or not reserved else _permille(used, reserved),
            )
        )
    columns = ("queue", "rule", "held_gpu_ms", "kept_idle_gpu_ms", "held_permille")
    return document("reservations", found, columns, rows, {"capacity_gpu_ms": found.capacity_gpu_ms})


def _permille(part: int, whole: int) -> int:
    return part * 1_000 // whole
