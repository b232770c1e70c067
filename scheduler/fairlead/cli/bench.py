"""`fairlead bench VERB`: what is measured, each figure with the world it was measured in."""

from __future__ import annotations

import typer

from fairlead.cli.lazy import lazy_group

VERBS: dict[str, tuple[str, str, str]] = {
    "adversaries": (
        "fairlead.cli.bench_adversaries",
        "adversaries",
        "Let a tenant cheat in every way that is known, and say what it gains.",
    ),
    "ledger": (
        "fairlead.cli.bench_ledger",
        "ledger",
        "Fill an empty database with the books of a fleet and report on a month.",
    ),
    "night": (
        "fairlead.cli.bench_night",
        "night",
        "Let batch fill a pool by night and serving ask for it by day.",
    ),
    "openb": (
        "fairlead.cli.bench_openb",
        "openb",
        "Pack a public list of pods onto its nodes and say what stays free.",
    ),
    "reclaim": (
        "fairlead.cli.bench_reclaim",
        "reclaim",
        "Decide who makes room for half of a full fleet.",
    ),
    "replay": (
        "fairlead.cli.bench_replay",
        "replay",
        "Replay a published trace of jobs by a published rule, or by the product's own.",
    ),
    "waste": (
        "fairlead.cli.bench_waste",
        "waste",
        "Compare the work that preemption throws away with that of the newest first.",
    ),
    "scale": ("fairlead.cli.bench_scale", "scale", "Decide about a fixed backlog on fleets of several sizes."),
    "starvation": (
        "fairlead.cli.bench_starvation",
        "starvation",
        "Put a large gang into a stream of small jobs that never ends.",
    ),
    "year": ("fairlead.cli.bench_year", "year", "Run a year of jobs on virtual time and say how long it took."),
}

app = typer.Typer(
    cls=lazy_group(VERBS),
    help="Measure: packing, scale, and what else has a figure to keep.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root() -> None:
    """Carry nothing; the verbs have their own options."""
