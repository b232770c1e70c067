"""Price books with costs as people write them, and books of two models in which two queues held something."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from ledger_books import hold, release
from ledger_facts import NAMED, node
from mig_grids import A100_80

from fairlead.model.events import NodeSeen, PriceBookSeen
from fairlead.model.hardware import Node
from fairlead.model.prices import PriceBook
from fairlead.service.bookkeeper import Bookkeeper
from fairlead.simulation import gangjob_yaml

HOUR = 3_600_000
T0 = 1_767_225_600_000  # 2026-01-01
H100 = "NVIDIA H100 80GB HBM3"
BOUGHT = {"price": "280000", "gpus": 8, "lifeMonths": 50, "residual": "50050", "sparesPercent": "2.628"}
FULL: dict[str, Any] = {
    "model": A100_80,
    "purchase": BOUGHT,
    "power": {"watts": 1000, "perKwh": "0.20", "pue": "1.35"},
    "networking": {"perMonth": "73"},
    "storage": {"perHour": "0.40", "gpus": 8},
    "engineering": {"perMonth": "1460", "gpus": 100},
}
"""An hour: 0.7875 of depreciation, 0.105 of spares, 0.20 and 0.07 of power and cooling, 0.10, 0.05, 0.02: 1.3325."""


def book_of(
    *costs: dict[str, Any], fixed: tuple[dict[str, Any], ...] = (), name: str = "eur", **spec: Any
) -> PriceBook:
    """Read a book from its document."""
    body = {"currency": "EUR", "costs": list(costs), "fixed": list(fixed), **spec}
    document = {"apiVersion": "fairlead.dev/v1alpha1", "kind": "PriceBook", "metadata": {"name": name}, "spec": body}
    return gangjob_yaml.read(yaml.safe_dump(document), now_ms=0, new_id=lambda *_: "x").books[0]


def of_model(found: Node, model: str, pool: str) -> Node:
    gpus = tuple(dataclasses.replace(gpu, model=model, mig=None) for gpu in found.machine.gpus)
    return dataclasses.replace(found, machine=dataclasses.replace(found.machine, gpus=gpus), pool=pool)


def keep_books(
    where: Path | str, *books: PriceBook, pools: tuple[str, str] = ("main", "main"), h100: str = H100
) -> str:
    """Write ten hours: an A100 node and an H100 node of four, in pools; return the database's URL.

    Vision (job-g1) holds two A100s for four hours and speech (job-g2) an H100 for two and a third A100 for five.
    """
    url = where if isinstance(where, str) else f"sqlite:///{where}/costs.sqlite"
    facts = [
        *NAMED,
        *(PriceBookSeen(book=book, at_ms=T0) for book in books),
        NodeSeen(node=of_model(node(), A100_80, pools[0]), at_ms=T0),
        NodeSeen(node=of_model(node("n2"), h100, pools[1]), at_ms=T0),
        hold(T0, ("n1", (0, 1))),
        hold(T0, ("n2", (0,)), ("n1", (2,)), uid="g2"),
        release(T0 + 2 * HOUR, uid="g2"),
        release(T0 + 4 * HOUR),
        release(T0 + 5 * HOUR, 1, uid="g2"),
    ]
    kept = Bookkeeper(url)
    kept.record(facts, T0 + 9 * HOUR)
    kept.record([], T0 + 10 * HOUR)  # which books what is open up to then
    assert kept.trouble == ""
    kept.close()
    return url
