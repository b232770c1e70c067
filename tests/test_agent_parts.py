"""The parts of the node agent: its loop, its thread, its metrics, its command line, its cost, its chart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from agent_rig import NODE, Rig
from fake_machines import hgx_h100
from typer.main import get_command
from typer.testing import CliRunner

from fairlead.clock import now_ms
from fairlead.discovery import nvml
from fairlead.discovery.findings import HealthRules
from fairlead.discovery.nvml import Library
from fairlead.model.hardware import Gpu, Link, Machine, Nic, NumaNode
from fairlead_operator.agent import __main__ as command
from fairlead_operator.agent.combine import combine
from fairlead_operator.agent.driver_thread import DriverThread, Hung
from fairlead_operator.agent.exposition import SERIES, MetricsServer
from fairlead_operator.agent.observe import Observer
from fairlead_operator.agent.run_agent import Agent, Times
from fairlead_operator.agent.ward import Ward

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def rig():
    return Rig(hgx_h100()).turn()


def test_an_event_wakes_the_loop_at_once():
    async def scenario():
        fake = hgx_h100()
        library = Library(fake)
        ward = Ward(HealthRules())
        agent = Agent(library, Observer(library, None), ward, now_ms, times=Times(interval_s=60))
        stop = asyncio.Event()
        running = asyncio.create_task(agent.run(stop))
        async with asyncio.timeout(10):
            while not ward.health:
                await asyncio.sleep(0.02)
            fake.xid(2, 95)
            while ward.health[fake.gpus[2].uuid].verdict != "bad":
                await asyncio.sleep(0.02)
        stop.set()
        await asyncio.wait_for(running, 5)
        return fake.sessions

    assert asyncio.run(scenario()) == 0


def test_a_pause_lets_go_of_the_driver(rig):
    assert rig.fake.sessions == 1
    rig.agent.pause()
    calls = rig.fake.calls
    rig.turn(5)
    assert rig.fake.sessions == 0
    assert rig.fake.calls - calls < 10
    rig.turn(10)
    assert rig.fake.sessions == 1
    assert rig.verdicts() == ["healthy"] * 8


def test_the_drivers_thread_refuses_while_it_hangs():
    thread = DriverThread()
    assert thread.call(lambda: 7, 1) == 7
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 // 0, 1)
    with pytest.raises(Hung, match="within 0"):
        thread.call(lambda: time.sleep(0.3), 0.05)
    with pytest.raises(Hung, match="still"):
        thread.call(lambda: 7, 0.05)
    time.sleep(0.4)
    assert thread.call(lambda: 7, 1) == 7


def test_nvml_and_the_pci_tree_make_one_machine():
    gpus = tuple(
        Gpu(id=f"GPU{n}", index=n, device=f"gpu-{n}", pci=f"0000:0{n}:00.0", numa=0, uuid=f"u{n}") for n in (0, 1)
    )
    seen = Machine(source="nvml", gpus=gpus, links=(Link(a="GPU0", b="GPU1", path="PXB", bytes_per_s=2),))
    tree = Machine(
        source="tree",
        gpus=(
            Gpu(id="G9", index=0, device="gpu-0", pci="0000:01:00.0", numa=1, pcie_root="pci0000:00", pcie_switch="sw"),
            Gpu(id="G8", index=1, device="gpu-1", pci="0000:09:00.0"),
            Gpu(id="G7", index=2, device="gpu-2", pci="0000:00:00.0", numa=0, pcie_root="pci0000:00"),
        ),
        nics=(Nic(id="mlx5_0", pci="0000:05:00.0"),),
        numa_nodes=(NumaNode(id=0), NumaNode(id=1)),
        links=(Link(a="G9", b="mlx5_0", path="PIX", bytes_per_s=5), Link(a="G7", b="G9", path="PHB", bytes_per_s=3)),
    )
    machine, warnings = combine(seen, tree)
    assert [(g.id, g.numa, g.pcie_switch, g.uuid) for g in machine.gpus] == [
        ("GPU0", 0, "", "u0"),
        ("GPU1", 1, "sw", "u1"),
    ]
    assert {(x.a, x.b, x.path) for x in machine.links} == {("GPU0", "GPU1", "PXB"), ("GPU1", "mlx5_0", "PIX")}
    assert warnings == (
        "GPU1: NVML says NUMA node 0, the PCI tree 1; the tree is taken",
        "the GPU at 0000:09:00.0 of the PCI tree is not seen by NVML",
        "GPU0-GPU1: NVML says PXB, the PCI tree PHB; NVML is taken",
    )


def test_metrics_are_the_documented_ones_and_bounded(rig):
    rig.xid(0, 999)
    rig.turn()
    text = rig.agent.metrics()
    page = (ROOT / "docs/reference/agent.md").read_text(encoding="utf-8")
    for name in SERIES:
        assert f"`{name}`" in page, name
        assert f"\n{name}" in text, f"{name} has no line"
    assert 'fairlead_agent_gpus{verdict="suspect"} 1' in text
    assert 'fairlead_agent_xids_total{group="unknown"} 1' in text
    assert f'fairlead_agent_gpu_temperature_celsius{{gpu="GPU0",uuid="{rig.fake.gpus[0].uuid}"}} 41' in text
    assert len(text.splitlines()) < 8 * len(SERIES) + 3 * len(SERIES) + 30


def test_the_little_server():
    with MetricsServer("127.0.0.1:0", lambda: "a 1\n", lambda: False) as server:
        root = f"http://127.0.0.1:{server.port}"
        with urllib.request.urlopen(f"{root}/metrics", timeout=5) as answer:
            assert answer.read() == b"a 1\n"
        for path, status in (("/healthz", 503), ("/etc", 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(root + path, timeout=5)
            assert refused.value.code == status
            refused.value.close()


def test_once_prints_a_node_topology_without_a_server(monkeypatch, tmp_path):
    fake = hgx_h100()
    monkeypatch.setattr(nvml, "load", lambda: Library(fake))
    (tmp_path / "sys").mkdir()
    arguments = ["--once", "--json", "--node-name", NODE, "--root", str(tmp_path)]
    done = CliRunner().invoke(command.app, arguments)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert (printed["kind"], printed["metadata"]["name"], len(printed["spec"]["gpus"])) == ("NodeTopology", NODE, 8)
    assert printed["samples"]["GPU0"]["temperature_c"] == 41
    fake.gpus[0].recovery = 1
    done = CliRunner().invoke(command.app, arguments[:1] + arguments[2:])
    assert done.exit_code == 1
    assert "GPU0\t0000:18:00.0" in done.stdout
    fake.errors["nvmlInit"] = 9
    assert CliRunner().invoke(command.app, arguments).exit_code == 3


def test_looking_once_needs_no_library_but_the_drivers():
    """What a person installs to try it: fairlead and nvidia-ml-py, without any other extra."""
    code = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"aiohttp", "kubernetes", "prometheus_client", "sqlalchemy", "fastapi", "jinja2"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, TESTS)
from fake_machines import gb200_tray
from fairlead.discovery import nvml
nvml.load = lambda: nvml.Library(gb200_tray())
from fairlead_operator.agent.__main__ import run
sys.argv = ["fairlead-agent", "--once", "--json"]
run()
""".replace("TESTS", repr(str(ROOT / "tests")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["spec"]["clique"].endswith(".32766")


def test_the_page_has_every_flag():
    page = (ROOT / "docs/reference/agent.md").read_text(encoding="utf-8")
    flags = [o for p in get_command(command.app).params for o in p.opts]
    assert [flag for flag in flags if flag.startswith("--") and f"`{flag}`" not in page] == []


def test_it_costs_next_to_nothing():
    """Ten minutes of looking at eight healthy GPUs: at most one hundredth of a core, the fake's own work included."""
    rig = Rig(hgx_h100()).turn()
    began = time.process_time()
    rig.turn(60)
    spent = time.process_time() - began
    assert spent <= 6.0, f"{spent:.2f} s of 600"


def test_the_chart_has_an_agent_that_may_do_little():
    text = (ROOT / "helm/fairlead/templates/agent.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load((ROOT / "helm/fairlead/values.yaml").read_text(encoding="utf-8"))
    assert values["agent"]["enabled"] is True
    assert "kind: DaemonSet" in text
    assert "authentication.kubernetes.io/node-name" in text
