"""`fairlead fleets`: what fleets are built in."""

from __future__ import annotations

from typing import Annotated

import typer

from fairlead.cli import render


def fleets(json: Annotated[bool, typer.Option("--json", help="Print JSON documents.")] = False) -> None:
    """Print one line a fleet at its own size."""
    from fairlead.topology.fleets import FLEETS

    docs: list[dict[str, object]] = [
        {
            "name": fleet.name,
            "nodes": len(fleet.nodes),
            "gpus": sum(len(node.machine.gpus) for node in fleet.nodes),
            "racks": len({dict(node.levels).get("rack") for node in fleet.nodes}),
            "description": fleet.description,
        }
        for fleet in FLEETS.values()
    ]
    if json:
        render.as_json(docs)
    else:
        head = ("FLEET", "NODES", "GPUS", "RACKS", "WHAT")
        render.table(head, [tuple(doc.values()) for doc in docs], right=frozenset({"NODES", "GPUS", "RACKS"}))
