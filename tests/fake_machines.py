"""Machines for `fake_nvml`, written down from what real ones print: A100, H100, GB200, H200 NVL, and MIG tables."""

from fake_nvml import SWITCH, FakeGpu, FakeNvml

# (profile kind, id, name, size, starts, most, SM, memory MiB): A100-40 and H100-80 as `nvidia-smi mig -lgip` prints.
A100_40_MIG = (
    (0, 19, "MIG 1g.5gb", 1, (0, 1, 2, 3, 4, 5, 6), 7, 14, 4864),
    (7, 20, "MIG 1g.5gb+me", 1, (0, 1, 2, 3, 4, 5, 6), 1, 14, 4864),
    (9, 15, "MIG 1g.10gb", 2, (0, 2, 4, 6), 4, 14, 9856),
    (1, 14, "MIG 2g.10gb", 2, (0, 2, 4), 3, 28, 9856),
    (2, 9, "MIG 3g.20gb", 4, (0, 4), 2, 42, 19968),
    (3, 5, "MIG 4g.20gb", 4, (0,), 1, 56, 19968),
    (4, 0, "MIG 7g.40gb", 8, (0,), 1, 98, 40192),
)
H100_80_MIG = (
    (0, 19, "MIG 1g.10gb", 1, (0, 1, 2, 3, 4, 5, 6), 7, 16, 9984),
    (9, 15, "MIG 1g.20gb", 2, (0, 2, 4, 6), 4, 26, 20096),
    (1, 14, "MIG 2g.20gb", 2, (0, 2, 4), 3, 32, 20096),
    (2, 9, "MIG 3g.40gb", 4, (0, 4), 2, 60, 40448),
    (3, 5, "MIG 4g.40gb", 4, (0,), 1, 64, 40448),
    (4, 0, "MIG 7g.80gb", 8, (0,), 1, 132, 81152),
)
RTX6000_MIG = (
    (0, 14, "MIG 1g.24gb", 3, (0, 3, 6, 9), 4, 46, 24192),
    (1, 5, "MIG 2g.48gb", 6, (0, 6), 2, 94, 48512),
    (3, 0, "MIG 4g.96gb", 12, (0,), 1, 188, 97280),
)


def _uuid(kind, at):
    return f"GPU-{kind:08x}-0000-4000-8000-{at:012x}"


def dgx_a100():
    """Eight A100-40 on six switches, two to a PCIe switch, four NUMA nodes in use."""
    addresses = ("07", "0f", "47", "4e", "87", "90", "b7", "bd")
    numa = (3, 3, 1, 1, 7, 7, 5, 5)
    gpus = [
        FakeGpu(
            pci=f"0000:{bus}:00.0",
            uuid=_uuid(0xA100, at),
            model="NVIDIA A100-SXM4-40GB",
            memory=40_960 << 20,
            numa=numa[at],
            links=[SWITCH] * 12,
            mig=A100_40_MIG,
            recovery=None,  # the field came after this generation's first drivers
        )
        for at, bus in enumerate(addresses)
    ]
    return FakeNvml(gpus, driver="535.230.02", ancestors=lambda a, b: 20 if a // 2 == b // 2 else 50)


def hgx_h100():
    """Eight H100 on four switches, one NUMA node per four GPUs."""
    addresses = ("18", "2a", "3a", "5d", "9a", "ab", "ba", "db")
    gpus = [
        FakeGpu(
            pci=f"0000:{bus}:00.0",
            uuid=_uuid(0x1100, at),
            model="NVIDIA H100 80GB HBM3",
            memory=81_559 << 20,
            numa=at // 4,
            links=[SWITCH] * 18,
            mbps=26_562,
            mig=H100_80_MIG,
        )
        for at, bus in enumerate(addresses)
    ]
    return FakeNvml(gpus, ancestors=lambda a, b: 40 if a // 4 == b // 4 else 50)


def gb200_tray():
    """Four GB200 of an NVL72: each on its own PCI domain, two Grace, one clique over the rack."""
    gpus = [
        FakeGpu(
            pci=f"{domain}:01:00.0",
            uuid=_uuid(0xB200, at),
            model="NVIDIA GB200",
            memory=189_471 << 20,
            numa=at // 2,
            links=[SWITCH] * 18,
            mbps=53_125,
            mig=H100_80_MIG,
            fabric=(bytes(range(1, 17)), 32_766),
        )
        for at, domain in enumerate(("0008", "0009", "0018", "0019"))
    ]
    return FakeNvml(gpus)


def nvl4_pair():
    """Two islands of four H200 NVL: every GPU has six links to each other one of its island, none beyond."""
    gpus = []
    for at in range(8):
        island = range(4 * (at // 4), 4 * (at // 4) + 4)
        links = [peer for peer in island if peer != at for _ in range(6)]
        gpus.append(
            FakeGpu(f"0000:{0x10 + at:02x}:00.0", _uuid(0x200, at), "NVIDIA H200 NVL", 140 << 30, at // 4, links)
        )
    return FakeNvml(gpus)
