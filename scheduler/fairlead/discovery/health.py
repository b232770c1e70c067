"""From what one GPU shows to a verdict: healthy, suspect or bad, with reason tokens and hysteresis. Pure.

The driver's own recovery action counts first, then its error numbers, then counters and states. A finding is
one reason that stands; the tables say how bad it is and what ends it. Nothing flaps: where a single sight proves little
it must be seen several times in a row before it counts, and all that is merely seen must be gone several times in a row
before it ends. A GPU that comes back from a reset stays suspect until it has been clean as long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from fairlead.discovery.findings import DAY_MS, HOUR_MS, KINDS, RECOVERY, HealthRules, Kind, Sample, Verdict
from fairlead.discovery.xids import Clears, Level, XidEvent, meaning

_XID = re.compile(r"Xid(\d{1,5})")
_MOST_FINDINGS = 16
_MOST_STRIKES = 32
_SENTENCE = 256
_CALM = 3  # looks with recovery action NONE after which a soft XID is only suspect


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One reason. It counts once `active`; `streak` and `clean` are sights and clean samples in a row."""

    token: str
    since_ms: int
    last_ms: int
    count: int = 1
    streak: int = 1
    clean: int = 0
    active: bool = True
    detail: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuHealth:
    """What is known of one GPU's health. `counters` are (name, at_ms, value) at the start of each rate's window."""

    verdict: Verdict = Verdict.HEALTHY
    since_ms: int = 0
    findings: tuple[Finding, ...] = ()
    last: Sample | None = None
    away: bool = False
    links_most: int = 0
    resets_ms: tuple[int, ...] = ()
    strikes: tuple[tuple[int, str], ...] = ()
    counters: tuple[tuple[str, int, int], ...] = field(default=())

    @property
    def tokens(self) -> tuple[str, ...]:
        """Tokens of what counts, worst first, notes last."""
        active = [f for f in self.findings if f.active]
        return tuple(f.token for f in sorted(active, key=lambda f: (-_level(f, self.last), f.since_ms, f.token)))

    @property
    def sentence(self) -> str:
        """Why the verdict is not healthy, "" where it is; at most 256 characters."""
        if self.verdict is Verdict.HEALTHY:
            return ""
        by_token = {f.token: f for f in self.findings}
        parts = [f"{t}: {says(t, by_token[t])}" for t in self.tokens if _level(by_token[t], self.last) > Level.NOTE]
        whole = "; ".join(parts)
        return whole if len(whole) <= _SENTENCE else whole[: _SENTENCE - 1] + "…"

    @property
    def wants_reset(self) -> bool:
        """Whether a reset is what this GPU waits for, so that nobody should hold the driver open."""
        waiting = {"ResetRequired", "RowRemapPending", "PageRetirementPending", *RECOVERY.values()}
        return any(f.active and (f.token in waiting or kind_of(f).clears is Clears.RESET) for f in self.findings)


def kind_of(finding: Finding) -> Kind:
    """Return how a finding behaves; of an XID, by the table."""
    match = _XID.fullmatch(finding.token)
    if match is None:
        return KINDS[finding.token]
    rule = meaning(int(match[1]), finding.text)
    return Kind(level=rule.level, clears=rule.clears, says=rule.says)


def known_token(token: str) -> bool:
    """Whether a token is one of ours, so that what another version published is not misread."""
    return token in KINDS or _XID.fullmatch(token) is not None


def says(token: str, finding: Finding | None = None) -> str:
    """Return a token as a sentence, with the finding's detail."""
    made = finding or Finding(token=token, since_ms=0, last_ms=0)
    text = kind_of(made).says
    return f"{text} ({made.detail})" if made.detail else text


def judge(before: GpuHealth, sample: Sample, events: Sequence[XidEvent], rules: HealthRules) -> GpuHealth:
    """Return the GPU's health after one more look and what the driver told since the last one."""
    came_back = sample.answered and before.away
    reset = sample.answered and (came_back or _was_reset(before.last, sample))
    findings = {f.token: f for f in before.findings}
    resets = tuple(at for at in before.resets_ms if sample.at_ms - at < DAY_MS)
    if reset:
        findings, resets = _after_reset(findings, resets, sample, rules)
    counters = _Counters(() if reset else before.counters)
    links_most = max(before.links_most, sample.nvlinks_up or 0)
    for token, (seen, detail) in _sights(sample, links_most, rules).items():
        _sight(findings, token, seen, detail, sample.at_ms, rules)
    for token, detail in counters.excesses(before.last if not reset else None, sample, rules):
        _add(findings, token, sample.at_ms, detail)
    strikes = tuple(s for s in before.strikes if sample.at_ms - s[0] < DAY_MS)
    for event in events:
        rule = meaning(event.xid, event.text)
        _add(findings, f"Xid{event.xid}", event.at_ms, event.text[:80], text=event.text)
        if rule.strike:
            strikes = (*strikes, (event.at_ms, event.who))[-_MOST_STRIKES:]
    if len({who for _, who in strikes if who}) >= rules.fault_pods:
        _add(findings, "AppFaults", max(at for at, _ in strikes))
    kept = _ended(findings.values(), sample)
    after = replace(
        before,
        findings=kept,
        last=sample if sample.answered else before.last,
        away=sample.lost or sample.missing or (before.away and not sample.answered),
        links_most=links_most,
        resets_ms=resets,
        strikes=strikes,
        counters=counters.kept,
    )
    worst = max((_level(f, after.last) for f in kept if f.active), default=Level.NOTE)
    verdict = (Verdict.HEALTHY, Verdict.SUSPECT, Verdict.BAD)[worst]
    return replace(after, verdict=verdict, since_ms=sample.at_ms if verdict is not before.verdict else before.since_ms)


def _level(finding: Finding, last: Sample | None) -> Level:
    """Return how bad a finding is; a soft XID is only suspect while the driver itself has long asked for nothing."""
    kind = kind_of(finding)
    match = _XID.fullmatch(finding.token)
    if match and kind.level is Level.BAD and meaning(int(match[1]), finding.text).soft:
        calm = last is not None and last.recovery_action == 0 and finding.clean >= _CALM
        return Level.SUSPECT if calm else Level.BAD
    return kind.level


def _was_reset(last: Sample | None, sample: Sample) -> bool:
    """Whether a counter that only a reset takes back has gone down."""
    if last is None:
        return False
    pairs = ((last.energy_mj, sample.energy_mj), (last.ecc_uncorrected, sample.ecc_uncorrected))
    return any(old is not None and new is not None and new < old for old, new in pairs)


def _after_reset(
    findings: dict[str, Finding], resets: tuple[int, ...], sample: Sample, rules: HealthRules
) -> tuple[dict[str, Finding], tuple[int, ...]]:
    """Drop what a reset mends; what was out of service comes back on probation."""
    kept = {t: f for t, f in findings.items() if kind_of(f).clears in (Clears.QUIET, Clears.NEVER)}
    mended = [f for f in findings.values() if f.active and f.token not in kept and f.token != "Probation"]
    if any(kind_of(f).level > Level.NOTE for f in mended):
        resets = (*resets, sample.at_ms)[-_MOST_STRIKES:]
        kept["Probation"] = Finding(token="Probation", since_ms=sample.at_ms, last_ms=sample.at_ms)
        if len(resets) >= rules.resets_per_day:
            _add(kept, "RepeatedResets", sample.at_ms, f"{len(resets)} within a day")
    return kept, resets


def _sights(sample: Sample, links_most: int, rules: HealthRules) -> dict[str, tuple[bool | None, str]]:
    """Return token -> (seen, detail) of all that is merely seen; None where this look could not tell."""
    s = sample
    found: dict[str, tuple[bool | None, str]] = {
        "GpuLost": (s.lost if not (s.hung or s.failed) else None, ""),
        "GpuMissing": (s.missing if not (s.hung or s.failed) else None, ""),
        "NvmlHung": (s.hung > 0, ""),
        "NvmlHungLong": (s.hung >= rules.hung_long, f"{s.hung} intervals"),
        "NvmlFailed": (s.failed if not s.hung else None, ""),
        "ResetRequired": (s.reset_required if s.answered else None, ""),
        "RowRemapPending": (s.remap_pending, ""),
        "RowRemapFailed": (s.remap_failed, ""),
        "PageRetirementPending": (s.retire_pending, ""),
        "SramThreshold": (s.sram_exceeded, ""),
        "FabricUnhealthy": (None if s.fabric_health is None else s.fabric_health == 2, ""),
        "Probation": (False if s.answered else None, ""),
    }
    for action, token in RECOVERY.items():
        found[token] = (None if s.recovery_action is None else s.recovery_action == action, "")
    odd = s.recovery_action is not None and s.recovery_action not in RECOVERY and s.recovery_action != 0
    found["RecoverUnknown"] = (None if s.recovery_action is None else odd, f"action {s.recovery_action}")
    bits = (("HwSlowdown", 0x8), ("SwThermalSlowdown", 0x20), ("HwThermalSlowdown", 0x40), ("HwPowerBrake", 0x80))
    for token, bit in bits:
        found[token] = (None if s.throttle is None else bool(s.throttle & bit), "")
    if s.temperature_c is not None and s.slowdown_c:
        found["TooHot"] = (s.temperature_c >= s.slowdown_c, f"{s.temperature_c} °C")
    if s.pcie_width and s.pcie_width_most:
        found["PcieNarrow"] = (s.pcie_width < s.pcie_width_most, f"x{s.pcie_width} of x{s.pcie_width_most}")
    if s.nvlinks_up is not None and links_most:
        found["NvlinkDown"] = (s.nvlinks_up < links_most, f"{s.nvlinks_up} of {links_most} up")
    return found


def _sight(
    findings: dict[str, Finding], token: str, seen: bool | None, detail: str, at_ms: int, rules: HealthRules
) -> None:
    """Count a sight or a clean look; LIVE findings end after enough clean ones."""
    old = findings.get(token)
    if seen:
        if old is None:
            enter = KINDS[token].enter
            findings[token] = Finding(token=token, since_ms=at_ms, last_ms=at_ms, detail=detail, active=enter <= 1)
            return
        streak = old.streak + 1
        active = old.active or streak >= KINDS[token].enter
        findings[token] = replace(
            old, last_ms=at_ms, count=old.count + 1, streak=streak, clean=0, active=active, detail=detail
        )
    elif seen is False and old is not None and KINDS[token].clears is Clears.LIVE:
        if not old.active or old.clean + 1 >= rules.leave:
            del findings[token]
        else:
            findings[token] = replace(old, clean=old.clean + 1, streak=0)


def _add(findings: dict[str, Finding], token: str, at_ms: int, detail: str = "", *, text: str = "") -> None:
    """Note an event."""
    old = findings.get(token)
    if old is None:
        findings[token] = Finding(token=token, since_ms=at_ms, last_ms=at_ms, detail=detail, text=text)
    else:
        worse = not old.text or (text and _told_level(token, text) >= _told_level(token, old.text))
        findings[token] = replace(
            old,
            last_ms=at_ms,
            count=old.count + 1,
            clean=0,
            detail=detail if worse and detail else old.detail,
            text=text if worse and text else old.text,
        )


def _told_level(token: str, text: str) -> Level:
    """Return how bad an XID is by the kernel's words; of all words on one finding the worst count."""
    match = _XID.fullmatch(token)
    return meaning(int(match[1]), text).level if match else Level.NOTE


def _ended(findings: Iterable[Finding], sample: Sample) -> tuple[Finding, ...]:
    """Drop what has been quiet for long enough; count calm looks of soft XIDs; keep the worst if there are too many."""
    kept: list[Finding] = []
    for f in findings:
        kind = kind_of(f)
        xid = _XID.fullmatch(f.token)
        quiet = sample.at_ms - f.last_ms >= kind.quiet_ms
        if kind.clears is Clears.QUIET and quiet:
            continue
        if xid and sample.answered and sample.recovery_action == 0 and f.last_ms < sample.at_ms:
            f = replace(f, clean=f.clean + 1)
            if meaning(int(xid[1]), f.text).soft and quiet:
                continue
        kept.append(f)
    kept.sort(key=lambda f: (-kind_of(f).level, f.since_ms, f.token))
    return tuple(kept[:_MOST_FINDINGS])


class _Counters:
    """Counters that run up, each compared with its value at the start of an hour's window."""

    def __init__(self, kept: tuple[tuple[str, int, int], ...]) -> None:
        self._start = {name: (at, value) for name, at, value in kept}

    @property
    def kept(self) -> tuple[tuple[str, int, int], ...]:
        """What to remember until the next look."""
        return tuple((name, at, value) for name, (at, value) in sorted(self._start.items()))

    def excesses(self, last: Sample | None, sample: Sample, rules: HealthRules) -> list[tuple[str, str]]:
        """Return (token, detail) of what grew too fast; one uncorrected error more is already too many."""
        found: list[tuple[str, str]] = []
        if last is not None and last.ecc_uncorrected is not None and sample.ecc_uncorrected is not None:
            more = sample.ecc_uncorrected - last.ecc_uncorrected
            if more > 0:
                found.append(("EccUncorrected", f"{more} more"))
        for token, value, most in (
            ("EccCorrectedRate", sample.ecc_corrected, rules.corrected_per_hour),
            ("PcieReplays", sample.pcie_replays, rules.replays_per_hour),
            ("NvlinkErrors", sample.nvlink_errors, rules.nvlink_errors_per_hour),
        ):
            if value is None:
                continue
            at, start = self._start.get(token, (sample.at_ms, value))
            if value < start or sample.at_ms - at >= HOUR_MS:
                at, start = sample.at_ms, value
            if value - start > most:
                found.append((token, f"{value - start} within an hour"))
                at, start = sample.at_ms, value
            self._start[token] = (at, start)
        return found
