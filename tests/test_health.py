"""Verdicts over time: the table of error numbers, recovery actions first, hysteresis, resets, rates and strikes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.discovery.findings import DAY_MS, HOUR_MS, KINDS, RECOVERY, HealthRules, Sample, Verdict
from fairlead.discovery.health import GpuHealth, judge
from fairlead.discovery.xids import GROUPS, UNUSED, XIDS, Clears, Level, XidEvent, from_kernel, meaning

RULES = HealthRules()
PAGE = (Path(__file__).resolve().parents[1] / "docs/reference/health.md").read_text(encoding="utf-8")
STEP = 10_000
HEALTHY, SUSPECT, BAD = Verdict


class Watched:
    """A GPU that is looked at every ten seconds; keywords change what is seen from then on."""

    def __init__(self, **fields):
        self.now = 0
        self.fields = {"recovery_action": 0, "ecc_uncorrected": 0, "remap_pending": False, "throttle": 0} | fields
        self.health = GpuHealth()
        self.energy = 0

    def look(self, *xids, times=1, who="", **changes):
        self.fields |= changes
        for _ in range(times):
            self.now += STEP
            self.energy += 100
            fields = {"energy_mj": self.energy} | self.fields
            events = [XidEvent(xid=x, at_ms=self.now - 1, who=who) if isinstance(x, int) else x for x in xids]
            self.health = judge(self.health, Sample(at_ms=self.now, **fields), events, RULES)
            xids = ()
        return self.health.verdict

    def away(self, **fields):
        self.now += STEP
        self.health = judge(self.health, Sample(at_ms=self.now, **fields), [], RULES)
        return self.health.verdict

    def reset(self, **changes):
        self.energy = -100
        return self.look(**changes)

    @property
    def tokens(self):
        return self.health.tokens


def documented(cell):
    """The numbers of a table's cell: ``13, 39–41``."""
    for part in cell.split(","):
        low, _, high = part.strip().partition("–")
        yield from range(int(low), int(high or low) + 1)


ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| \d+[,–\d ]* \|", line)
]


def test_the_page_has_every_number_once_and_says_what_the_table_says():
    said = {}
    for cell, group, level, ends, _ in ROWS:
        for number in documented(cell):
            assert number not in said, number
            said[number] = (group, level.removesuffix(", soft"), "soft" in level, ends)
    wanted = {}
    for number in {*XIDS, *UNUSED}:
        rule = meaning(number)
        wanted[number] = (rule.group, rule.level.name.lower(), rule.soft, rule.clears.value)
    assert said == wanted


def test_the_table_leaves_no_number_out():
    """All numbers up to the last one described, none both described and unused."""
    assert set(XIDS) & UNUSED == set()
    assert set(range(1, 173)) == set(XIDS) | UNUSED
    assert {rule.group for rule in XIDS.values()} | {"unknown"} == set(GROUPS)


def test_the_page_has_every_finding_as_it_is():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    for token, kind in KINDS.items():
        level, ends, after, _ = rows.pop(token).split(" | ")
        assert (level, int(after)) == (kind.level.name.lower(), kind.enter), token
        assert ends == kind.clears.value + (", a day" if kind.quiet_ms == DAY_MS else ""), token
    assert set(rows) == {"healthy", "suspect", "bad"}


@pytest.mark.parametrize("number", sorted({*XIDS, *UNUSED, 173, 999}))
def test_every_number_alone(number):
    """Its level at once, at the next looks, and after a reset."""
    gpu = Watched(recovery_action=None)
    gpu.look(times=2)
    rule = meaning(number)
    assert gpu.look(number) is (HEALTHY, SUSPECT, BAD)[rule.level]
    assert f"Xid{number}" in gpu.tokens
    gpu.look(times=20)
    assert gpu.health.verdict is (HEALTHY, SUSPECT, BAD)[rule.level]
    gpu.look(times=HOUR_MS // STEP)
    assert (f"Xid{number}" in gpu.tokens) is (rule.clears is not Clears.QUIET)
    after = gpu.reset()
    gpu.look(times=3)
    if rule.clears is Clears.RESET:
        assert after is SUSPECT
    assert gpu.health.verdict is (BAD if rule.clears is Clears.NEVER else HEALTHY)


@pytest.mark.parametrize(("action", "token"), RECOVERY.items())
def test_the_drivers_recovery_action_comes_first(action, token):
    gpu = Watched()
    gpu.look()
    gpu.look(13, recovery_action=action)  # the number alone would mean nothing
    assert gpu.tokens[0] == token
    assert gpu.health.verdict is (SUSPECT if action == 5 else BAD)
    gpu.look(recovery_action=0, times=2)
    assert gpu.health.verdict is not HEALTHY
    assert gpu.look() is HEALTHY


def test_an_action_nobody_knows_keeps_new_work_away():
    gpu = Watched()
    assert gpu.look(recovery_action=42) is SUSPECT
    assert gpu.tokens == ("RecoverUnknown",)
    assert "action 42" in gpu.health.sentence


def test_the_driver_may_soften_a_number_but_not_a_memory_error():
    soft, hard = Watched(), Watched()
    assert soft.look(109) is BAD
    assert hard.look(95) is BAD
    soft.look(times=3)
    hard.look(times=3)
    assert (soft.health.verdict, hard.health.verdict) == (SUSPECT, BAD)
    soft.look(times=HOUR_MS // STEP)
    hard.look(times=HOUR_MS // STEP)
    assert (soft.health.verdict, hard.health.verdict) == (HEALTHY, BAD)


def test_off_the_bus_and_back():
    gpu = Watched()
    gpu.look(times=3)
    assert gpu.look(79) is BAD
    assert gpu.away(lost=True) is BAD
    assert set(gpu.tokens) == {"Xid79", "GpuLost"}
    assert gpu.away(missing=True) is BAD
    assert gpu.look() is SUSPECT  # it answers again: whatever happened, it was reset
    assert gpu.tokens == ("Probation",)
    assert gpu.look() is SUSPECT
    assert gpu.look() is HEALTHY  # the third clean look


def test_two_resets_in_a_day_are_one_too_many():
    gpu = Watched()
    for _ in range(2):
        gpu.look(119)
        gpu.look(times=3)
        gpu.reset()
        gpu.look(times=4)
    assert gpu.health.verdict is SUSPECT
    assert gpu.tokens == ("RepeatedResets",)
    gpu.now += DAY_MS
    assert gpu.look() is HEALTHY


def test_a_reset_of_a_healthy_gpu_is_nothing():
    gpu = Watched()
    gpu.look(times=3)
    assert gpu.reset() is HEALTHY


def test_a_row_waits_for_its_reset():
    gpu = Watched()
    gpu.look(63, 94, remap_pending=True)
    assert gpu.health.verdict is SUSPECT
    assert {"RowRemapPending", "Xid94"} <= set(gpu.tokens)
    gpu.look(times=10)
    assert gpu.health.verdict is SUSPECT
    assert gpu.health.wants_reset
    gpu.reset(remap_pending=False)
    assert "RowRemapPending" not in gpu.tokens


def test_a_row_that_cannot_be_remapped_is_the_end():
    gpu = Watched()
    assert gpu.look(remap_failed=True) is BAD
    gpu.reset(remap_failed=False)
    assert gpu.look(times=HOUR_MS // STEP) is BAD


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("HwThermalSlowdown", {"throttle": 0x40}),
        ("HwSlowdown", {"throttle": 0x8}),
        ("HwPowerBrake", {"throttle": 0x80}),
        ("TooHot", {"temperature_c": 93, "slowdown_c": 92}),
        ("PcieNarrow", {"pcie_width": 8, "pcie_width_most": 16}),
    ],
)
def test_a_moment_is_not_enough(token, shown):
    gpu = Watched(temperature_c=40, slowdown_c=92, pcie_width=16, pcie_width_most=16)
    gpu.look()
    before = dict(gpu.fields)
    for _ in range(5):  # twice in a row, five times: never three
        gpu.look(times=2, **shown)
        gpu.look(**before)
    assert gpu.health.verdict is HEALTHY
    gpu.look(times=3, **shown)
    assert (gpu.health.verdict, gpu.tokens) == (SUSPECT, (token,))
    gpu.look(times=2, **before)
    gpu.look(**shown)  # not gone yet: it starts anew
    gpu.look(times=2, **before)
    assert gpu.health.verdict is SUSPECT
    assert gpu.look() is HEALTHY


def test_idle_capped_and_cooled_gpus_are_healthy():
    gpu = Watched()
    gpu.look(times=5, throttle=0x1 | 0x2 | 0x4 | 0x10 | 0x20 | 0x100)
    assert (gpu.health.verdict, gpu.tokens) == (HEALTHY, ("SwThermalSlowdown",))


def test_links_that_were_up():
    gpu = Watched(nvlinks_up=18)
    gpu.look(times=2)
    gpu.look(nvlinks_up=17)
    assert gpu.health.verdict is HEALTHY
    assert gpu.look() is SUSPECT
    assert "17 of 18 up" in gpu.health.sentence


@pytest.mark.parametrize(
    ("token", "name", "most"),
    [
        ("EccCorrectedRate", "ecc_corrected", 1000),
        ("PcieReplays", "pcie_replays", 600),
        ("NvlinkErrors", "nvlink_errors", 600),
    ],
)
def test_counters_count_by_their_rate(token, name, most):
    gpu = Watched(**{name: 5_000_000})
    gpu.look()
    assert gpu.look() is HEALTHY  # a large count from before we looked says nothing
    for _ in range(3):  # just at the rate, for hours
        gpu.look(**{name: gpu.fields[name] + most})
        gpu.look(times=HOUR_MS // STEP)
    assert gpu.health.verdict is HEALTHY
    gpu.look(**{name: gpu.fields[name] + most + 1})
    assert (gpu.health.verdict, gpu.tokens) == (SUSPECT, (token,))
    gpu.look(times=HOUR_MS // STEP)
    assert gpu.health.verdict is HEALTHY


def test_one_uncorrected_error_is_enough_and_a_reset_ends_it():
    gpu = Watched(ecc_uncorrected=7)
    gpu.look(times=2)
    assert gpu.look(ecc_uncorrected=8) is SUSPECT
    gpu.look(times=HOUR_MS // STEP)
    assert gpu.health.verdict is SUSPECT
    gpu.fields["ecc_uncorrected"] = 0
    gpu.look()
    assert gpu.look(times=3) is HEALTHY


def test_a_users_bug_costs_no_gpu_but_faults_of_many_pods_do():
    gpu = Watched()
    for _ in range(50):
        gpu.look(13, who="pod-a")
    gpu.look(31, who="pod-b")
    gpu.look(31)  # nobody knows whose
    assert gpu.health.verdict is HEALTHY
    gpu.look(31, who="pod-c")
    assert gpu.health.verdict is SUSPECT
    assert "AppFaults" in gpu.tokens


def test_a_hung_driver_is_a_verdict():
    gpu = Watched()
    gpu.look()
    assert gpu.away(hung=1) is SUSPECT
    assert gpu.away(hung=2) is SUSPECT
    assert gpu.away(hung=3) is BAD
    gpu.look(times=2)
    assert gpu.health.verdict is not HEALTHY
    assert gpu.look() is HEALTHY


def test_what_cannot_be_known_changes_nothing():
    gpu = Watched()
    gpu.look(remap_pending=True)
    for name in gpu.fields:
        gpu.fields[name] = None
    gpu.look(times=50)
    assert gpu.tokens == ("RowRemapPending",)


def test_a_sentence_fits_its_field():
    gpu = Watched()
    gpu.look(*range(140, 172), remap_failed=True, sram_exceeded=True)
    assert len(gpu.health.sentence) == 256
    assert len(gpu.health.findings) == 16
    assert {"RowRemapFailed", "SramThreshold"} <= set(gpu.tokens)


@pytest.mark.parametrize(
    ("line", "pci", "number", "level"),
    [
        ("NVRM: Xid (PCI:0000:3b:00): 79, pid=12, GPU has fallen off the bus.", "0000:3b:00", 79, Level.BAD),
        ("[1] NVRM: Xid (0000:3b:00): 13, Graphics SM Warp Exception", "0000:3b:00", 13, Level.NOTE),
        ("NVRM: Xid (PCI:0000:04:00): 145, RLW_REMAP Nonfatal XC0 i0 Link 02", "0000:04:00", 145, Level.NOTE),
        ("NVRM: Xid (PCI:0000:04:00): 145, RLW_REMAP Fatal XC0 i0 Link 02", "0000:04:00", 145, Level.BAD),
        ("NVRM: Xid (PCI:0000:04:00): 145, RLW_REMAP", "0000:04:00", 145, Level.SUSPECT),
        ("NVRM: GPU 0000:3b:00.0: GPU has fallen off the bus.", "0000:3b:00.0", 79, Level.BAD),
    ],
)
def test_lines_of_the_kernel_log(line, pci, number, level):
    found, event = from_kernel(line, 5)
    assert (found, event.xid, event.at_ms) == (pci, number, 5)
    assert meaning(event.xid, event.text).level is level


def test_other_lines_are_none():
    assert from_kernel("usb 1-1: new device", 1) is None
    assert from_kernel("NVRM: Xid (PCI:0000:3b:00): many", 1) is None


numbers = st.none() | st.integers(0, 2**40)
flags = st.none() | st.booleans()
samples = st.builds(
    Sample,
    at_ms=st.just(0),
    lost=st.booleans(),
    missing=st.booleans(),
    hung=st.integers(0, 4),
    recovery_action=st.none() | st.integers(0, 9),
    ecc_uncorrected=numbers,
    ecc_corrected=numbers,
    remap_pending=flags,
    remap_failed=flags,
    throttle=st.none() | st.integers(0, 0x1FF),
    temperature_c=st.none() | st.integers(0, 120),
    slowdown_c=st.none() | st.just(92),
    energy_mj=numbers,
    nvlink_errors=numbers,
    nvlinks_up=st.none() | st.integers(0, 18),
)


@given(st.lists(st.tuples(samples, st.lists(st.integers(0, 400), max_size=3)), max_size=30))
def test_any_history_stays_bounded_and_a_long_clean_time_with_a_reset_ends_it(history):
    health = GpuHealth()
    now = 0
    for sample, xids in history:
        now += STEP
        events = [XidEvent(xid=x, at_ms=now) for x in xids]
        health = judge(health, replace(sample, at_ms=now), events, RULES)
        assert len(health.findings) <= 16
        assert len(health.sentence) <= 256
        assert (health.verdict is HEALTHY) == (health.sentence == "")
    clean = Sample(at_ms=0, recovery_action=0, remap_pending=False, retire_pending=False, throttle=0, temperature_c=1,
                   slowdown_c=92, energy_mj=0, ecc_uncorrected=0, nvlinks_up=18, fabric_health=1)  # fmt: skip
    health = judge(health, replace(clean, at_ms=now + STEP, lost=True), [], RULES)
    for n in range(10):
        health = judge(health, replace(clean, at_ms=now + 2 * DAY_MS + n * STEP), [], RULES)
    lasting = {f.token for f in health.findings if f.token in ("RowRemapFailed", "Xid157")}
    assert {f.token for f in health.findings} == lasting
