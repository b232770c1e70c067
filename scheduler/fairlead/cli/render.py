"""Tables and explanations for people, of the documents in `fairlead.service.view_json`.

`fairlead` and `kubectl-fairlead` print through here, so both look alike.

On a terminal Rich draws; otherwise lines are plain, columns padded and nothing is ever cut off. Colour only repeats
what a word says already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TextIO

from fairlead.cli.saving_text import saving_lines
from fairlead.units import duration_text, gpu_hours_text, gpus_of, pace_text

if TYPE_CHECKING:
    from fairlead.service.view_json import (
        FragmentationDoc,
        GangDoc,
        MemberDoc,
        NodeDoc,
        PoolDoc,
        QueueDoc,
        RecutPlanDoc,
        UsageDoc,
    )

RICH_ROWS = 300  # Rich measures every cell; above this many rows plain lines are faster by an order of magnitude
_PHASE_STYLE = {"Running": "green", "Pending": "yellow", "Failed": "red", "Refused": "red", "Stopping": "magenta"}


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    right: frozenset[str] = frozenset(),
    out: TextIO | None = None,
) -> None:
    """Print rows under `head`; columns named in `right` are numbers."""
    out = _stdout() if out is None else out
    cells = [[_cell(value) for value in row] for row in rows]
    if out.isatty() and len(rows) <= RICH_ROWS:
        _rich_table(head, cells, right, out)
        return
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(head)]
    lines: list[str] = []
    for row in [list(head), *cells]:
        parts = [
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    out.write("\n".join(lines) + "\n")


def _rich_table(head: Sequence[str], cells: Sequence[Sequence[str]], right: frozenset[str], out: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        drawn.add_column(name, justify="right" if name in right else "left", no_wrap=name != "REASON", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(text, style=_PHASE_STYLE.get(text, "")) for text in row))
    # A cell is never folded or cut: a table wider than the terminal is wrapped by the terminal itself.
    needed = sum(max(len(name), *(len(row[i]) for row in cells), 0) + 2 for i, name in enumerate(head))
    console = Console(file=out)
    Console(file=out, width=max(needed, console.width)).print(drawn, soft_wrap=True)


def _cell(value: object) -> str:
    """Show a value; nothing is a dash, so that columns can be counted. Control characters never reach a terminal."""
    if value is None or value == "":
        return "-"
    return "".join(c if c.isprintable() else "?" for c in str(value))


def age_text(then_ms: int | None, now_ms: int) -> str:
    """Write how long ago something was."""
    if then_ms is None:
        return "-"
    age_ms = max(0, now_ms - then_ms) // 1_000 * 1_000
    return duration_text(age_ms) if age_ms else "0s"


def start_text(gang: GangDoc, now_ms: int) -> str | None:
    """Write the range in which a waiting gang starts, or the word unknown; None for one that does not wait."""
    start = gang["start"]
    if start is None:
        return None
    if start["p50_ms"] is None or start["p90_ms"] is None:
        return "unknown"
    low, high = (duration_text(max(0, at_ms - now_ms)) for at_ms in (start["p50_ms"], start["p90_ms"]))
    return f"+{low}..+{high}"


def span_text(span: Mapping[str, int] | None) -> str | None:
    """Write over how many domains of each level a gang lies, tightest level first; None where nobody knows.

    >>> span_text({"rack": 1, "node": 2, "island": 1})
    '1 island, 2 nodes, 1 rack'
    """
    if not span:
        return None
    usual = {name: place for place, name in enumerate(("island", "node", "rack", "block"))}
    levels = sorted(span.items(), key=lambda item: (usual.get(item[0], 9), -item[1], item[0]))
    return ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in levels)


def gangs(docs: Sequence[GangDoc], now_ms: int, *, out: TextIO | None = None) -> None:
    """Print one line a gang."""
    head = ("NAMESPACE", "NAME", "QUEUE", "PRI", "GPUS", "STATE", "POS", "REASON", "START", "AGE", "PACE", "SPAN")
    rows = [
        (
            gang["namespace"],
            gang["name"],
            gang["queue"],
            gang["priority"],
            gang["gpus"],
            gang["phase"],
            gang["position"],
            gang["reason"],
            start_text(gang, now_ms),
            age_text(gang["submitted_ms"], now_ms),
            pace_text(gang["pace_bytes_per_s"] or 0),
            span_text(gang["span"]),
        )
        for gang in docs
    ]
    table(head, rows, right=frozenset({"PRI", "GPUS", "POS"}), out=out)


def explain(gang: GangDoc, now_ms: int, *, out: TextIO | None = None) -> None:
    """Print all that is known of one gang: why it waits, or where it runs, and what it has cost."""
    out = _stdout() if out is None else out
    lines = [f"{gang['namespace']}/{gang['name']} is {gang['phase']}"]
    if gang["position"] is not None:
        lines[0] += f", number {gang['position']} in queue {gang['queue']}"
    lines.append(f"  asks       {gang['gpus']} GPUs in {gang['members']} members, queue {gang['queue']}")
    if gang["priority"] is not None:
        lines[-1] += f", priority {gang['priority']}"
    if gang["reason"] is not None:
        lines.append(f"  reason     {gang['reason']}: {gang['message'] or ''}")
    if gang["victims"]:
        lines.append(f"  room       is being made by: {', '.join(gang['victims'])}")
    start = start_text(gang, now_ms)
    if start is not None:
        basis = gang["start"]["basis"] if gang["start"] else ""
        lines.append(f"  start      {start}" + (f" (basis: {basis})" if basis and basis != "unknown" else ""))
    lines += _attempt_lines(gang, now_ms) + saving_lines(gang["checkpoint"], now_ms) + _allocation_lines(gang)
    cost = f"{gpu_hours_text(gang['gpu_ms'])} GPU-hours so far"
    if gang["lost_gpu_ms"]:
        cost += f", {gpu_hours_text(gang['lost_gpu_ms'])} of them in attempts that did not finish"
    lines.append(f"  cost       {cost}")
    out.write("\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines) + "\n")


def _attempt_lines(gang: GangDoc, now_ms: int) -> list[str]:
    if not gang["attempt"]:
        return ["  attempt    none yet"]
    parts = [f"attempt    {gang['attempt']}, restarts after failures {gang['restarts']}"]
    if gang["started_ms"] is not None:
        parts.append(f"first ran {_clock(gang['started_ms'])}")
    if gang["finished_ms"] is not None:
        parts.append(f"ended {_clock(gang['finished_ms'])}")
    lines = ["  " + ", ".join(parts)]
    if gang["idle_since_ms"] is not None:
        idle = duration_text(max(0, now_ms - gang["idle_since_ms"]))
        lines.append(f"  idle       all its devices, for {idle}; spec.idle of the Queue says what comes of that")
    return lines


def _allocation_lines(gang: GangDoc) -> list[str]:
    allocation = gang["allocation"]
    if allocation is None:
        return []
    where = f"{allocation['level']} {allocation['domain']}".strip()
    tier = f", {gang['tier']}" if gang["tier"] else ""
    pace = allocation["pace_bytes_per_s"]
    link = pace_text(pace) if pace else "unknown" if gang["gpus"] > 1 else ""
    lines = [f"  placed     within {where}{tier}" + (f", slowest link {link}" if link else "")]
    if span := span_text(allocation["span"]):
        lines.append(f"  spans      {span}")
    if pace:
        lines.append(f"  pace       {pace_text(pace)} predicted between any two GPUs of the gang, from the wiring")
    lines += [f"  worse      {text}" for text in allocation["penalties"]]
    lines += [f"    {node}: {', '.join(pods)}" for node, pods in _by_rank(allocation["members"])]
    return lines


def _by_rank(members: Sequence[MemberDoc]) -> list[tuple[str, list[str]]]:
    """Group members by node without changing their rank order; a node stands again where ranks come back to it."""
    groups: list[tuple[str, list[str]]] = []
    for member in members:
        text = f"{member['pod']}={_held_text(member)}"
        if groups and groups[-1][0] == member["node"]:
            groups[-1][1].append(text)
        else:
            groups.append((member["node"], [text]))
    return groups


def _held_text(member: MemberDoc) -> str:
    """Write what one member holds."""
    parts = [member["devices"] or "no GPU"]
    if member["mig_start"] >= 0:
        parts.append(f"instance at unit {member['mig_start']}")
    elif member["share_milli"]:
        parts.append(f"{member['share_milli']}/1000 of it")
    if member["cpus"]:
        parts.append(f"CPUs {member['cpus']}")
    if member["nics"]:
        parts.append(f"NICs {member['nics']}")
    return parts[0] if len(parts) == 1 else f"{parts[0]} ({'; '.join(parts[1:])})"


def queues(docs: Sequence[QueueDoc], *, out: TextIO | None = None) -> None:
    """Print one line a queue, children under their parents."""
    head = ("QUEUE", "TENANT", "GUARANTEED", "LIMIT", "USED", "BORROWED", "PENDING", "RUNNING", "NOTE")
    rows = [
        (
            "  " * depth + doc["name"],
            doc["tenant"],
            doc["guaranteed"],
            doc["limit"],
            doc["used"],
            doc["borrowed"],
            doc["pending"],
            doc["running"],
            "; ".join([*(["over its limit"] if doc["over_limit"] else []), *doc.get("notes", [])]) or None,
        )
        for depth, doc in _as_tree(docs)
    ]
    table(head, rows, right=frozenset({"GUARANTEED", "LIMIT", "USED", "BORROWED", "PENDING", "RUNNING"}), out=out)


def quotas(docs: Sequence[QueueDoc], *, out: TextIO | None = None) -> None:
    """Print one line for each resource that a queue has a quota of, children under their parents."""
    head = ("QUEUE", "TENANT", "RESOURCE", "GUARANTEED", "LIMIT", "USED", "BORROWED")
    rows = [
        ("  " * depth + doc["name"], doc["tenant"], *(one[field] for field in _OF_RESOURCE))
        for depth, doc in _as_tree(docs)
        for one in doc.get("resources", [])
    ]
    table(head, rows, right=frozenset({"GUARANTEED", "LIMIT", "USED", "BORROWED"}), out=out)


_OF_RESOURCE: tuple[Literal["name", "guaranteed", "limit", "used", "borrowed"], ...] = (
    "name", "guaranteed", "limit", "used", "borrowed",
)  # fmt: skip


def _as_tree(docs: Sequence[QueueDoc]) -> list[tuple[int, QueueDoc]]:
    """Order queues with each below its parent; one whose parent is not shown, or stands in a circle, is a root."""
    names = {doc["name"] for doc in docs}
    children: dict[str, list[QueueDoc]] = {}
    for doc in sorted(docs, key=lambda doc: doc["name"]):
        parent = doc["parent"] or ""
        children.setdefault(parent if parent in names else "", []).append(doc)
    ordered: list[tuple[int, QueueDoc]] = []
    seen: set[str] = set()

    def walk(name: str, depth: int) -> None:
        for doc in children.get(name, []):
            if doc["name"] not in seen:
                seen.add(doc["name"])
                ordered.append((depth, doc))
                walk(doc["name"], depth + 1)

    walk("", 0)
    ordered += [(0, doc) for doc in docs if doc["name"] not in seen]
    return ordered


def nodes(docs: Sequence[NodeDoc], *, out: TextIO | None = None) -> None:
    """Print one line a node, with its devices by state."""
    head = ("NODE", "POOL", "MODEL", "GPUS", "FREE", "HELD", "FOREIGN", "DOWN", "STATE", "WHERE")
    rows = [
        (
            doc["name"],
            doc["pool"],
            doc["model"],
            doc["gpus"],
            doc["free"],
            doc["held"],
            doc["foreign"],
            doc["down"],
            _node_state(doc),
            " ".join(f"{level}={domain}" for level, domain in sorted(doc["levels"].items())),
        )
        for doc in docs
    ]
    table(head, rows, right=frozenset({"GPUS", "FREE", "HELD", "FOREIGN", "DOWN"}), out=out)


def recuts(doc: RecutPlanDoc, *, out: TextIO | None = None) -> None:
    """Print one line a GPU that is to be cut anew, then what would still wait."""
    page = out or sys.stdout
    head = ("NODE", "GPU", "NOW", "THEN", "SERVES", "GAIN", "COST", "STRANDED")
    rows = [
        (
            item["node"],
            item["device"],
            " ".join(item["before"]) or "nothing",
            " ".join(item["after"]) or "nothing",
            " ".join(f"{count:+d} {name}" for name, count in sorted(item["serves"].items())),
            duration_text(item["gain_gpu_ms"]),
            duration_text(item["cost_gpu_ms"]),
            f"{item['stranded_before'] / 10:g} % -> {item['stranded_after'] / 10:g} %",
        )
        for item in doc["proposals"]
    ]
    if rows:
        table(head, rows, right=frozenset({"GAIN", "COST"}), out=page)
    else:
        page.write("no GPU is worth cutting anew for what waits\n")
    for name, count in sorted(doc["unserved"].items()):
        page.write(f"{count} x {name} would still wait\n")
    if doc["ended_early"]:
        page.write(f"{doc['ended_early']}\n")


def _node_state(doc: NodeDoc) -> str:
    if doc["conflicts"]:
        return "Conflict: " + "; ".join(doc["conflicts"])
    if not doc["ready"]:
        return "NotReady"
    return "Ready" if doc["schedulable"] else "Ready, cordoned"


def pools(docs: Sequence[PoolDoc], *, out: TextIO | None = None) -> None:
    """Print one line a pool."""
    head = ("POOL", "NODES", "GPUS", "FREE", "HELD", "FOREIGN", "DOWN")
    rows = [
        (doc["name"], doc["nodes"], doc["gpus"], doc["free"], doc["held"], doc["foreign"], doc["down"]) for doc in docs
    ]
    table(head, rows, right=frozenset(head[1:]), out=out)


def fragmentation(doc: FragmentationDoc, *, out: TextIO | None = None) -> None:
    """Print in one line the largest gang that each level has room for, and what is stranded."""
    out = _stdout() if out is None else out
    rooms = [
        f"{room['gpus']}{'' if at else ' GPUs'} in {'all' if room['level'] == 'cluster' else 'one ' + room['level']}"
        for at, room in enumerate(doc["largest_gang"])
    ]
    parts = [f"largest gang now: {', '.join(rooms) or 'none'}", f"stranded {gpus_of(doc['stranded_milli'])} GPUs"]
    waits = doc["pending_although_free"]
    if waits:
        parts.append(f"{waits} {'gang waits' if waits == 1 else 'gangs wait'} although enough GPUs are free")
    out.write("; ".join(parts) + "\n")


def usage(docs: Sequence[UsageDoc], *, out: TextIO | None = None) -> None:
    """Print held and lost GPU-hours a queue."""
    head = ("TENANT", "QUEUE", "GANGS", "GPU-HOURS", "OF THEM LOST")
    rows = [
        (doc["tenant"], doc["queue"], doc["gangs"], gpu_hours_text(doc["gpu_ms"]), gpu_hours_text(doc["lost_gpu_ms"]))
        for doc in docs
    ]
    table(head, rows, right=frozenset({"GANGS", "GPU-HOURS", "OF THEM LOST"}), out=out)


def as_json(value: Mapping[str, object] | Sequence[object], *, out: TextIO | None = None) -> None:
    """Print a document as JSON, indented."""
    import json

    out = _stdout() if out is None else out
    out.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _stdout() -> TextIO:
    """Return the standard output; a process that was started without one has nothing to print on."""
    assert sys.stdout is not None
    return sys.stdout


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
