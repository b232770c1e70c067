"""Run the packing protocol on every openb list of the data folder and print a table; ``--write`` puts it on the page.

Run with ``make bench-openb`` or ``python tests/bench_openb.py [--policies default,fgd] [--seeds 42-51] [--write]``. The
lists are looked for in ``$FAIRLEAD_DATA/fgd-atc23/csv``.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median, stdev

from fairlead.bench.openb import sweep
from fairlead.bench.openb_files import read_nodes, read_pods
from fairlead.bench.published_policies import POLICIES
from fairlead.cli.bench_openb import numbers_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/explanation/performance.md"
BEGIN, END = "<!-- make bench-openb writes from here -->", "<!-- to here -->"
FOLDER = Path(os.environ.get("FAIRLEAD_DATA", ROOT / "../shared/data")) / "fgd-atc23/csv"
PREFIX = "openb_pod_list_"


def table(policies: list[str], seeds: list[int]) -> str:
    """Run everything; rows are lists, columns policies, cells unallocated percent at 100 (sd) and at 130."""
    nodes = read_nodes(FOLDER / "openb_node_list_gpu_node.csv")
    lines = ["| list | " + " | ".join(policies) + " |", "|---" * (len(policies) + 1) + "|"]
    means: dict[str, list[float]] = {policy: [] for policy in policies}
    seconds: dict[str, list[float]] = {policy: [] for policy in policies}
    for file in sorted(FOLDER.glob(f"{PREFIX}*.csv")):
        pods, cells = read_pods(file), []
        for policy in policies:
            result = sweep(nodes, pods, POLICIES[policy], seeds=seeds, arrived=[100, 130])
            at_100, at_130 = result.unallocated[100], result.unallocated[130]
            spread = stdev(at_100) if len(at_100) > 1 else 0.0
            cells.append(f"{fmean(at_100):.2f} ± {spread:.2f} ({fmean(at_130):.2f})")
            means[policy].append(fmean(at_100))
            seconds[policy] += result.seconds
        lines.append(f"| {file.stem.removeprefix(PREFIX)} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    lines.append("| mean | " + " | ".join(f"{fmean(means[policy]):.2f}" for policy in policies) + " |")
    lines.append(
        "| seconds a run, median | " + " | ".join(f"{median(seconds[policy]):.1f}" for policy in policies) + " |"
    )
    return "\n".join(lines)


def git(*args: str) -> str:
    """One line that git answers."""
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Run, print, and where asked write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policies", default="default,fgd,bestfit,random")
    parser.add_argument("--seeds", default="42-51")
    parser.add_argument("--write", action="store_true", help="put the table on docs/explanation/performance.md")
    options = parser.parse_args()
    seeds = numbers_of(options.seeds, "--seeds", least=0, most=2**31)
    found = table(options.policies.split(","), seeds)
    day = datetime.now(tz=UTC).date().isoformat()
    head = f"{day}, commit {git('rev-parse', '--short', 'HEAD')}, {platform.machine()}, seeds {options.seeds}."
    text = f"{head}\n\n{found}"
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        section = re.compile(f"(?s){re.escape(BEGIN)}.*{re.escape(END)}")
        PAGE.write_text(section.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
