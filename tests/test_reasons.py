"""Every reason has one token, a sentence that can be filled in, a place that says it, and a line in the reference."""

from __future__ import annotations

import importlib.util
import re
import string
from pathlib import Path

import pytest

from fairlead.model.reasons import BY_TOKEN, Kind, Reason, refuse

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [
    path
    for root in ("scheduler/fairlead", "operator/fairlead_operator")
    for path in sorted((ROOT / root).rglob("*.py"))
    if path.name != "reasons.py"
]


def fields(reason: Reason) -> set[str]:
    text = reason.sentence + reason.mend
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_the_reference_page_is_what_the_code_says() -> None:
    spec = importlib.util.spec_from_file_location("reasons_docs", ROOT / "tools" / "reasons_docs.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    assert tool.PAGE.read_text(encoding="utf-8") == tool.render(), "run tools/reasons_docs.py"
    assert all(f"`{reason.token}`" in tool.render() for reason in Reason)


def test_tokens_are_unique_and_fit_a_condition() -> None:
    assert len(BY_TOKEN) == len(Reason)
    assert all(re.fullmatch(r"[A-Z][A-Za-z]{2,50}", token) for token in BY_TOKEN)


@pytest.mark.parametrize("reason", Reason)
def test_a_reason_is_said_somewhere(reason: Reason) -> None:
    assert any(f"Reason.{reason.name}" in path.read_text(encoding="utf-8") for path in SOURCES)


@pytest.mark.parametrize("reason", Reason)
def test_a_sentence_can_be_filled_in(reason: Reason) -> None:
    refusal = refuse(reason, **dict.fromkeys(fields(reason), "x"))
    assert "{" not in refusal.message
    assert refusal == refuse(reason, **dict.fromkeys(sorted(fields(reason), reverse=True), "x"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_whoever_refuses_gives_every_number(path: Path) -> None:
    """A call ``refuse(Reason.X, a=…, b=…)`` fills every field of X's sentence and mend."""
    text = path.read_text(encoding="utf-8")
    for match in re.finditer(r"refuse\(\s*Reason\.([A-Z_]+)\s*(?:,|\))", text):
        depth, at = 1, match.end() - (text[match.end() - 1] == ")")
        start = at
        while depth and text[match.end() - 1] != ")":
            depth += {"(": 1, ")": -1}.get(text[at], 0)
            at += 1
        call = text[start:at]
        if "**" not in call:
            missing = {name for name in fields(Reason[match[1]]) if not re.search(rf"\b{name}=", call)}
            assert not missing, f"{path.name}: {match[1]} without {missing}"


def test_kinds_say_whether_waiting_helps() -> None:
    assert {reason.kind for reason in Reason} == set(Kind)
