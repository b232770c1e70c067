"""Turn other schedulers' dumped decision cases into worlds, run them through our engine, and compare.

    python tests/peer_cases/run.py FILE... [--json] [--all]

Each line of a file is one case; its schema is known by its keys (Kueue's topology cases and preemption cases, Volcano,
KAI). A case is `taste` or `not_modelled` by a rule over its fields, never by its name; every rule's count is printed.
All others are `law`; those of them that are about who is stopped are counted once more by themselves.
`docs/explanation/peer-cases.md` says what is law. Exit 0 where every bar is held, 1 where one is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fairlead.errors import UnreadableInput
from peer_cases import kai, kueue_preempt, kueue_tas, volcano
from peer_cases.verdicts import Case, Verdict, failed, unwritable

SCHEMAS: tuple[ModuleType, ...] = (kueue_tas, kueue_preempt, volcano, kai)
LAW_PERCENT = 90
NOT_MODELLED_PERCENT = 15


def judge(case: Case) -> Verdict:
    """Convert, run and compare one case of any schema.

    Raises
    ------
    ValueError
        The keys are those of no schema that we know.
    """
    schema = next((one for one in SCHEMAS if one.is_one(case)), None)
    if schema is None:
        raise ValueError(f"a line of no known schema, with the keys {sorted(case)}")
    try:
        found: Verdict = schema.judge(case)
    except UnreadableInput as problem:
        found = unwritable(case["name"], problem)
    return replace(found, evicts=schema.evicts(case))


def judge_line(where: str, line: str) -> Verdict:
    """Judge the text of one line, called `where`. Whatever is wrong with it is a broken law of that line alone."""
    name = where
    try:
        case = json.loads(line)
        name = str(case["name"])
        return judge(case)
    except Exception as problem:  # one line must not end the others, whatever it is
        return failed(name, problem)


def read(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield (file:line, text) of every line that is not empty."""
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                yield f"{path.name}:{number}", line


def summary(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Count verdicts. `cases` are all lines; `evicting` are law cases that are about who is stopped."""
    states = Counter(verdict.state for verdict in verdicts)
    broken = [verdict for verdict in verdicts if verdict.state == "law" and verdict.why]
    evicting = [verdict for verdict in verdicts if verdict.state == "law" and verdict.evicts]
    return {
        "cases": len(verdicts),
        "law": states["law"],
        "law_passed": states["law"] - len(broken),
        "taste": states["taste"],
        "not_modelled": states["not_modelled"],
        "divergent": [{"name": verdict.name, "why": "; ".join(verdict.why)} for verdict in broken],
        "evicting": len(evicting),
        "evicting_passed": sum(not verdict.why for verdict in evicting),
        "unstable": sum(not verdict.stable for verdict in verdicts),
        "taste_rules": _rules(verdicts, "taste"),
        "not_modelled_rules": _rules(verdicts, "not_modelled"),
        "waived_rules": dict(sorted(Counter(rule for verdict in verdicts for rule in set(verdict.waived)).items())),
    }


def bars(result: dict[str, object]) -> list[str]:
    """Return the bars that a result does not hold."""
    cases, law, passed = (int(str(result[name])) for name in ("cases", "law", "law_passed"))
    evicting, evicting_passed = int(str(result["evicting"])), int(str(result["evicting_passed"]))
    left_out, unstable = int(str(result["not_modelled"])), int(str(result["unstable"]))
    found: list[str] = []
    if passed * 100 < law * LAW_PERCENT:
        found.append(f"{passed} of {law} law cases pass, fewer than {LAW_PERCENT} %")
    if evicting_passed * 100 < evicting * LAW_PERCENT:
        found.append(f"{evicting_passed} of {evicting} law cases about evictions pass, fewer than {LAW_PERCENT} %")
    if left_out * 100 > cases * NOT_MODELLED_PERCENT:
        found.append(f"{left_out} of {cases} cases are not modelled, more than {NOT_MODELLED_PERCENT} %")
    if unstable:
        found.append(f"{unstable} worlds are not stable")
    return found


def _rules(verdicts: Sequence[Verdict], state: str) -> dict[str, int]:
    return dict(sorted(Counter(verdict.rule for verdict in verdicts if verdict.state == state).items()))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--all", action="store_true", help="print a line for every case as well, to standard error")
    options = parser.parse_args(arguments)
    verdicts: list[Verdict] = []
    for where, line in read(options.files):
        verdict = judge_line(where, line)
        verdicts.append(verdict)
        if options.all:
            said = "; ".join(verdict.why) or verdict.rule or "; ".join(verdict.waived)
            print(f"{where} {verdict.state} {'BROKEN ' if verdict.why else ''}{verdict.name}: {said}", file=sys.stderr)
    result = summary(verdicts)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        for name, value in result.items():
            print(f"{name}: {value}")
    missed = bars(result)
    for text in missed:
        print(text, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
