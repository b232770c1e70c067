"""Reading the public openb lists: nodes and pods as CSV, every field checked before anything runs.

The files are those of the simulator of FGD (Weng et al., USENIX ATC'23) and of Alibaba's cluster-trace-gpu-v2023. They
are not part of this project.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairlead.bench.csv_lines import csv_lines
from fairlead.errors import UnreadableInput
from fairlead.world.demand import models_of

DEVICES_MAX = 63
GPU_MILLI = 1000


@dataclass(frozen=True, slots=True)
class OpenbNode:
    """One machine: free CPU in thousandths, memory in MiB, whole GPUs of one model."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclass(frozen=True, slots=True)
class OpenbPod:
    """One pod. `gpu_milli` is per GPU, and 1000 unless `gpus` is 1; 0 GPUs have 0. `spec` is the list as written."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    gpu_milli: int
    spec: str = ""

    @property
    def milli(self) -> int:
        """Thousandths of a GPU of all its GPUs."""
        return self.gpus * self.gpu_milli

    @property
    def models(self) -> tuple[str, ...]:
        """Acceptable models, folded; () for any."""
        return models_of(self.spec)


def read_nodes(path: Path) -> tuple[OpenbNode, ...]:
    """Read a node list with columns sn, cpu_milli, memory_mib, gpu, model.

    Raises
    ------
    UnreadableInput
        The text names the file, the line and the column.
    """
    nodes: list[OpenbNode] = []
    seen: set[str] = set()
    for line in _lines(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model")):
        node = OpenbNode(
            name=line.name("sn", seen),
            cpu_milli=line.number("cpu_milli"),
            memory_mib=line.number("memory_mib"),
            gpus=line.number("gpu", most=DEVICES_MAX),
            model=line.text("model"),
        )
        if node.gpus and not node.model:
            raise line.wrong("model", "is empty on a node with GPUs")
        nodes.append(node)
    if not any(node.gpus for node in nodes):
        raise UnreadableInput(f"{path}: column gpu: no node has a GPU")
    return tuple(nodes)


def read_pods(path: Path) -> tuple[OpenbPod, ...]:
    """Read a pod list with columns name, cpu_milli, memory_mib, num_gpu, gpu_milli, and gpu_spec where there is one.

    Raises
    ------
    UnreadableInput
        The text names the file, the line and the column.
    """
    pods: list[OpenbPod] = []
    seen: set[str] = set()
    for line in _lines(path, ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")):
        gpus = line.number("num_gpu", most=DEVICES_MAX)
        milli = line.number("gpu_milli", most=GPU_MILLI) if gpus else 0
        if gpus and not milli:
            raise line.wrong("gpu_milli", "is 0 for a pod with GPUs; give 1 to 1000 a GPU")
        if gpus > 1 and milli != GPU_MILLI:
            raise line.wrong("gpu_milli", f"is {milli} with num_gpu {gpus}; a part of a GPU is of one GPU only")
        pods.append(
            OpenbPod(
                name=line.name("name", seen),
                cpu_milli=line.number("cpu_milli"),
                memory_mib=line.number("memory_mib"),
                gpus=gpus,
                gpu_milli=milli,
                spec=line.text("gpu_spec") if gpus else "",
            )
        )
    if not any(pod.gpus for pod in pods):
        raise UnreadableInput(f"{path}: column num_gpu: no pod asks for a GPU, so no share of the GPUs ever arrives")
    return tuple(pods)


@dataclass(frozen=True, slots=True)
class _Line:
    path: Path
    number_in_file: int
    cells: dict[str, str]

    def text(self, column: str) -> str:
        return self.cells.get(column, "").strip()

    def name(self, column: str, seen: set[str]) -> str:
        name = self.text(column)
        if not name or name in seen:
            raise self.wrong(column, f"repeats {name!r}" if name else "is empty")
        seen.add(name)
        return name

    def number(self, column: str, *, most: int = 10**12) -> int:
        text = self.text(column)
        whole = text.removesuffix(".0")
        if not (whole.isascii() and whole.isdigit()) or len(whole) > 13:
            raise self.wrong(column, f"is {text!r}; give a whole number, 0 or more")
        if int(whole) > most:
            raise self.wrong(column, f"is {text}; at most {most}")
        return int(whole)

    def wrong(self, column: str, what: str) -> UnreadableInput:
        return UnreadableInput(f"{self.path}, line {self.number_in_file}: column {column} {what}")


def _lines(path: Path, columns: Sequence[str]) -> list[_Line]:
    return [_Line(path, number, cells) for number, cells in csv_lines(path, columns)]
