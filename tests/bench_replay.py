"""Replay the public job traces by every policy and print a table; ``--write`` puts it on the page.

Run with ``make bench-replay`` or ``python tests/bench_replay.py [--write]``. The traces are looked for in
``$FAIRLEAD_DATA/muri-sigcomm22/traces``.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from fairlead.bench.muri_trace import read_trace
from fairlead.bench.replay import Cluster, replay

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/explanation/performance.md"
BEGIN, END = "<!-- make bench-replay writes from here -->", "<!-- end of bench-replay -->"
FOLDER = Path(os.environ.get("FAIRLEAD_DATA", ROOT / "../shared/data")) / "muri-sigcomm22/traces"
RUNS = (
    ("srtf", "paper", True),
    ("srsf", "paper", True),
    ("default", "paper", True),
    ("default", "paper", False),
    ("srtf", "none", True),
    ("srsf", "none", True),
    ("default", "none", True),
    ("default", "none", False),
)
PUBLISHED_S = {  # average completion times, "raw data" of the authors' figure 9; all with their overhead
    ("trace1", "srtf"): 1370603.198,
    ("trace1", "srsf"): 980140.5699,
    ("trace3", "srtf"): 193081.796,
    ("trace3", "srsf"): 185021.8802,
}


def table() -> str:
    """Run everything; a row per trace, policy and overhead."""
    heads = "| trace | policy | overhead | mean s | published | p99 s | all done s | lost GPU-s | preempted | took s |"
    lines = [heads, "|---" * 10 + "|"]
    for trace in ("trace1", "trace3"):
        jobs = read_trace(FOLDER / f"{trace}.csv")
        for policy, overhead, known in RUNS:
            found = replay(jobs, Cluster(nodes=8, gpus=8), policy=policy, overhead=overhead == "paper", known=known)
            told = policy if policy != "default" else f"default, durations {'known' if known else 'unknown'}"
            published = PUBLISHED_S.get((trace, policy)) if overhead == "paper" else None
            cells = (
                trace,
                told,
                overhead,
                f"{found.avg_jct_s:,.1f}",
                f"{published:,.1f}" if published else "",
                f"{found.p99_jct_s:,.0f}",
                f"{found.makespan_s:,.0f}",
                f"{found.lost_gpu_s:,.0f}",
                f"{found.preemptions:,}",
                f"{found.seconds:.1f}",
            )
            lines.append("| " + " | ".join(cells) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def git(*args: str) -> str:
    """One line that git answers."""
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Run, print, and where asked write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table on docs/explanation/performance.md")
    options = parser.parse_args()
    found = table()
    day = datetime.now(tz=UTC).date().isoformat()
    text = f"{day}, commit {git('rev-parse', '--short', 'HEAD')}, {platform.machine()}.\n\n{found}"
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        section = re.compile(f"(?s){re.escape(BEGIN)}.*?{re.escape(END)}")
        PAGE.write_text(section.sub(lambda _: f"{BEGIN}\n\n{text}\n\n{END}", page), encoding="utf-8")


if __name__ == "__main__":
    main()
