"""What a GPU's product name or PCI device id says of it: architecture, compute capability, formats, partitions.

Used where nobody could ask the driver. What is not in the tables stays unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from fairlead.model.hardware import Gpu


@dataclass(frozen=True, slots=True)
class GpuModel:
    """Facts of a product line. `formats` are those with tensor throughput, `partitions_max` 1 where it has no MIG."""

    architecture: str
    compute: str
    formats: tuple[str, ...]
    partitions_max: int = 1


_AMPERE = ("bf16", "fp16", "int4", "int8", "tf32")
_ADA = ("bf16", "fp16", "fp8", "int4", "int8", "tf32")
_HOPPER = ("bf16", "fp16", "fp64", "fp8", "int8", "tf32")
_BLACKWELL = ("bf16", "fp16", "fp4", "fp6", "fp8", "int8", "tf32")

_LINES: tuple[tuple[re.Pattern[str], GpuModel], ...] = tuple(
    (re.compile(rf"(?<![A-Za-z0-9])(?:{pattern})(?![0-9])"), model)
    for pattern, model in (
        ("GB300|B300", GpuModel("blackwell", "10.3", ("fp64", *_BLACKWELL), 7)),
        ("GB200|B200|B100", GpuModel("blackwell", "10.0", ("fp64", *_BLACKWELL), 7)),
        ("RTX PRO 6000", GpuModel("blackwell", "12.0", _BLACKWELL, 4)),
        ("GH200|H[128]00|H20", GpuModel("hopper", "9.0", _HOPPER, 7)),
        ("L40S?|L4|L20|RTX 6000 Ada", GpuModel("ada", "8.9", _ADA)),
        ("A30", GpuModel("ampere", "8.0", ("fp64", *_AMPERE), 4)),
        ("A[18]00|PG50[69]", GpuModel("ampere", "8.0", ("fp64", *_AMPERE), 7)),
        ("A10G?|A40|A16|A2|RTX A6000", GpuModel("ampere", "8.6", _AMPERE)),
        ("T4", GpuModel("turing", "7.5", ("fp16", "int4", "int8"))),
        ("V100S?", GpuModel("volta", "7.0", ("fp16",))),
        ("P100|P40|P4", GpuModel("pascal", "6.0", ())),
    )
)

_PRODUCTS = {
    0x15F9: "Tesla P100-SXM2-16GB",
    0x1DB1: "Tesla V100-SXM2-16GB",
    0x1DB4: "Tesla V100-PCIE-16GB",
    0x1DB5: "Tesla V100-SXM2-32GB",
    0x1DB6: "Tesla V100-PCIE-32GB",
    0x1DB8: "Tesla V100-SXM3-32GB",
    0x1EB8: "Tesla T4",
    0x20B0: "NVIDIA A100-SXM4-40GB",
    0x20B2: "NVIDIA A100-SXM4-80GB",
    0x20B5: "NVIDIA A100 80GB PCIe",
    0x20B7: "NVIDIA A30",
    0x20F1: "NVIDIA A100-PCIE-40GB",
    0x2236: "NVIDIA A10",
    0x2321: "NVIDIA H100 NVL",
    0x2330: "NVIDIA H100 80GB HBM3",
    0x2331: "NVIDIA H100 PCIe",
    0x2335: "NVIDIA H200",
    0x2342: "NVIDIA GH200 480GB",
    0x26B9: "NVIDIA L40S",
    0x27B8: "NVIDIA L4",
    0x2901: "NVIDIA B200",
    0x2941: "NVIDIA GB200",
}


def product_of(device_id: int) -> str:
    """Return the product name of an NVIDIA PCI device id, "" where the table does not have it."""
    return _PRODUCTS.get(device_id, "")


def model_of(product: str) -> GpuModel | None:
    """Return what is known of a product name, None where nothing is."""
    return next((model for pattern, model in _LINES if pattern.search(product)), None)


def described(gpu: Gpu) -> Gpu:
    """Return the GPU with what its product name says, where the source said nothing itself."""
    known = model_of(gpu.model)
    if known is None:
        return gpu
    return replace(
        gpu,
        architecture=gpu.architecture or known.architecture,
        compute=gpu.compute or known.compute,
        formats=gpu.formats or tuple(sorted(known.formats)),
        partitions_max=gpu.partitions_max or known.partitions_max,
    )
