"""Quantities in and out: Kubernetes quantities, durations, bytes. Integers inside, text at the edge."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from fairlead.errors import UnreadableInput

TICKS_PER_GPU_MS = 840  # lcm(1..8) = 840, also divisible by 12: exact for 1/4, 1/7, 1/8 and 1/12 of a GPU
NANO = 1_000_000_000  # money is in billionths of a currency's unit
FIXED_POINT = 1_000_000  # scores and shares that decide are integers in millionths

_SUFFIX = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip
_QUANTITY = re.compile(r"([+-]?[0-9]{1,30})(?:\.([0-9]{0,18}))?(?:[eE]([+-]?[0-9]{1,2})|([a-zA-Z]{0,2}))")
_PERCENT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)%")
_FRACTION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?|[0-9]{1,9}m")
_MONEY = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_DURATION = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def quantity_milli(text: str, *, field: str = "quantity") -> int:
    """Return a Kubernetes quantity in thousandths, rounded up as Kubernetes rounds.

    Raises
    ------
    UnreadableInput
        The text is no quantity; the message names `field`.
    """
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise UnreadableInput(f"{field}: {text!r} is not a quantity; write for example 500m, 4 or 16Gi")
    whole, fraction, exponent, suffix = match[1], match[2] or "", match[3], match[4] or ""
    sign = -1 if whole.startswith("-") else 1
    scaled = int(whole.lstrip("+-") + fraction) * 1_000
    divisor: int = 10 ** len(fraction)
    if exponent is not None:
        power = int(exponent)
        if power >= 0:
            scaled *= int(10**power)
        else:
            divisor *= int(10**-power)
    elif suffix in {"m", "u", "n"}:
        divisor *= {"m": 10**3, "u": 10**6, "n": 10**9}[suffix]
    elif suffix in _SUFFIX:
        scaled *= _SUFFIX[suffix]
    else:
        raise UnreadableInput(f"{field}: {text!r} has the unknown suffix {suffix!r}; use m, k, M, G, Ki, Mi, Gi …")
    return sign * -(-scaled // divisor)


def quantity(text: str, *, field: str = "quantity") -> int:
    """Return a Kubernetes quantity in whole units (bytes, pieces), rounded up."""
    return -(-quantity_milli(text, field=field) // 1_000)


def thousandths(text: str, *, field: str = "fraction") -> int:
    """Return a part of a whole, such as ``25%``, ``0.25`` or ``250m``, in thousandths, rounded up.

    Raises
    ------
    UnreadableInput
        The text is neither a percentage nor a fraction; the message names `field`.
    """
    compact = text.strip()
    percent = _PERCENT.fullmatch(compact)
    if percent is not None:
        return -(-quantity_milli(percent[1], field=field) // 100)
    if not _FRACTION.fullmatch(compact):
        raise UnreadableInput(f"{field}: {text!r} is not a part of a whole; write for example 25%, 0.25 or 250m")
    return quantity_milli(compact, field=field)


def duration_ms(text: str, *, field: str = "duration") -> int:
    """Return a duration such as ``90m`` or ``1h30m`` in milliseconds.

    Raises
    ------
    UnreadableInput
        The text is no duration; the message names `field`.
    """
    compact = text.strip()
    parts = _DURATION.findall(compact)
    if not parts or "".join(n + u for n, u in parts) != compact:
        raise UnreadableInput(f"{field}: {text!r} is not a duration; write for example 90s, 10m or 1h30m")
    return sum(int(number) * _DURATION_MS[unit] for number, unit in parts)


def utc_text(ms: int) -> str:
    """Write a moment, UTC ms, as ISO 8601 to the second: ``2027-01-15T08:00:00Z``."""
    days, rest = divmod(ms // 1_000, 86_400)
    years = days + 719_468  # days from 1 March of year 0, after Hinnant, "chrono-compatible low-level date algorithms"
    era, day = divmod(years, 146_097)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    number = month + 3 if month < 10 else month - 9
    date = f"{year + 400 * era + (number <= 2):04}-{number:02}-{day - (153 * month + 2) // 5 + 1:02}"
    return f"{date}T{rest // 3_600:02}:{rest // 60 % 60:02}:{rest % 60:02}Z"


def moment_ms(text: str, *, field: str = "time") -> int:
    """Return an RFC 3339 time with its zone, such as ``2026-01-31T12:00:00Z``, as UTC ms since 1970.

    Raises
    ------
    UnreadableInput
        The text is no time, or has no zone; the message names `field`.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as problem:
        raise UnreadableInput(f"{field}: {text!r} is not a time; write for example 2026-01-31T12:00:00Z") from problem
    if moment.tzinfo is None:
        raise UnreadableInput(f"{field}: {text!r} has no zone; write for example 2026-01-31T12:00:00Z")
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def duration_text(ms: int) -> str:
    """Write milliseconds for people, two units at most: ``2d 3h``, ``14m 5s``, ``850ms``."""
    if ms < 1_000:
        return f"{ms}ms"
    seconds = ms // 1_000
    parts: list[str] = []
    for name, size in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{name}")
    return " ".join(parts[:2])


def clock_text(local_ms: int) -> str:
    """Write what a clock on the wall shows, its time in ms, as ``09:30``."""
    minutes = local_ms // 60_000 % 1_440
    return f"{minutes // 60:02}:{minutes % 60:02}"


def bytes_text(count: int) -> str:
    """Write bytes for people in decimal units: ``80.0 GB``."""
    value = float(count)
    for name in ("B", "kB", "MB", "GB", "TB"):
        if value < 1_000 or name == "TB":
            return f"{value:.0f} {name}" if name == "B" else f"{value:.1f} {name}"
        value /= 1_000
    raise AssertionError(count)


def pace_text(bytes_per_s: int) -> str:
    """Write a link's pace for people; 0 means that nothing has to be crossed."""
    return f"{bytes_text(bytes_per_s)}/s" if bytes_per_s else "-"


def gpu_hours_text(gpu_ms: int) -> str:
    """Write GPU-milliseconds as GPU-hours with three places, exactly rounded half up."""
    thousandths = (gpu_ms * 1_000 + 1_800_000) // 3_600_000
    return f"{thousandths // 1_000}.{thousandths % 1_000:03d}"


def beside_text(unit: str, amount: int) -> tuple[str, str]:
    """Write an amount of what pods have beside devices for people: hours, and of what."""
    per_ms, word = {"core-us": (1_000, "core-h"), "mib-ms": (1_024, "GiB-h"), "nic-ms": (1, "NIC-h")}[unit]
    hours = gpu_hours_text(abs(amount) // per_ms)
    return f"-{hours}" if amount < 0 else hours, word


def money_text(nanos: int) -> str:
    """Write nano-units of a currency exactly, two places at least: ``12.50``, ``-0.000000001``."""
    return fixed_text(nanos, 9)


def fixed_text(amount: int, places: int) -> str:
    """Write a number of 10^-places exactly, two places at least."""
    whole, rest = divmod(abs(amount), 10**places)
    shown = f"{rest:0{places}}".rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}{whole}.{shown}"


def fixed_of(match: re.Match[str], places: int) -> int:
    """Return, in 10^-places, a number that was matched as its whole part and, at most so long, its decimal places."""
    return int(match[1] + (match[2] or "").ljust(places, "0"))


def nanos_of(text: str, *, field: str) -> int:
    """Return an amount of money such as ``12.50`` in nano-units.

    Raises
    ------
    UnreadableInput
        It is no amount; the message names `field`.
    """
    match = _MONEY.fullmatch(text)
    if match is None:
        raise UnreadableInput(f"{field}: {text!r} is no amount; write for example 12.50, at most nine decimal places")
    return fixed_of(match, 9)


def gpus_of(milli: int) -> int | str:
    """Return thousandths of a GPU in GPUs: a whole number where it is one, else text such as ``0.5``."""
    whole, rest = divmod(milli, 1000)
    return f"{whole}.{rest:03}".rstrip("0") if rest else whole
