"""`fairlead topology`: look at machines and fabrics from files, and ask how well devices hang together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairlead.cli import render

if TYPE_CHECKING:
    from fairlead.model.fabric import Inventory, NamedMachine

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

SourceArgument = Annotated[
    str,
    typer.Argument(
        help="A file or directory of any kind that is known, - for standard input, or fleet:NAME.", show_default=False
    ),
]
KindOption = Annotated[str, typer.Option("--kind", help="What SOURCE is, where it does not say so itself.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", help="A machine's / (or a copy or tarball of its sys and proc) as source.")
]
WithOption = Annotated[list[Path] | None, typer.Option("--with", help="A further source of the same machines.")]
MeasuredOption = Annotated[Path | None, typer.Option("--measured", help="Measurements to lay beside the theory.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print a JSON document.")]
MachineOption = Annotated[str, typer.Option("--machine", help="Only this machine.")]


@app.callback()
def root() -> None:
    """Look at machines and fabrics: from snapshots, matrices, XML, slices, labels and models."""


def load(
    source: str | None, kind: str, root_path: Path | None, more: list[Path] | None, measured: Path | None
) -> Inventory:
    """Read every source and join them; several files that tell of one machine each tell of the same machine."""
    from dataclasses import replace

    from fairlead.discovery import measurements, sources
    from fairlead.discovery.merge import merge
    from fairlead.errors import UnreadableInput
    from fairlead.topology.measured import with_measurements

    if source is None and root_path is None:
        raise UnreadableInput("SOURCE is missing: give a file, a directory, - or fleet:NAME, or --root DIR")
    parts: list[Inventory] = []
    if root_path is not None:
        parts.append(sources.read_root(root_path))
    if source is not None:
        parts.append(_one_source(source, kind))
    parts += [sources.read_path(path) for path in more or ()]
    if len(parts) > 1 and all(len(part.machines) == 1 for part in parts):
        name = parts[0].machines[0].name
        parts = [replace(part, machines=(replace(part.machines[0], name=name),)) for part in parts]
    inventory = parts[0] if len(parts) == 1 else merge(parts, source=", ".join(part.source for part in parts))
    if measured is not None:
        try:
            data = measured.read_bytes()
        except OSError as failed:
            raise UnreadableInput(f"{measured}: {failed.strerror or failed}") from None
        inventory = with_measurements(inventory, measurements.parse(data, name=str(measured)))
    return inventory


def _one_source(source: str, kind: str) -> Inventory:
    from fairlead.discovery import sources
    from fairlead.errors import UnreadableInput

    if source.startswith("fleet:"):
        from fairlead.topology.fleet_inventory import fleet_inventory
        from fairlead.topology.fleets import FLEETS, build

        name, _, size = source.removeprefix("fleet:").partition(":")
        if name not in FLEETS:
            raise UnreadableInput(f"no built-in fleet {name!r}; there are {', '.join(FLEETS)}")
        if size and (not size.isdecimal() or not 1 <= int(size) <= 100_000):
            raise UnreadableInput(f"{source}: {size!r} is no number of nodes from 1 to 100000")
        return fleet_inventory(build(name, int(size) if size else None), source=source)
    if source == "-":
        data = sys.stdin.buffer.read(sources.LARGEST + 1)
        return sources.read_bytes(data, name="standard input", machine="machine", kind=kind)
    return sources.read_path(Path(source), kind=kind)


def only(inventory: Inventory, machine: str) -> Inventory:
    """Return the inventory with one machine alone; all of them for ""."""
    from dataclasses import replace

    from fairlead.errors import NotFound

    if not machine:
        return inventory
    kept = tuple(found for found in inventory.machines if found.name == machine)
    if not kept:
        raise NotFound(f"no machine {machine!r} in {inventory.source}")
    return replace(inventory, machines=kept)


def _print(lines: list[str]) -> None:
    for line in lines:
        typer.echo("".join(c if c.isprintable() else "?" for c in line))


def _warn(inventory: Inventory) -> None:
    for warning in inventory.warnings[:50]:
        print(f"warning: {warning.where}: {warning.what}", file=sys.stderr)
    if len(inventory.warnings) > 50:
        print(f"warning: and {len(inventory.warnings) - 50} more; --json has them all", file=sys.stderr)


@app.command()
def show(
    source: Annotated[str | None, typer.Argument(help="As for every command here.", show_default=False)] = None,
    json: JsonOption = False,
    tree: Annotated[bool, typer.Option("--tree", help="Print what hangs on what.")] = False,
    svg: Annotated[Path | None, typer.Option("--svg", help="Draw a picture into this file (- prints it).")] = None,
    kind: KindOption = "",
    root_path: RootOption = None,
    more: WithOption = None,
    measured: MeasuredOption = None,
    machine: MachineOption = "",
) -> None:
    """Show machines and fabric. What could not be read is a warning; exit 2 where nothing can."""
    from fairlead.cli import topology_text
    from fairlead.errors import UnreadableInput
    from fairlead.topology import findings, inventory_json

    inventory = only(load(source, kind, root_path, more, measured), machine)
    if svg is not None:
        from fairlead.topology.svg import picture

        drawn = picture(inventory)
        if str(svg) == "-":
            typer.echo(drawn, nl=False)
        else:
            try:
                svg.write_text(drawn, encoding="utf-8")
            except OSError as failed:
                raise UnreadableInput(f"{svg}: cannot be written: {failed.strerror or failed}") from None
            typer.echo(f"drawn into {svg}", err=json)
        if not json:
            _warn(inventory)
            return
    if json:
        render.as_json(inventory_json.document(inventory, findings.contradictions(inventory)))
        return
    _print(topology_text.tree(inventory) if tree else topology_text.summary(inventory))
    _warn(inventory)


@app.command()
def path(
    source: SourceArgument,
    a: Annotated[str, typer.Argument(help="GPU0, node/GPU0, a PCI address, a UUID, or a node.")],
    b: Annotated[str, typer.Argument(help="The other end; more devices ask for the whole set.")],
    others: Annotated[list[str] | None, typer.Argument(help="Further devices.", show_default=False)] = None,
    json: JsonOption = False,
    kind: KindOption = "",
    measured: MeasuredOption = None,
) -> None:
    """Say what is between two devices, or which pair of several is the slowest and how far they spread."""
    from dataclasses import asdict

    from fairlead.cli import topology_text
    from fairlead.topology.queries import Questions

    questions = Questions(load(source, kind, None, None, measured))
    if others:
        answer = questions.of_set([a, b, *others])
        if json:
            render.as_json(asdict(answer))
        else:
            _print(topology_text.set_lines(answer))
        return
    found = questions.path(a, b)
    if json:
        render.as_json({("class" if name == "path" else name): value for name, value in asdict(found).items()})
    else:
        _print(topology_text.path_lines(found))


@app.command()
def sets(
    source: SourceArgument,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=1024, help="How many GPUs.")],
    free: Annotated[str, typer.Option("--free", help="Only these GPUs, by comma.")] = "",
    required: Annotated[str, typer.Option("--with-gpus", help="Sets that hold these GPUs, by comma.")] = "",
    json: JsonOption = False,
    kind: KindOption = "",
    measured: MeasuredOption = None,
    machine: MachineOption = "",
) -> None:
    """Give each machine's best set of GPUs: its pace, NUMA span and NICs, and what it leaves; exit 1 where none has."""
    from fairlead.topology.sets import best_set, mask_of
    from fairlead.topology.tables import TableCache

    inventory, cache = only(load(source, kind, None, None, measured), machine), TableCache()
    docs: list[dict[str, Any]] = []
    for found in inventory.machines:
        gpus = found.machine
        mask = mask_of(gpus, _names(free)) if free else sum(1 << i for i, g in enumerate(gpus.gpus) if g.healthy)
        chosen = best_set(gpus, cache.table(gpus), count, free=mask, required=mask_of(gpus, _names(required)))
        if chosen is not None:
            docs.append(_set_document(found, chosen))
    docs.sort(key=lambda doc: -int(doc["pace_bytes_per_s"]))
    if json:
        render.as_json({"source": inventory.source, "count": count, "sets": docs})
    else:
        _sets(docs)
    if not docs:
        print(f"fairlead: no machine of {inventory.source} has {count} such GPUs", file=sys.stderr)
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _set_document(found: NamedMachine, chosen: Any) -> dict[str, Any]:
    return {
        "machine": found.name,
        "gpus": list(chosen.devices),
        "pace_bytes_per_s": chosen.pace,
        "numa_nodes": chosen.numa_nodes,
        "nics": [{"gpu": gpu, "nic": nic.nic, "class": nic.path} for gpu, nic in chosen.nics],
        "leaves": [{"count": size, "pace_bytes_per_s": pace} for size, pace in chosen.leaves],
        "contention": list(chosen.contention),
    }


def _sets(docs: list[dict[str, Any]]) -> None:
    from fairlead.units import pace_text

    for doc in docs[:20]:
        pace = pace_text(doc["pace_bytes_per_s"]) if doc["pace_bytes_per_s"] else "-"
        lines = [f"{doc['machine']}: {', '.join(doc['gpus'])}  pace {pace}  NUMA nodes {doc['numa_nodes']}"]
        nics = [f"{pair['gpu']} {pair['nic']} ({pair['class'] or 'unknown'})" for pair in doc["nics"]]
        lines += [f"  NICs        {', '.join(nics)}"] if nics else []
        left = [f"{e['count']} at {pace_text(e['pace_bytes_per_s'])}" for e in doc["leaves"] if e["pace_bytes_per_s"]]
        lines += [f"  leaves      {', '.join(left)}"] if left else []
        lines += [f"  contention  {flag}" for flag in doc["contention"]]
        _print(lines)
    if len(docs) > 20:
        _print([f"… and {len(docs) - 20} more machines"])


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="A source.")],
    after: Annotated[str, typer.Argument(help="Another source.")],
    json: JsonOption = False,
) -> None:
    """Compare two sources; exit 1 when they differ."""
    from dataclasses import asdict

    from fairlead.topology.differences import differences

    changes = differences(load(before, "", None, None, None), load(after, "", None, None, None))
    if json:
        render.as_json({"before": before, "after": after, "changes": [asdict(change) for change in changes]})
    for change in () if json else changes:
        values = f" {change.field}: {change.before or '-'} -> {change.after or '-'}" if change.field else ""
        _print([f"{change.what:8} {change.where}{values}"])
    if changes:
        raise typer.Exit(1)


@app.command()
def check(
    source: SourceArgument,
    json: JsonOption = False,
    kind: KindOption = "",
    more: WithOption = None,
    measured: MeasuredOption = None,
) -> None:
    """Name everything that is unreadable, contradicts itself, is unhealthy or too slow; exit 1 with findings."""
    from fairlead.topology.findings import findings

    inventory = load(source, kind, None, more, measured)
    found = findings(inventory)
    if json:
        render.as_json({"source": inventory.source, "findings": [{"where": f.where, "what": f.what} for f in found]})
    else:
        _print([f"{finding.where}: {finding.what}" for finding in found] or [f"{inventory.source}: nothing found"])
    if found:
        raise typer.Exit(1)


@app.command()
def shared(
    source: SourceArgument,
    what: Annotated[str, typer.Argument(help="A device or node.")],
    json: JsonOption = False,
    kind: KindOption = "",
) -> None:
    """Say with whom a device or node shares uplinks, switches, rack, power and NVLink domain."""
    from fairlead.topology.queries import Questions

    found = Questions(load(source, kind, None, None, None)).shared_with(what)
    if json:
        render.as_json({"what": what, "shares": [{"vertex": key, "with": list(who)} for key, who in found.items()]})
    else:
        _print([f"{key}: {', '.join(who)}" for key, who in found.items()] or [f"{what} shares nothing that is known"])


@app.command()
def loss(
    source: SourceArgument,
    what: Annotated[
        str, typer.Argument(help="A device, node/switch:…, or rack:…, switch:…, nvl-domain:… of a fabric.")
    ],
    json: JsonOption = False,
    kind: KindOption = "",
) -> None:
    """Say what would be lost if a device, switch or group went."""
    from dataclasses import asdict

    from fairlead.topology.differences import loss as lost

    found = lost(load(source, kind, None, None, None), what)
    if json:
        render.as_json({"what": what, **asdict(found)})
        return
    _print([f"goes with it: {', '.join(found.gone) or 'nothing'}"])
    _print([f"nodes: {', '.join(found.nodes)}"] if found.nodes else [])
    _print([f"  {sentence}" for sentence in found.consequences])
