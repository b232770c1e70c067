"""Other schedulers' cases: what the tool prints, and the bars on the dumped ones."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peer_cases import run as peer_run
from peer_cases.small_lines import RACK, TWO_RACKS, kai, kai_job, kueue, many, pods, runs, volcano
from topology_files import data_file

FILES = ("kueue_tas_cases", "kueue_preempt_cases", "volcano_cases", "kai_cases")


def test_a_line_of_no_schema_is_named() -> None:
    with pytest.raises(ValueError, match="no known schema"):
        peer_run.judge({"name": "x", "colour": "blue"})


def test_the_tool_prints_counts_rules_and_divergences(tmp_path: Path) -> None:
    lines = [
        kueue(TWO_RACKS, pods(4, {"a": 2, "b": 2}, required=RACK)),
        kueue(TWO_RACKS, pods(5, {"a": 2, "b": 2, "c": 1}, required=RACK), name="too many"),
        kueue(TWO_RACKS, pods(1, {"a": 1}), hasPriorUsage=True),
        volcano(pods=many(1), minimalBindCheck=False, tiers=[["binpack"]]),
        kai(suite="TestPreempt", jobs=[kai_job("a", 1, "-")], expectedJobs={"a": runs()}),
    ]
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    script = Path(peer_run.__file__)
    done = subprocess.run(
        [sys.executable, str(script), str(file), "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    found = json.loads(done.stdout)
    assert list(found)[:6] == ["cases", "law", "law_passed", "taste", "not_modelled", "divergent"]
    assert [found[name] for name in ("cases", "law", "law_passed")] == [5, 3, 2]
    assert [found[name] for name in ("evicting", "evicting_passed")] == [1, 1]
    assert [one["name"] for one in found["divergent"]] == ["too many"]
    assert found["taste_rules"] == {"a peer's score": 1}
    assert found["not_modelled_rules"] == {"usage before the case is not in the dump": 1}
    assert done.returncode == 1  # two thirds of the law are not enough
    assert "2 of 3 law cases pass" in done.stderr


def test_a_line_that_cannot_be_judged_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    good = kueue(TWO_RACKS, pods(4, {"a": 2, "b": 2}, required=RACK))
    lines = [
        "{not JSON",
        "[1, 2]",
        json.dumps({"name": "strange", "colour": "blue"}),
        json.dumps({**good, "name": "broken", "podSets": [{"count": "many"}]}),
        json.dumps({**good, "name": "no nodes", "nodes": None}),
        json.dumps(good),
    ]
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(lines), encoding="utf-8")
    found = peer_run.summary([peer_run.judge_line(where, line) for where, line in peer_run.read([file])])
    assert [found[name] for name in ("cases", "law", "law_passed")] == [6, 6, 1]
    names = [one["name"] for one in found["divergent"]]
    assert names == ["cases.jsonl:1", "cases.jsonl:2", "strange", "broken", "no nodes"]
    assert all(one["why"].startswith("the tool failed: ") for one in found["divergent"])


def test_the_dumped_cases_hold_the_bars(capsys: pytest.CaptureFixture[str]) -> None:
    files = [data_file(f"peer-cases/{name}.jsonl") for name in FILES]
    verdicts = [peer_run.judge_line(where, line) for where, line in peer_run.read(files)]
    found = peer_run.summary(verdicts)
    with capsys.disabled():
        print(json.dumps({name: value for name, value in found.items() if name != "divergent"}, indent=2))
    assert peer_run.bars(found) == []
    told = (Path(__file__).parents[1] / "docs/explanation/peer-cases.md").read_text(encoding="utf-8")
    untold = [
        verdict.name for verdict in verdicts if verdict.state == "law" and verdict.why and verdict.name not in told
    ]
    assert untold == []


def varied(value: Any, rng: random.Random, often: float, depth: int = 0) -> Any:
    """The same line with a few other numbers, less in its lists, other suites and gates, and fields never seen."""
    if isinstance(value, dict):
        found = {name: varied(inner, rng, often, depth + 1) for name, inner in value.items()}
        if "name" in found and rng.random() < often:
            found["somethingNew"] = rng.choice((0, 7, "new", None, {"a": 1}, []))
        if "suite" in found and rng.random() < often:
            found["suite"] = "TestOfAnotherSuite"
        if "gates" in found and depth == 0 and rng.random() < often:
            found["gates"] = {**(found["gates"] or {}), "TASSomethingNew": rng.random() < 0.5}
        return found
    if isinstance(value, list):
        listed = [varied(inner, rng, often, depth + 1) for inner in value]
        if len(listed) > 1 and depth < 4 and rng.random() < 2 * often:
            listed.pop(rng.randrange(len(listed)))
        return listed
    if isinstance(value, int) and not isinstance(value, bool) and rng.random() < often:
        return max(0, value + rng.choice((-1, 1, 2, 5, 100)))
    if isinstance(value, str) and value.isdecimal() and rng.random() < often:
        return str(max(0, int(value) + rng.choice((-1, 1, 3))))
    return value


@pytest.mark.parametrize("seed", range(2))
def test_lines_with_other_values_are_judged_and_their_worlds_stay_still(seed: int) -> None:
    files = [data_file(f"peer-cases/{name}.jsonl") for name in FILES]
    rng = random.Random(seed)
    for where, line in peer_run.read(files):
        case = varied(json.loads(line), rng, 0.05)
        verdict = peer_run.judge_line(where, json.dumps(case))
        assert verdict.stable, (where, verdict)
        assert not any(text.startswith(("the tool failed", "the world")) for text in verdict.why), (where, verdict)
