"""What no single module can promise about itself: sizes, names, doors, loose ends, and what an import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE_ROOTS = ("scheduler/fairlead", "operator/fairlead_operator")
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
NOT_TEXT = {".gz", ".ico", ".jpg", ".parquet", ".png", ".sqlite", ".tgz", ".woff2", ".zip", ".zst"}

# Each outside library has one door, so that its oddities and its absence are dealt with in one place.
DOORS = {
    "aiohttp": (
        "operator/fairlead_operator/health.py",
        "operator/fairlead_operator/kube_",
        "operator/fairlead_operator/watch.py",
        "operator/fairlead_operator/kubectl/",
    ),
    "alembic": ("scheduler/fairlead/store/", "migrations/"),
    "fastapi": ("scheduler/fairlead/service/http_",),
    "kubernetes": (
        "operator/fairlead_operator/kube_",
        "operator/fairlead_operator/watch.py",
        "operator/fairlead_operator/kubectl/",
    ),
    "prometheus_client": ("scheduler/fairlead/service/metrics.py",),
    "psycopg": ("scheduler/fairlead/store/",),
    "pynvml": ("scheduler/fairlead/discovery/nvml.py",),
    "sqlalchemy": ("scheduler/fairlead/store/", "migrations/"),
    "uvicorn": ("scheduler/fairlead/service/", "scheduler/fairlead/cli/"),
}
# Discovery turns what was read into facts; only the module that talks to the driver may ask the machine anything.
IMPURE = {"asyncio", "logging", "random", "socket", "subprocess", "threading", "time"}

CORE = [
    "clock",
    "config",
    "discovery",
    "errors",
    "ledger",
    "model",
    "ordering",
    "placement",
    "planning",
    "topology",
    "units",
    "world",
]
EXTRAS = [
    "aiohttp",
    "alembic",
    "fastapi",
    "jinja2",
    "kubernetes",
    "prometheus_client",
    "psycopg",
    "pynvml",
    "sqlalchemy",
    "uvicorn",
]


@cache
def project_files() -> tuple[Path, ...]:
    """Everything that is, or is about to be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return tuple(path for name in sorted(set(listed.split("\0")) - {""}) if (path := ROOT / name).is_file())


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files() -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py"]


def source_files() -> list[Path]:
    return [path for path in python_files() if name_of(path).startswith(SOURCE_ROOTS)]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=name_of(path))


def text_lines(*, without: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield ("file:line", text) over all files but `without` and those that hold no text."""
    for path in project_files():
        if path.suffix not in NOT_TEXT and name_of(path) not in without:
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                yield f"{name_of(path)}:{number}", line


def imported_names(path: Path) -> Iterator[str]:
    """Yield the top-level package of every absolute import, inside functions too."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def test_there_is_something_to_check() -> None:
    roots = {name_of(path).split("/")[0] for path in source_files()}
    assert roots == {"scheduler", "operator"}


def test_modules_stay_readable() -> None:
    sizes = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in python_files()}
    assert {name: lines for name, lines in sizes.items() if lines > MODULE_LINES_MAX} == {}


def test_functions_stay_readable() -> None:
    long = {
        f"{name_of(path)}:{node.lineno} {node.name}": lines
        for path in python_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert long == {}


def undocumented(path: Path) -> Iterator[str]:
    """Yield the module and its public classes, functions and methods that have no docstring."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            marks = {ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list}
            if ast.get_docstring(node) is None and not marks & {"overload", "override", "setter"}:
                yield f"{prefix}{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{prefix}{node.name}.")

    if ast.get_docstring(tree_of(path)) is None:
        yield name_of(path)
    yield from walk(tree_of(path).body, f"{name_of(path)}: ")


def test_everything_public_says_what_it_is() -> None:
    assert [name for path in source_files() for name in undocumented(path)] == []


@pytest.mark.parametrize("folder", ["operator", "scheduler"])
def test_source_roots_are_no_packages(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()
    assert subprocess.run(["git", "check-ignore", "-q", f"{folder}/__init__.py"], cwd=ROOT, check=False).returncode == 0


def test_both_packages_ship_their_types() -> None:
    assert [root for root in SOURCE_ROOTS if not (ROOT / root / "py.typed").is_file()] == []


def test_names_say_something_and_shadow_nothing() -> None:
    empty = {"base", "common", "helper", "helpers", "manager", "misc", "util", "utils"}
    for path in source_files():
        for part in (path.stem, path.parent.name):
            assert part not in empty, f"{name_of(path)}: name it after what it does"
        assert path.stem not in sys.stdlib_module_names, f"{name_of(path)}: named like a standard library module"


def test_no_loose_ends() -> None:
    loose = re.compile(
        r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK"]) + r")\b|NotImplemented" + "Error"
    )
    assert [where for where, line in text_lines() if loose.search(line)] == []


def test_no_path_of_one_machine() -> None:
    machine = re.compile(r"(?<![\w./$}~-])/(home|root|work|Users)(/[\w.]|\b(?![\w/-]))")
    assert [where for where, line in text_lines(without=("tests/test_tidy.py",)) if machine.search(line)] == []


def test_links_between_pages_lead_somewhere() -> None:
    dead = [
        f"{where} -> {target}"
        for where, line in text_lines()
        if (page := ROOT / where.partition(":")[0]).suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", line)
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert dead == []


def test_each_outside_library_has_one_door() -> None:
    strays = [
        f"{name_of(path)} imports {package}"
        for path in python_files()
        if not name_of(path).startswith("tests/")
        for package in sorted(set(imported_names(path)))
        if package in DOORS and not name_of(path).startswith(DOORS[package])
    ]
    assert strays == []


def test_discovery_is_pure_but_for_the_driver() -> None:
    strays = [
        f"{name_of(path)} imports {package}"
        for path in source_files()
        if "/discovery/" in name_of(path) and path.name != "nvml.py"
        for package in sorted(IMPURE & set(imported_names(path)))
    ]
    assert strays == []


def locked_blocks() -> list[str]:
    """One block a package: its line and the indented lines that belong to it."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return [block for block in re.split(r"\n(?=\S)", text.strip()) if not block.startswith("#")]


def test_the_lock_pins_by_version_and_hash_and_names_no_address() -> None:
    assert len(locked_blocks()) > 30
    for block in locked_blocks():
        assert re.match(r"[a-z0-9._-]+==[\w.!+]+( ;[^\\]*)? \\\n", block), block
        assert "--hash=sha256:" in block
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert re.findall(r"\w+://|--(?:find-links|index-url|extra-index-url)|^\s*-[ef] | @ ", text, re.MULTILINE) == []


def test_the_lock_holds_all_that_the_project_asks_for() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *config["project"]["dependencies"],
        *(wish for extra in config["project"]["optional-dependencies"].values() for wish in extra),
        *config["dependency-groups"]["dev"],
        *config["build-system"]["requires"],
    ]
    names = {re.split(r"[\[<>=;~! ]", wish)[0].lower() for wish in asked} - {"fairlead"}
    assert names - {block.partition("==")[0] for block in locked_blocks()} == set()


def run_python(code: str) -> str:
    """Run `code` in a fresh interpreter, outside the checkout's folder, and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_imports_without_any_extra() -> None:
    code = f"""
import importlib, pkgutil, sys
extras = set({EXTRAS!r})
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in extras:
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Blocked())
import fairlead
for found in pkgutil.walk_packages(fairlead.__path__, "fairlead."):
    if found.name.split(".")[1] in {CORE!r} or found.name == "fairlead.cli.main":
        importlib.import_module(found.name)
print(len([name for name in sys.modules if name.startswith("fairlead.")]))
"""
    assert int(run_python(code)) > 20


def test_help_does_not_load_what_it_does_not_need() -> None:
    heavy = ["alembic", "fastapi", "kubernetes", "networkx", "numpy", "pydantic", "sqlalchemy", "uvicorn"]
    code = f"import sys, fairlead.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    assert run_python(code).strip() == "[]"
