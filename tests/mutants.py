"""Mutation testing of the ledger and quota modules: how many planted bugs do the tests find?

    python tests/mutants.py --count 300 --seed 1 [--minutes 60] [--json out.json]

A mutant is one change in one place: another comparison, sum or bound, a condition turned round, a number more. A seeded
sample of all that there are is tried, each in a copy of the tree, by the tests of its module. Own code, because what
there is on the package index changes the tree in place, or wants to know the whole suite's time first; this is a page.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOOKS = ("test_ledger.py", "test_outcomes.py", "test_tiers.py", "test_ledger_parts.py", "test_accounts.py")
QUOTAS = ("test_fair_share.py", "test_queue_tree.py", "test_scenarios.py")
MODULES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("accounts", "attempts", "audit", "chain", "entry", "kept"), BOOKS),
    **dict.fromkeys(("meter", "outcomes", "sweep", "sweep_use", "timeline"), BOOKS),
    "adjusting": ("test_prices.py",),
    "prices": ("test_prices.py",),
    "pricing": ("test_prices.py",),
    "rollup": ("test_rollups.py",),
    "../ordering/accounts": QUOTAS,
    "../ordering/standing": QUOTAS,
    "../ordering/fair_share": QUOTAS,
    "../ordering/queue_tree": QUOTAS,
    "../planning/tiers": ("test_tiers.py", "test_scenarios.py"),
}  # fmt: skip
"""Module below scheduler/fairlead/ledger -> the tests that must find a bug in it."""

OTHER: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[str]:
    """Yield how a node may be changed."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in OTHER:
        yield "compare"
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OTHER:
        yield "operator"
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "turn round"
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield "constant"
    if isinstance(node, ast.Name) and node.id in ("min", "max"):
        yield "min and max"
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "drop sign"


def change(node: ast.AST) -> None:
    """Change a node in place."""
    match node:
        case ast.Compare():
            node.ops[0] = OTHER[type(node.ops[0])]()  # type: ignore[call-overload]
        case ast.BinOp() | ast.BoolOp():
            node.op = OTHER[type(node.op)]()  # type: ignore[assignment]
        case ast.If() | ast.IfExp() | ast.While():
            node.test = ast.UnaryOp(op=ast.Not(), operand=node.test)
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant(value=int()):
            node.value += 1
        case ast.Name():
            node.id = "max" if node.id == "min" else "min"
        case ast.UnaryOp():
            if isinstance(node.op, ast.USub):
                node.op = ast.UAdd()
            else:
                node.operand = ast.UnaryOp(op=ast.Not(), operand=node.operand)
        case _:
            raise AssertionError(node)


def sites(source: str) -> list[tuple[int, str]]:
    """Return (number of the node in a walk, how) of every mutant of a module.

    What only says how a class is made, or that two lists are as long, is left alone: to change it changes nothing.
    """
    nodes = list(ast.walk(ast.parse(source)))
    spared: set[ast.AST] = set()
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            spared |= {inner for decorator in node.decorator_list for inner in ast.walk(decorator)}
        if isinstance(node, ast.keyword) and node.arg == "strict":
            spared.add(node.value)
    return [(at, how) for at, node in enumerate(nodes) if node not in spared for how in changes(node)]


def mutate(source: str, at: int) -> tuple[str, int, str]:
    """Return the module with one change, its line, and that statement afterwards."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[at]
    line = getattr(node, "lineno", 0)
    before = source.splitlines()[line - 1].strip()
    change(node)
    return ast.unparse(ast.fix_missing_locations(tree)), line, before


def tree_copy(into: Path) -> None:
    """Copy what the tests need."""
    for name in ("scheduler", "operator", "tests", "crds", "migrations", "docs", "helm"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", into)


def killed(copy: Path, tests: tuple[str, ...], limit_s: int) -> bool:
    """Whether the tests of a module find what is wrong; a run that does not end has found it, too."""
    path = os.pathsep.join(str(copy / root) for root in ("scheduler", "operator"))
    named = [f"tests/{name}" for name in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *named]
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, cwd=copy, env=env, capture_output=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return True
    return run.returncode != 0


def main() -> int:
    """Try a sample; print survivors and the share that was killed. Exit code 1 where that is below 85 %."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    tried, survivors, until = 0, list[dict[str, object]](), time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        tree_copy(copy)
        files = {name: (copy / "scheduler/fairlead/ledger" / f"{name}.py").resolve() for name in MODULES}
        sources = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
        everything = [(name, at, how) for name in sorted(sources) for at, how in sites(sources[name])]
        for name, at, how in random.Random(asked.seed).sample(everything, min(asked.count, len(everything))):
            if time.monotonic() > until:
                break
            changed, line, before = mutate(sources[name], at)
            files[name].write_text(changed, encoding="utf-8")
            alive = not killed(copy, MODULES[name], limit_s=300)
            files[name].write_text(sources[name], encoding="utf-8")
            tried += 1
            if alive:
                survivors.append({"module": name.removeprefix("../"), "line": line, "how": how, "code": before})
                print(f"survived: {survivors[-1]}", flush=True)
            said = {"mutants": len(everything), "seed": asked.seed, "tried": tried, "killed": tried - len(survivors)}
            if asked.json:
                asked.json.write_text(json.dumps({**said, "survivors": survivors}, indent=1), encoding="utf-8")
    share = 100 * (tried - len(survivors)) // max(1, tried)
    print(f"{tried} of {len(everything)} mutants tried, {tried - len(survivors)} killed ({share} %)")
    return 0 if share >= 85 else 1


if __name__ == "__main__":
    sys.exit(main())
