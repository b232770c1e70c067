"""Small ``/sys`` trees of machines whose ``nvidia-smi topo -m`` is known, written to a folder."""

from __future__ import annotations

from pathlib import Path

GPU, ETHERNET, INFINIBAND, BRIDGE, NVSWITCH, NVME = (
    "0x030200",
    "0x020000",
    "0x020700",
    "0x060400",
    "0x068000",
    "0x010802",
)
NVIDIA, MELLANOX, BROADCOM, AMD = "0x10de", "0x15b3", "0x1000", "0x1022"


class SysfsTree:
    """Writes the files that a kernel would show; every call adds one thing."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys").mkdir(parents=True, exist_ok=True)

    def write(self, path: str, text: str | bytes) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode() + b"\n")

    def link(self, path: str, target: str) -> None:
        """Make a relative link to `target`, a path below the root, as the kernel does."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_symlink():
            up = "../" * (path.count("/"))
            file.symlink_to(up + target)

    def cpus(self, count: int, *, packages: int = 1, offline: tuple[int, ...] = ()) -> None:
        """CPUs, the same number after another in each package; those offline say nothing of themselves."""
        for cpu in range(count):
            folder = f"sys/devices/system/cpu/cpu{cpu}"
            if cpu in offline:
                self.write(f"{folder}/online", "0")
            else:
                self.write(f"{folder}/topology/physical_package_id", str(cpu * packages // count))

    def node(self, number: int, cpus: str, *, memory_kb: int = 1 << 20, distances: str = "10") -> None:
        folder = f"sys/devices/system/node/node{number}"
        self.write(f"{folder}/cpulist", cpus)
        self.write(f"{folder}/distance", distances)
        self.write(f"{folder}/meminfo", f"Node {number} MemTotal:  {memory_kb} kB\nNode {number} MemFree: 1 kB")

    def pci(self, chain: str, kind: str, *, vendor: str = BROADCOM, product: str = "0xc010", numa: int = -1,
            speed: str = "", lanes: int = 0, top_speed: str = "", config: bytes = b"") -> str:  # fmt: skip
        """Add a function at ``pci0000:00/0000:00:01.0/…``; returns its folder."""
        folder, address = f"sys/devices/{chain}", chain.rsplit("/", 1)[-1]
        for name, text in {"class": kind, "vendor": vendor, "device": product, "numa_node": str(numa),
                           "current_link_speed": speed, "current_link_width": str(lanes) if lanes else "",
                           "max_link_speed": top_speed}.items():  # fmt: skip
            if text:
                self.write(f"{folder}/{name}", text)
        if config:
            self.write(f"{folder}/config", config)
        self.link(f"sys/bus/pci/devices/{address}", folder)
        return folder

    def gpu(self, chain: str, *, numa: int = -1, minor: int | None = None, **more: object) -> None:
        self.pci(chain, GPU, vendor=NVIDIA, numa=numa, **{"product": "0x20b2", **more})  # type: ignore[arg-type]
        if minor is not None:
            address = chain.rsplit("/", 1)[-1]
            self.write(f"proc/driver/nvidia/gpus/{address}/information",
                       f"Model: \t\t NVIDIA A100-SXM4-80GB\nIRQ:   \t\t 1\nGPU UUID: \t "
                       f"GPU-00000000-0000-0000-0000-{minor:012x}\nVideo BIOS: \t 92.00.19.00.10\n"
                       f"Bus Location: \t {address}\nDevice Minor: \t {minor}")  # fmt: skip

    def hca(
        self, chain: str, name: str, *, numa: int = -1, rate: str = "200 Gb/sec (4X HDR)", netdev: str = ""
    ) -> None:
        """An RDMA device, with an interface if it is named."""
        folder = self.pci(chain, INFINIBAND if not netdev else ETHERNET, vendor=MELLANOX, product="0x101b", numa=numa,
                          speed="16.0 GT/s PCIe", lanes=16)  # fmt: skip
        inner = f"{folder}/infiniband/{name}"
        self.write(f"{inner}/node_guid", "b83f:d203:0000:0001")
        for file, text in {"state": "4: ACTIVE", "rate": rate,
                           "link_layer": "Ethernet" if netdev else "InfiniBand"}.items():  # fmt: skip
            self.write(f"{inner}/ports/1/{file}", text)
        self.link(f"{inner}/device", folder)
        self.link(f"sys/class/infiniband/{name}", inner)
        if netdev:
            self.interface(folder, netdev)

    def interface(self, folder: str, name: str, *, speed: int = 100_000) -> None:
        inner = f"{folder}/net/{name}"
        for file, text in {"speed": str(speed), "operstate": "up", "type": "1"}.items():
            self.write(f"{inner}/{file}", text)
        self.link(f"{inner}/device", folder)
        self.link(f"sys/class/net/{name}", inner)


def switch(tree: SysfsTree, chain: str, *, up: str, downs: tuple[str, ...]) -> list[str]:
    """Add a PCIe switch below `chain`: its upstream port and downstream ports; returns the ports' chains."""
    tree.pci(f"{chain}/{up}", BRIDGE, speed="16.0 GT/s PCIe", lanes=16)
    return [_port(tree, f"{chain}/{up}/{down}") for down in downs]


def _port(tree: SysfsTree, chain: str) -> str:
    tree.pci(chain, BRIDGE, speed="16.0 GT/s PCIe", lanes=16)
    return chain


def dgx_a100(root: Path) -> SysfsTree:
    """Eight NUMA nodes; per GPU pair a switch above four more, one for each GPU and NIC; two cards with two ports."""
    tree = SysfsTree(root)
    tree.cpus(256, packages=2)
    for node in range(8):
        cpus = f"{16 * node}-{16 * node + 15},{128 + 16 * node}-{128 + 16 * node + 15}"
        row = " ".join("10" if node == other else "12" if node // 4 == other // 4 else "32" for other in range(8))
        tree.node(node, cpus, memory_kb=264_000_000, distances=row)
    for cpu in range(256):
        tree.write(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", str(cpu % 128 // 64))
    for group, (base, numa) in enumerate(((0x00, 3), (0x40, 1), (0x80, 7), (0xC0, 5))):
        port = f"pci0000:{base:02x}/0000:{base:02x}:01.1"
        tree.pci(port, BRIDGE, vendor=AMD, numa=numa)
        outer = switch(tree, port, up=f"0000:{base + 1:02x}:00.0",
                       downs=tuple(f"0000:{base + 2:02x}:{slot:02x}.0" for slot in (0, 4, 8, 12)))  # fmt: skip
        for at, down in enumerate(outer):
            bus = base + 3 + 4 * at
            [slot] = switch(tree, down, up=f"0000:{bus:02x}:00.0", downs=(f"0000:{bus + 1:02x}:00.0",))
            device = f"{slot}/0000:{bus + 2:02x}:00.0"
            if at < 2:
                tree.gpu(device, numa=numa, minor=2 * group + at, speed="2.5 GT/s PCIe", lanes=16,
                         top_speed="16.0 GT/s PCIe")  # fmt: skip
            else:
                tree.hca(device, f"mlx5_{(0, 2, 6, 8)[group] + at - 2}", numa=numa)
    for base, numa, first in ((0x60, 0, 4), (0xE0, 4, 10)):
        port = f"pci0000:{base:02x}/0000:{base:02x}:03.1"
        tree.pci(port, BRIDGE, vendor=AMD, numa=numa)
        for function in (0, 1):
            chain = f"{port}/0000:{base + 1:02x}:00.{function}"
            tree.hca(chain, f"mlx5_{first + function}", numa=numa, netdev=f"ens{base}f{function}")
    for at in range(6):
        tree.pci(
            f"pci0000:40/0000:40:01.2/0000:{0x5A + at:02x}:00.0", NVSWITCH, vendor=NVIDIA, product="0x1af1", numa=1
        )
    tree.pci("pci0000:40/0000:40:01.2", BRIDGE, vendor=AMD, numa=1)
    return tree


def hgx_h100(root: Path) -> SysfsTree:
    """Two sockets; every GPU with a NIC of its own below a switch of its own, each on a root complex of its own."""
    tree = SysfsTree(root)
    tree.cpus(192)
    for cpu in range(192):
        tree.write(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", str(cpu % 96 // 48))
    tree.node(0, "0-47,96-143", distances="10 21")
    tree.node(1, "48-95,144-191", distances="21 10")
    for at, bus in enumerate((0x16, 0x38, 0x49, 0x5A, 0x98, 0xB8, 0xC8, 0xD8)):
        numa = at // 4
        port = f"pci0000:{bus - 1:02x}/0000:{bus - 1:02x}:01.0"
        tree.pci(port, BRIDGE, vendor="0x8086", numa=numa)
        downs = tuple(f"0000:{bus + 1:02x}:{slot:02x}.0" for slot in (0, 1, 2))
        nic, gpu, drive = switch(tree, port, up=f"0000:{bus:02x}:00.0", downs=downs)
        tree.gpu(f"{gpu}/0000:{bus + 3:02x}:00.0", numa=numa, product="0x2330")
        tree.hca(f"{nic}/0000:{bus + 2:02x}:00.0", f"mlx5_{at + 1}", numa=numa, rate="400 Gb/sec (4X NDR)")
        if at == 0:
            tree.pci(f"{drive}/0000:{bus + 4:02x}:00.0", NVME, vendor="0x144d", product="0xa80a", numa=numa)
    return tree


def gb200_tray(root: Path) -> SysfsTree:
    """Two Grace, four GPUs whose memory is NUMA nodes, empty nodes kept for MIG, a NIC in a PCI domain of its own."""
    tree = SysfsTree(root)
    tree.cpus(144, packages=2)
    nodes = (0, 1, 2, 3, 10, 18, 26)
    gpu_nodes = dict(zip((2, 10, 18, 26), ("0008", "0009", "0018", "0019"), strict=True))
    for node in nodes:
        cpus = {0: "0-71", 1: "72-143"}.get(node, "")
        row = " ".join("10" if node == other else "40" if max(node, other) < 2 else "80" for other in nodes)
        tree.node(node, cpus, memory_kb=0 if node == 3 else 480 << 20, distances=row)
    for at, (node, domain) in enumerate(gpu_nodes.items()):
        chain = f"pci{domain}:00/{domain}:00:00.0"
        tree.pci(chain, BRIDGE, vendor=NVIDIA, numa=at // 2)
        tree.gpu(f"{chain}/{domain}:01:00.0", numa=at // 2, product="0x2941")
        tree.write(f"proc/driver/nvidia/gpus/{domain}:01:00.0/numa_status", f"Node:      {node}\nStatus:    online")
    for at, domain in enumerate(("0000", "0002", "0010", "0012")):
        chain = f"pci{domain}:00/{domain}:00:00.0"
        tree.pci(chain, BRIDGE, vendor=NVIDIA, numa=at // 2)
        tree.hca(f"{chain}/{domain}:03:00.0", f"mlx5_{at}", numa=at // 2, rate="400 Gb/sec (4X NDR)")
    return tree
