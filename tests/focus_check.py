"""An export of FOCUS 1.2 through `focus-validator`; run by ``make focus-check``. Exit 1 where a rule fails.

The validator needs Python 3.12 and packages of its own, so it lives in an environment beside ours. It ends with 0
whatever it found, so its output is read. Some of its rules are wrong (see docs/reference/focus.md); those may fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from priced_books import BEGIN, HOUR, priced_books

from fairlead.model.calendars import Calendar, Grain
from fairlead.reports import bills, focus

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-focus"
WANTED = ("focus-validator==2.2.1", "pyarrow<22")
FAULTY = {
    "InvoiceId-C-004-C": "its condition is empty, and so is that of C-005: one of the two always fails",
    "InvoiceId-C-005-C": "see C-004",
    "CommitmentDiscountStatus-C-004-C": "its condition asks for a null CommitmentDiscountId, where it means one",
    "CommitmentDiscountStatus-C-002-C": "a parent of C-004",
    "CommitmentDiscountStatus-C-000-C": "a parent of C-004",
}
CRITERIA = (
    "ACCOUNT_NAMING_SUPPORTED", "USAGE_MEASUREMENT_SUPPORTED", "UNIT_PRICING_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED", "SUB_ACCOUNT_SUPPORTED", "MULTIPLE_SUB_ACCOUNT_TYPES_SUPPORTED",
    "MULTIPLE_BILLING_ACCOUNT_TYPES_SUPPORTED", "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED", "REGION_SUPPORTED", "TAGGING_SUPPORTED",
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED", "COMMITMENT_DISCOUNT_SUPPORTED",
)  # fmt: skip


def validator() -> Path:
    """Return the program, installed where it is not."""
    program = HOME / "bin" / "focus-validator"
    if not program.exists():
        uv, python = ROOT / ".venv" / "bin" / "uv", os.environ.get("PYTHON312", "python3.12")
        made = subprocess.run([uv, "venv", "--quiet", "--clear", "-p", python, HOME], check=False)
        if made.returncode:
            sys.exit(f"focus-check: needs Python 3.12; PYTHON312 names one ({python} is none)")
        subprocess.run([uv, "pip", "install", "--quiet", "-p", HOME / "bin" / "python", *WANTED], check=True)
    return program


def validate(csv: Path) -> tuple[dict[str, int], set[str], str]:
    """Return what the validator counted, which rules failed, and all that it printed."""
    (packages,) = (HOME / "lib").glob("python3*/site-packages")
    command = [validator(), "--data-file", csv, "--validate-version", focus.VERSION, "--block-download"]
    command += ["--show-violations", "--applicability-criteria", ",".join(CRITERIA)]
    # It opens a file of its own by a path below the folder it is installed in.
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, check=False, timeout=600)
    said = done.stdout + done.stderr
    counted = re.search(r"Total: (\d+) \| Pass: (\d+) \| Fail: (\d+) \| Skipped: (\d+)", said)
    if counted is None:
        sys.exit(f"focus-check: the validator does not say what it counted:\n{said}")
    names = ("total", "pass", "fail", "skipped")
    return dict(zip(names, map(int, counted.groups()), strict=True)), set(re.findall(r"❌ (\S+): FAIL", said)), said


def main() -> None:
    """Export books that have every kind of charge, and judge what the validator says of it."""
    validator()
    with tempfile.TemporaryDirectory() as folder:
        engine = priced_books(Path(folder))
        month = Calendar().at(Grain.MONTH, BEGIN + HOUR).name
        rows = bills.focus_rows(engine, month, calendar=Calendar(), currency=None, issuer="Platform team")
        csv = Path(folder) / "focus.csv"
        csv.write_text(focus.to_csv(rows), encoding="utf-8", newline="")
        counted, failed, said = validate(csv)
        engine.dispose()
    wrong = failed - set(FAULTY)
    print(f"focus-validator {WANTED[0].partition('==')[2]}, FOCUS {focus.VERSION}: {counted}")
    for rule in sorted(failed & set(FAULTY)):
        print(f"  {rule} fails as it must: {FAULTY[rule]}")
    if wrong or counted["pass"] < 200 or counted["fail"] != len(failed):
        sys.exit(f"focus-check: these rules fail: {sorted(wrong)}\n{said}")
    print("focus-check: no other rule fails")


if __name__ == "__main__":
    main()
