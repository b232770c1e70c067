"""Mutation testing of the ledger and quota modules: how many planted bugs do the tests find?

    python tests/mutants.py --count 300 --seed 1 [--minutes 60] [--json out.json] [--only ledger/audit ...]

A mutant is one change in one place: another comparison, sum or bound, a condition turned round, a number more. A seeded
sample of all that there are is tried. One run of all `TESTS` first notes which of them come through which line. Then
each mutant is planted in a process of its own, as the module is imported, and only those that come through its
statement are asked, the cheapest first: the others would answer as they did. What stands outside of functions is asked
of all, those that come through its module first. A run that does not end has found the mutant, too.

Left alone, for to change it changes nothing: what says how a class is made or how much a cache keeps (arguments of
decorators), that two lists are as long (`strict`), and asserts, which say what cannot happen. What is equivalent for
another reason counts as a survivor.

The verdict depends on nothing but the tree and the seed: hypothesis draws the same examples every time and keeps none,
and it doesn't shrink what it found. Tests that start programs of ours test those without the mutant. Own code, because
what there is on the package index changes the tree in place, or runs the whole suite for every mutant.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import importlib.util
import json
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "scheduler" / "fairlead"
MODULES = (
    *sorted(f"ledger/{file.stem}" for file in (PACKAGE / "ledger").glob("[a-z]*.py")),
    *(f"model/{name}" for name in ("queue_caps", "queue_tree", "quota", "quota_exception")),
    *(f"ordering/{name}" for name in ("accounts", "dominant", "fair_share", "history", "queue_tree", "standing")),
    *(f"planning/{name}" for name in ("budgets", "caps", "idle", "over_limit", "quota_places", "tiers")),
    *(f"planning/{name}" for name in ("verify_budgets", "verify_caps", "verify_idle", "verify_quotas")),
    *(f"world/{name}" for name in ("charges", "idleness", "in_force", "tenants")),
)
"""All of the ledger, and where quotas, shares, limits and budgets are worked out and checked."""
TESTS = (
    "accounts", "accounts_by_hand", "anomaly_report", "archives", "audit", "audit_money", "books_edges",
    "budget_bounds", "budgets", "cost_anomalies", "cost_report", "costs", "decode_queues", "dominant",
    "entitlements_by_hand", "fair_share", "holds", "idle", "ledger", "ledger_parts", "meter_snapshot", "money_commands",
    "outcomes", "outcomes_edges", "over_limit", "periods", "pods_booked", "policy_objects", "prices", "published",
    "queue_tree", "quota_readers", "quotas", "reports", "rollups", "scenarios", "slurm_classic", "standing_order",
    "tamper", "tiers", "topology_penalty", "verify", "verify_quotas", "worked_example",
)  # fmt: skip
"""tests/test_<name>.py: those that ask these modules something, without the long walks through random worlds."""
AT_LEAST = 85
"""Per cent of mutants that must be found."""

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
    """Return (number of the node in a walk, how) of every mutant of a module."""
    nodes = list(ast.walk(ast.parse(source)))
    spared: set[ast.AST] = set()
    for node in nodes:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            spared |= {inner for decorator in node.decorator_list for inner in ast.walk(decorator)}
        if isinstance(node, ast.keyword) and node.arg == "strict":
            spared.add(node.value)
        if isinstance(node, ast.Assert):
            spared |= set(ast.walk(node))
    return [(at, how) for at, node in enumerate(nodes) if node not in spared for how in changes(node)]


@cache
def lines_of(source: str, at: int) -> tuple[range, bool]:
    """Return the lines of the statement that a node is part of, without its body, and whether a function runs it."""
    tree = ast.parse(source)
    wanted = list(ast.walk(tree))[at]
    stack: list[tuple[ast.AST, ast.stmt | None, bool]] = [(tree, None, False)]
    while stack:
        node, statement, inside = stack.pop()
        statement = node if isinstance(node, ast.stmt) else statement
        if node is wanted and statement is not None:
            body = getattr(statement, "body", None)
            first, last = statement.lineno, body[0].lineno - 1 if body else statement.end_lineno or 0
            if not isinstance(wanted, ast.stmt):  # a guard of a later case stands below the first case's body
                last = max(last, getattr(wanted, "end_lineno", 0))
            return range(first, max(first, last) + 1), inside
        runs = isinstance(node, ast.FunctionDef | ast.Lambda)
        body_of = getattr(node, "body", None)
        for child in ast.iter_child_nodes(node):
            inner = inside or (runs and (child is body_of or (isinstance(body_of, list) and child in body_of)))
            stack.append((child, statement, inner))
    raise AssertionError(at)


def planted(source: str, at: int, file: Path) -> CodeType:
    """Return the code of a module with one change."""
    tree = ast.parse(source)
    change(list(ast.walk(tree))[at])
    return compile(ast.fix_missing_locations(tree), str(file), "exec", dont_inherit=True)


class Planted(SourceFileLoader):
    """Finds one module only, and loads other code for it than its file has."""

    code: CodeType

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def is_library(module: object) -> bool:
    """Whether a module is one that was installed."""
    return "site-packages" in (getattr(module, "__file__", None) or "")


class Lines:
    """Plugin that notes of every test which lines of `files` it comes through, and the CPU time that it takes."""

    def __init__(self, files: set[str], out: Path) -> None:
        self.files, self.out = files, out
        self.seen: set[tuple[str, int]] = set()
        self.shared: dict[str, set[tuple[str, int]]] = {}
        self.tests: dict[str, tuple[float, set[tuple[str, int]]]] = {}
        self.failed: list[str] = []
        self.caches: list[Any] = []

    def enter(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in self.files:
            return None
        return self.step(frame, event, arg)

    def step(self, frame: FrameType, event: str, arg: object) -> Any:
        self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self.step

    def pytest_collection_finish(self) -> None:
        kept = [one for one in gc.get_objects() if isinstance(one, type(lines_of))]
        self.caches = [one for one in kept if not is_library(sys.modules.get(str(one.__module__)))]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        for cached in self.caches:  # or only the first test would be seen to come through
            cached.cache_clear()
        self.seen, began = set(), time.process_time()
        sys.settrace(self.enter)
        threading.settrace(self.enter)
        found = yield
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        self.tests[item.nodeid] = time.process_time() - began, self.seen
        return found

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        if fixturedef.scope == "function":
            return (yield)
        before, self.seen = self.seen, set()
        found = yield
        self.shared.setdefault(request.node.nodeid.partition("::")[0], set()).update(self.seen)
        self.seen |= before
        return found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        libraries = [name for name, module in sys.modules.items() if is_library(module)]
        tests = {
            name: (cost, sorted(seen | self.shared.get(name.partition("::")[0], set())))
            for name, (cost, seen) in self.tests.items()
        }
        found = {"failed": self.failed, "libraries": libraries, "tests": tests}
        self.out.write_text(json.dumps(found), encoding="utf-8")


class Ordered:
    """Plugin that runs the given tests only, in their order, and says which one failed."""

    def __init__(self, names: list[str], out: Path) -> None:
        self.place, self.out = {name: at for at, name in enumerate(names)}, out

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.place), key=lambda i: self.place[i.nodeid])
        assert len(items) == len(self.place), "not all tests were found again"

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.out.write_text(report.nodeid, encoding="utf-8")


def in_child(work: Callable[[], int], cpu_s: int) -> int:
    """Run in a process of its own that may take so much CPU time; return its exit code, or less than 0 if it died."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
            signal.alarm(20 * cpu_s)  # one that waits for something takes no CPU time
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_tests(files: list[str], plugin: object, *more: str) -> int:
    """Run test files in this process."""
    sys.dont_write_bytecode = False
    marks = "not slow and not postgres and not cluster and not browser"
    asked = ["-q", "-p", "no:cacheprovider", "-m", marks, "--hypothesis-profile=mutants", "--hypothesis-seed=0"]
    asked += ["-W", "ignore::pytest.PytestAssertRewriteWarning", *more]
    return int(pytest.main([*asked, *files], plugins=[plugin]))


class Hunt:
    """What every test comes through, and with that the tests that may find a mutant."""

    def __init__(self, folder: Path) -> None:
        """Run all tests without a mutant."""
        self.out = folder / "out"
        self.files = {name: PACKAGE / f"{name}.py" for name in MODULES}
        self.sources = {name: file.read_text(encoding="utf-8") for name, file in self.files.items()}
        watched = {str(file) for file in self.files.values()}
        names = [str(ROOT / "tests" / f"test_{name}.py") for name in TESTS]
        in_child(lambda: run_tests(names, Lines(watched, self.out)), 3_600)
        found = json.loads(self.out.read_text(encoding="utf-8"))
        if found["failed"]:
            raise SystemExit(f"these fail without a mutant: {found['failed']}")
        self.cost: dict[str, float] = {}
        self.through: dict[tuple[str, int], list[str]] = {}
        for test, (cost, seen) in found["tests"].items():
            self.cost[test] = cost
            for file, line in seen:
                self.through.setdefault((file, line), []).append(test)
        for name in found["libraries"]:  # each mutant's process has them, and imports only what is ours
            with suppress(Exception):
                importlib.import_module(name)

    def tests_of(self, name: str, at: int) -> list[str]:
        """Return who may find a mutant, the cheapest first."""
        file = str(self.files[name])
        lines, inside = lines_of(self.sources[name], at)
        if inside:
            asked = {test for line in lines for test in self.through.get((file, line), ())}
            return sorted(asked, key=lambda test: (self.cost[test], test))
        near = {test for (of, _), tests in self.through.items() if of == file for test in tests}
        return sorted(self.cost, key=lambda test: (test not in near, self.cost[test], test))

    def line(self, name: str, at: int) -> int:
        """Return the line of a node."""
        return getattr(list(ast.walk(ast.parse(self.sources[name])))[at], "lineno", 0)

    def finder(self, name: str, at: int) -> str:
        """Return the test that finds a mutant, "" where none does."""
        tests = self.tests_of(name, at)
        loader = Planted(f"fairlead.{name.replace('/', '.')}", str(self.files[name]))
        loader.code = planted(self.sources[name], at, self.files[name])
        for part in self._parts(tests):
            self.out.unlink(missing_ok=True)
            files = [str(ROOT / file) for file in sorted({test.partition("::")[0] for test in part})]
            plugin = Ordered(part, self.out)

            def work(files: list[str] = files, plugin: Ordered = plugin) -> int:
                sys.meta_path.insert(0, loader)  # type: ignore[arg-type]
                return run_tests(files, plugin, "-x")

            code = in_child(work, 30 + int(5 * sum(self.cost[test] for test in part)))
            if code:
                return self.out.read_text(encoding="utf-8") if self.out.exists() else f"exit code {code}"
        return ""

    def _parts(self, tests: list[str]) -> Iterator[list[str]]:
        """Yield first the tests of those files that cost little together, then all the others."""
        cost: dict[str, float] = {}
        for test in tests:
            file = test.partition("::")[0]
            cost[file] = cost.get(file, 0.3) + self.cost[test]
        left, cheap = 3.0, set[str]()
        for file in sorted(cost, key=lambda file: cost[file]):
            left -= cost[file]
            if left > 0:
                cheap.add(file)
        for wanted in (True, False):
            part = [test for test in tests if (test.partition("::")[0] in cheap) is wanted]
            if part:
                yield part


def main() -> int:
    """Try a sample; print survivors and the share that was killed. Exit code 1 where that is below `AT_LEAST`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=MODULES, default=MODULES, metavar="MODULE")
    asked = parser.parse_args()
    os.chdir(ROOT)
    every = tuple(phase for phase in Phase if phase not in (Phase.shrink, Phase.explain, Phase.reuse))
    settings.register_profile("mutants", deadline=None, database=None, phases=every)
    tried, survivors, until = 0, list[dict[str, object]](), time.monotonic() + 60 * asked.minutes
    with tempfile.TemporaryDirectory() as folder:
        hunt = Hunt(Path(folder))
        everything = [(name, at, how) for name in sorted(asked.only) for at, how in sites(hunt.sources[name])]
        for name, at, how in random.Random(asked.seed).sample(everything, min(asked.count, len(everything))):
            if time.monotonic() > until:
                break
            by, line = hunt.finder(name, at), hunt.line(name, at)
            tried += 1
            if not by:
                code = hunt.sources[name].splitlines()[line - 1].strip()
                survivors.append({"module": name, "line": line, "how": how, "code": code})
                print(f"survived: {survivors[-1]}", flush=True)
            said = {"mutants": len(everything), "seed": asked.seed, "tried": tried, "killed": tried - len(survivors)}
            if asked.json:
                asked.json.write_text(json.dumps({**said, "survivors": survivors}, indent=1), encoding="utf-8")
    share = 100 * (tried - len(survivors)) // max(1, tried)
    print(f"{tried} of {len(everything)} mutants tried, {tried - len(survivors)} killed ({share} %)")
    return 0 if share >= AT_LEAST else 1


if __name__ == "__main__":
    sys.exit(main())
