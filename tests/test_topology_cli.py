"""`fairlead topology` as people and programs run it: documents, exit codes, one sentence for what cannot be read."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from sysfs_machines import dgx_a100
from topology_files import data_file

from fairlead.cli.main import run
from fairlead.discovery.sources import read_path
from fairlead.topology.svg import picture

MATRIX = (
    "\tGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\n"
    "GPU0\t X \tNV4\tPIX\t0-7\t0\n"
    "GPU1\tNV4\t X \tSYS\t8-15\t1\n"
    "NIC0\tPIX\tSYS\t X\n"
)
MACHINE_KEYS = {"name", "gpus", "nics", "numa_nodes", "pcie", "links", "islands", "wires", "nvswitches", "drives",
                "packages", "memory_nodes", "sources", "facts", "labels", "clique", "iommu", "product",
                "driver_version", "observed_at_ms"}  # fmt: skip


class Done:
    """What a run of the command line gave."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def fairlead(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["fairlead", "topology", *arguments])
        with pytest.raises(SystemExit) as ended:
            run()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "box.txt"
    path.write_text(MATRIX)
    return path


def test_the_document_is_as_documented(fairlead: Any, matrix: Path) -> None:
    done = fairlead("show", str(matrix), "--json")
    found = json.loads(done.out)
    assert (done.code, list(found)) == (0, ["source", "machines", "fabric", "warnings"])
    machine = found["machines"][0]
    assert set(machine) == MACHINE_KEYS
    assert (found["source"], machine["name"]) == (str(matrix), "box")
    gpu = machine["gpus"][0]
    assert {"id": "GPU0", "numa": 0, "pci": "", "uuid": ""}.items() <= gpu.items()
    assert gpu["nics"][0] == {"nic": "NIC0", "class": "PIX", "bytes_per_s": 26_000_000_000, "direct": ""}
    link = next(link for link in machine["links"] if link["b"] == "GPU1")
    assert (link["a"], link["class"], link["bytes_per_s"], link["latency"]) == ("GPU0", "NV4", 10**11, "nvlink")
    assert machine["islands"][0]["gpus"] == ["GPU0", "GPU1"]
    assert [node["cpus"] for node in machine["numa_nodes"]] == ["0-7", "8-15"]


def test_every_key_of_the_document_is_on_the_page(fairlead: Any) -> None:
    page = (Path(__file__).parents[1] / "docs/reference/topology.md").read_text()
    model = json.loads(fairlead("show", "fleet:gb200-nvl72:2", "--json").out)

    def keys(value: Any) -> set[str]:
        if isinstance(value, dict):
            named = {} if set(value) & {"nvidia.com/gpu.count"} else value
            return set(named) | {key for inner in named.values() for key in keys(inner)}
        return {key for inner in value for key in keys(inner)} if isinstance(value, list) else set()

    missing = [key for key in sorted(keys(model)) if f"`{key}`" not in page]
    assert missing == []


def test_warnings_leave_the_exit_code_at_zero(fairlead: Any) -> None:
    done = fairlead("show", str(data_file("nvidia-smi-topo/vm-8xa100-phb-corrupt.txt")), "--json")
    found = json.loads(done.out)
    assert (done.code, len(found["warnings"])) == (0, 8)
    assert found["warnings"][0]["where"].endswith("vm-8xa100-phb-corrupt.txt:2")
    assert "column NIC7" in found["warnings"][0]["what"]
    assert {link["class"] for link in found["machines"][0]["links"]} == {"NV12", "PHB"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("show", "/nowhere"), "/nowhere: no such file or directory"),
        (("show",), "SOURCE is missing"),
        (("show", "fleet:none"), "no built-in fleet 'none'"),
        (("show", "fleet:hgx-h100:0"), "is no number of nodes"),
        (("check", "/nowhere"), "/nowhere: no such file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_exit_2(fairlead: Any, arguments: tuple[str, ...], says: str) -> None:
    done = fairlead(*arguments)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert done.err.count("\n") == 1


def test_a_snapshot_is_read_with_root(fairlead: Any, tmp_path: Path) -> None:
    dgx_a100(tmp_path / "node7")
    found = json.loads(fairlead("show", "--root", str(tmp_path / "node7"), "--json").out)
    machine = found["machines"][0]
    assert (machine["name"], len(machine["gpus"])) == ("node7", 8)
    assert [gpu["numa"] for gpu in machine["gpus"]] == [3, 3, 1, 1, 7, 7, 5, 5]
    assert {entry["kind"] for entry in machine["pcie"]} >= {"root", "switch-upstream", "gpu", "nic"}
    real = read_path(data_file("nvidia-smi-topo/dgx-a100-12hca.txt")).machines[0].machine
    theirs = {(k.a, k.b): k.path for k in real.links}
    for gpu in machine["gpus"]:
        best = gpu["nics"][0]
        assert best["class"] == "PXB" == theirs[gpu["id"], best["nic"]]


def test_paths_sets_and_what_is_shared(fairlead: Any, matrix: Path) -> None:
    assert json.loads(fairlead("path", str(matrix), "GPU0", "GPU1", "--json").out)["class"] == "NV4"
    assert "GPU0 to NIC0: PIX, 26.0 GB/s" in fairlead("path", str(matrix), "GPU0", "NIC0").out
    assert "slowest pair  GPU1 to NIC0 (SYS)" in fairlead("path", str(matrix), "GPU0", "GPU1", "NIC0").out
    found = json.loads(fairlead("sets", str(matrix), "-n", "1", "--free", "GPU1", "--json").out)
    assert found["sets"][0]["gpus"] == ["GPU1"]
    none = fairlead("sets", str(matrix), "-n", "3")
    assert (none.code, "has 3 such GPUs" in none.err) == (1, True)
    assert fairlead("path", str(matrix), "GPU0", "GPU8").code == 4
    shares = json.loads(fairlead("shared", "fleet:hgx-h100:2", "h100-r1-n1", "--json").out)["shares"]
    assert {"vertex": "rack:h100-r1", "with": ["h100-r1-n1", "h100-r1-n2"]} in shares


def test_diff_and_check_end_with_1_where_there_is_something(fairlead: Any, matrix: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text(MATRIX.replace("NV4", "NV2"))
    assert fairlead("diff", str(matrix), str(matrix)).code == 0
    done = fairlead("diff", str(matrix), str(other))
    assert (done.code, "box/GPU0-GPU1 path: NV4 -> NV2" in done.out) == (1, True)
    assert fairlead("check", str(matrix)).code == 0
    other.write_text(MATRIX.replace("GPU1\tNV4", "GPU1\tNV2"))
    assert "the pair is dropped" in fairlead("check", str(other)).out
    assert fairlead("check", str(other)).code == 1
    slow = tmp_path / "measured.json"
    slow.write_text('{"measurements": [{"a": "GPU0", "b": "GPU1", "bytes_per_s": 1000}]}')
    assert "0 % of 100000000000" in fairlead("check", str(matrix), "--measured", str(slow)).out


def test_a_further_source_tells_of_the_same_machine(fairlead: Any, matrix: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere.txt"
    other.write_text(MATRIX.replace("NV4", "NV2"))
    done = fairlead("show", str(matrix), "--with", str(other), "--json")
    found = json.loads(done.out)
    assert len(found["machines"]) == 1
    assert any("NV4 by nvidia-smi-topo" in warning["what"] for warning in found["warnings"])


# --- pictures


@pytest.mark.parametrize("source", ["fleet:dgx-a100:1", "fleet:gb200-nvl72:18", "fleet:mixed:40"])
def test_pictures_are_well_formed_and_stay_inside_their_frame(fairlead: Any, source: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    assert fairlead("show", source, "--svg", str(file)).code == 0
    root = ElementTree.fromstring(file.read_text())
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if "x" in e.attrib]
    assert boxes
    for box in boxes:
        assert float(box.attrib["x"]) >= 0
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height


@pytest.mark.parametrize(
    ("file", "source"),
    [("topology-dgx-a100.svg", ("fleet:dgx-a100:1",)),
     ("topology-gb200.svg", ("fleet:gb200-nvl72:18", "--machine", "gb200-r1-n1"))],
)  # fmt: skip
def test_the_pictures_on_the_page_are_what_is_drawn(fairlead: Any, file: str, source: tuple[str, ...]) -> None:
    drawn = fairlead("show", *source, "--svg", "-").out
    assert drawn == (Path(__file__).parents[1] / "docs/reference" / file).read_text(), f"draw {file} again"


def test_cards_of_one_machine_never_overlap() -> None:
    for name in ("nvidia-smi-topo/dgx1-v100.txt", "hwloc/xml/nvidiaDGX2.xml", "hwloc/xml/16intel64-manyVFs.xml"):
        drawn = ElementTree.fromstring(picture(read_path(data_file(name))))
        cards = sorted(
            (float(e.attrib["x"]), float(e.attrib["width"]))
            for e in drawn.iter("{http://www.w3.org/2000/svg}rect")
            if e.attrib.get("rx") == "7"
        )
        assert cards
        assert all(x + width <= after for (x, width), (after, _) in pairwise(cards))


def test_names_from_files_cannot_leave_their_place_in_a_picture(tmp_path: Path) -> None:
    evil = tmp_path / "a&b<script>.txt"
    evil.write_text(MATRIX.replace("NIC0", "<b>&\"'"))
    drawn = picture(read_path(evil))
    assert "<script>" not in drawn
    ElementTree.fromstring(drawn)
