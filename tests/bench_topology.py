"""Measure topology: tables for 10,000 nodes of five shapes, best sets from a warm table. Prints one JSON document.

Run with ``python tests/bench_topology.py``. Memory is what tracemalloc counts for the tables alone.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
import tracemalloc
from dataclasses import replace

from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode
from fairlead.topology import fleet_machines
from fairlead.topology.fleet_machines import identified
from fairlead.topology.tables import ShapeTable, TableCache, shape_key

NODES = 10_000


def dgx2() -> Machine:
    """Sixteen GPUs over NVSwitches, two a PCIe switch, a NIC a switch."""
    gpus = tuple(
        Gpu(id=f"GPU{i}", index=i, device=f"gpu-{i}", numa=i // 8, pcie_root=f"r{i // 4}", pcie_switch=f"s{i // 2}")
        for i in range(16)
    )
    nics = tuple(Nic(id=f"NIC{i}", numa=i // 4, pcie_root=f"r{i // 2}", pcie_switch=f"s{i}") for i in range(8))
    links = tuple(
        Link(a=a.id, b=b.id, path="NV6", bytes_per_s=150_000_000_000) for i, a in enumerate(gpus) for b in gpus[i + 1 :]
    )
    numa = tuple(NumaNode(id=n, distances=tuple(10 if n == m else 21 for m in range(2))) for n in range(2))
    return Machine(gpus=gpus, nics=nics, numa_nodes=numa, links=links)


def compile_fleet() -> dict[str, object]:
    """Build every node's machine, then find its table."""
    shapes = [fleet_machines.dgx_a100(), fleet_machines.hgx_h100(), fleet_machines.gb200_tray(),
              fleet_machines.pcie_l40s(), dgx2()]  # fmt: skip
    machines = [identified(shapes[at % len(shapes)], f"n{at}") for at in range(NODES)]
    tracemalloc.start()
    start = time.perf_counter()
    cache = TableCache()
    for machine in machines:
        cache.table(machine)
    first_ms = (time.perf_counter() - start) * 1_000
    memory_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    untraced = TableCache()
    start = time.perf_counter()
    for machine in machines:
        untraced.table(machine)
    compile_ms = (time.perf_counter() - start) * 1_000
    start = time.perf_counter()
    for machine in machines:
        untraced.table(machine)
    return {
        "nodes": NODES,
        "shapes": len(cache),
        "compile_ms": round(compile_ms, 1),
        "compile_traced_ms": round(first_ms, 1),
        "tables_bytes": memory_bytes,
        "again_ms": round((time.perf_counter() - start) * 1_000, 1),
    }


def query(machine: Machine, *, questions: int = 4_000) -> dict[str, object]:
    """Ask for best sets out of random free masks, no question twice; then all again, which are remembered."""
    table, draws = ShapeTable(shape_key(machine)), random.Random(7)
    drawn = [(draws.randrange(1, 1 << table.gpus), draws.randint(1, table.gpus)) for _ in range(questions)]
    asked = list(dict.fromkeys(drawn))

    def run() -> list[float]:
        taken: list[float] = []
        for mask, count in asked:
            start = time.perf_counter_ns()
            table.best(mask, count)
            taken.append((time.perf_counter_ns() - start) / 1_000)
        return sorted(taken)

    first, again = run(), run()
    return {
        "gpus": table.gpus,
        "questions": len(asked),
        "first_p50_us": round(statistics.median(first), 2),
        "first_p99_us": round(first[len(first) * 99 // 100], 2),
        "warm_p50_us": round(statistics.median(again), 2),
        "warm_p99_us": round(again[len(again) * 99 // 100], 2),
    }


def main() -> None:
    """Measure and print."""
    result = {
        "compile": compile_fleet(),
        "best_set": [query(fleet_machines.hgx_h100()), query(replace(dgx2(), source="dgx2"))],
    }
    json.dump(result, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
