"""Copy crds/ into the Helm chart, byte for byte; with --check, only say where they differ.

The chart needs the files inside its own folder, people read and edit them in crds/. A test holds the two equal.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crds"
CHART = ROOT / "helm" / "fairlead" / "crds"


def differences(source: Path = SOURCE, chart: Path = CHART) -> list[str]:
    """List the files that are missing, left over or different in the chart, one sentence each, by name."""
    ours = {path.name: path.read_bytes() for path in sorted(source.glob("*.yaml"))}
    theirs = {path.name: path.read_bytes() for path in sorted(chart.glob("*.yaml"))}
    found = []
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs:
            found.append(f"{name} is missing in the chart")
        elif name not in ours:
            found.append(f"{name} is in the chart only")
        elif ours[name] != theirs[name]:
            found.append(f"{name} differs")
    return found


def sync(source: Path = SOURCE, chart: Path = CHART) -> None:
    """Make the chart's folder hold exactly the files of `source`."""
    chart.mkdir(parents=True, exist_ok=True)
    for stale in sorted(chart.glob("*.yaml")):
        if not (source / stale.name).exists():
            stale.unlink()
    for path in sorted(source.glob("*.yaml")):
        (chart / path.name).write_bytes(path.read_bytes())


def main(arguments: list[str]) -> int:
    """Run; return 0 when the chart is equal, 1 when --check found differences, 2 for wrong usage."""
    if arguments not in ([], ["--check"]):
        print("usage: sync_chart_crds.py [--check]", file=sys.stderr)
        return 2
    if not arguments:
        sync()
    found = differences()
    for line in found:
        print(f"{line}: run tools/sync_chart_crds.py")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
