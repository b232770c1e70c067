"""Write docs/reference/reasons.md from fairlead.model.reasons; with --check, only say whether it is up to date."""

from __future__ import annotations

import sys
from pathlib import Path

from fairlead.model.reasons import Kind, Reason

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "reasons.md"
HEAD = """# Reasons

Written from `scheduler/fairlead/model/reasons.py` by `tools/reasons_docs.py`; do not edit by hand.

Every "no" is one of these: a token for `status.conditions`, metrics and `--json`, a sentence for people with its
numbers filled in, and what to do about it. `fairlead explain` and `kubectl fairlead explain` print sentence and mend.
A sentence names the asker's own numbers, pools and classes, never another tenant.
"""
TITLES = {
    Kind.INVALID: (
        "The job must change first",
        "Nothing is tried until the spec, or the right that is missing, changes.",
    ),
    Kind.NEVER: (
        "Never as asked",
        "With every node ready and nothing running it would not fit either. Looked at anew when nodes or queues change;"
        " meanwhile it is nobody's demand.",
    ),
    Kind.NOT_NOW: ("Not now", "Waiting may help. Looked at anew when something is freed or changed."),
    Kind.ENDED: ("Why an attempt came to its end", "Shown until the next attempt, or for good where there is none."),
}


def render() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for kind, (title, meaning) in TITLES.items():
        parts.append(f"\n## {title}\n\n{meaning}\n\n| token | sentence | mend |\n|---|---|---|\n")
        for reason in Reason:
            if reason.kind is kind:
                cells = (f"`{reason.token}`", reason.sentence, reason.mend)
                parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    return "".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == render() else 1
    PAGE.write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
