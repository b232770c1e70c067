"""What the agent hears beside NVML: the kernel log, and which pod computes on a GPU."""

from __future__ import annotations

import os
import threading
import time

import pytest
from agent_rig import Rig
from fake_machines import hgx_h100

from fairlead.clock import now_ms
from fairlead_operator.agent.kernel_log import KernelLog
from fairlead_operator.agent.working_pods import WorkingPods, pod_in

PCI = "0000:18:00"  # of GPU0
UIDS = [f"0a1b2c3d-0000-4000-8000-{n:012x}" for n in range(4)]


@pytest.fixture
def rig(tmp_path):
    return Rig(hgx_h100(), root=tmp_path).turn()


def run_in_pod(root, pid, uid, *, systemd=True):
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True, exist_ok=True)
    way = f"kubepods-pod{uid.replace('-', '_')}.slice/cri-1.scope" if systemd else f"kubepods/burstable/pod{uid}/1"
    (folder / "cgroup").write_text(f"0::/{way}\n", encoding="ascii")


def tokens(rig):
    return rig.gpu(0)["healthReasons"]


@pytest.mark.parametrize(("word", "verdict"), [("Fatal", "bad"), ("Nonfatal", "healthy"), ("", "suspect")])
@pytest.mark.parametrize("told", ["by NVML first", "by the kernel", "by both at once"])
def test_the_kernel_says_how_bad_an_nvlink_5_error_is(rig, word, verdict, told):
    line = f"Xid (PCI:{PCI}): 145, RLW_REMAP {word} XC0 i0 Link 02"
    if told != "by the kernel":
        rig.xid(0, 145)
    if told == "by NVML first":
        rig.turn()
    rig.kernel_says(line)
    rig.turn()
    assert (rig.gpu(0)["verdict"], tokens(rig)) == (verdict, ["Xid145"])
    assert rig.agent.tally.xids.total() == 1  # one fault, two sources
    again = Rig(rig.fake, kube=rig.kube, now=rig.now).turn(2)
    assert again.gpu(0)["verdict"] == verdict  # also for an agent that did not hear the words


def test_the_worst_of_several_words_counts(rig):
    for word in ("Nonfatal", "Fatal", "Nonfatal"):
        rig.kernel_says(f"Xid (PCI:{PCI}): 149, NETIR {word} Link 01")
    rig.turn()
    assert rig.gpu(0)["verdict"] == "bad"
    assert "Fatal" in rig.gpu(0)["healthReason"]
    assert rig.agent.tally.xids.total() == 3  # one source, three faults


def test_a_gpu_that_fell_off_the_bus_counts_without_a_number(rig):
    rig.kernel_says("GPU 0000:18:00.0: GPU has fallen off the bus.")
    rig.turn()
    assert (rig.gpu(0)["verdict"], tokens(rig)) == ("bad", ["Xid79"])
    rig.kernel_says(f"Xid (PCI:{PCI}): 79, pid=7, GPU has fallen off the bus.")
    rig.fake.lose(0)
    rig.turn()
    assert rig.agent.tally.xids.total() == 1


def test_a_later_fault_counts_again(rig):
    rig.xid(0, 13)
    rig.turn()
    rig.now += 60_000
    rig.kernel_says(f"Xid (PCI:{PCI}): 13, Graphics SM Warp Exception")
    rig.turn()
    assert rig.agent.tally.xids.total() == 2


def test_a_line_about_a_gpu_that_nobody_knows_is_dropped(rig, caplog):
    rig.kernel_says("Xid (PCI:0000:ee:00): 79, gone")
    rig.turn()
    assert rig.verdicts() == ["healthy"] * 8
    assert "xid_of_unknown_gpu" in caplog.text


def test_only_the_kernels_own_lines_count(rig):
    rig.kernel._line(f"12,1,99,-;NVRM: Xid (PCI:{PCI}): 79, forged")  # what root writes into the log has a facility
    rig.kernel._line(f" DEVICE=+pci:{PCI};NVRM: Xid (PCI:{PCI}): 79, of a dictionary")
    rig.kernel._line(f"NVRM: Xid (PCI:{PCI}): 79, no record")
    rig.kernel._line("")
    rig.turn()
    assert rig.verdicts() == ["healthy"] * 8


def wait_for(condition):
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_log_is_read_from_its_end_without_waiting_and_is_bounded(tmp_path):
    path = tmp_path / "kmsg"
    path.write_text(f"4,1,1,-;NVRM: Xid (PCI:{PCI}): 13, before\n", encoding="ascii")
    log = KernelLog(path, now_ms)
    woken = threading.Event()
    log.wake = woken.set
    assert log.start()
    try:
        with path.open("a", encoding="ascii") as file:
            file.write(f"4,2,2,-;NVRM: Xid (PCI:{PCI}): 31, af")
            file.flush()
            time.sleep(0.1)
            file.write("ter\n SUBSYSTEM=pci\n")
        wait_for(lambda: log.heard)
        assert woken.is_set()
        assert [(pci, e.xid, e.text) for pci, e in log.take()] == [(PCI, 31, "after")]
        with path.open("a", encoding="ascii") as file:
            file.writelines(f"4,{n},2,-;NVRM: Xid (PCI:{PCI}): {n}, x\n" for n in range(1, 3_001))
        wait_for(lambda: log.heard and log.heard[-1][1].xid == 3_000)
        assert len(log.heard) == 1_024
    finally:
        log.stop()


def test_a_log_that_is_overwritten_goes_on(monkeypatch, tmp_path):
    answers = [OSError(32, "overwritten"), f"4,2,2,-;NVRM: Xid (PCI:{PCI}): 31, x\n".encode(), OSError(5, "broken")]

    def read(fd, size):
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    (tmp_path / "kmsg").touch()
    log = KernelLog(tmp_path / "kmsg", now_ms)
    monkeypatch.setattr(os, "read", read)
    fd = os.open(tmp_path / "kmsg", os.O_RDONLY)
    assert log._read(fd)
    assert log._read(fd)
    with pytest.raises(OSError, match="broken"):
        log._read(fd)
    os.close(fd)
    assert [event.xid for _, event in log.take()] == [31]


def test_a_log_that_is_not_there_is_said_once(tmp_path, caplog):
    assert not KernelLog(tmp_path / "none", now_ms).start()
    assert caplog.text.count("no_kernel_log") == 1


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        (f"0::/kubepods.slice/kubepods-burstable-pod{UIDS[1].replace('-', '_')}.slice/cri-containerd-1.scope", UIDS[1]),
        (f"0::/../../pod{UIDS[1]}/0123", UIDS[1]),
        ("4:memory:/kubepods/poda5e3a5e3a5e3a5e3a5e3a5e3a5e3a5e3/1", "a5e3a5e3a5e3a5e3a5e3a5e3a5e3a5e3"),
        ("0::/system.slice/podman.service", ""),
        ("", ""),
    ],
)
def test_a_control_group_names_its_pod(text, uid):
    assert pod_in(text) == uid


def test_faults_of_three_pods_count_whoever_tells_of_the_process(rig, tmp_path):
    for n, uid in enumerate(UIDS[:3]):
        run_in_pod(tmp_path, 100 + n, uid, systemd=n % 2 == 0)
    rig.fake.gpus[0].processes = [100]
    rig.turn()
    rig.fake.gpus[0].processes = []
    (tmp_path / "proc/100/cgroup").unlink()  # the program is gone when its fault is heard of
    rig.xid(0, 31)
    rig.turn()
    rig.kernel_says(f"Xid (PCI:{PCI}): 31, pid=101, name=python, Ch 0")
    rig.turn()
    assert rig.gpu(0)["verdict"] == "healthy"
    rig.kernel_says(f"Xid (PCI:{PCI}): 13, pid='102', name=python")
    rig.turn()
    assert (rig.gpu(0)["verdict"], "AppFaults" in tokens(rig)) == ("suspect", True)


def test_of_several_pods_at_work_none_is_blamed(tmp_path, rig, caplog):
    for n, uid in enumerate(UIDS):
        run_in_pod(tmp_path, 100 + n, uid)
    rig.fake.gpus[0].processes = [100, 101]
    rig.turn(2)
    pods = rig.observer._pods
    assert (pods.of_gpu(rig.fake.gpus[0].uuid), pods.of_process(101)) == ("", UIDS[1])
    rig.xid(0, 31)
    rig.turn()
    assert "pod=unknown" in caplog.text
    rig.fake.gpus[0].processes = [100, 7]  # and one of no pod
    rig.turn(2)
    assert pods.of_gpu(rig.fake.gpus[0].uuid) == ""
    rig.fake.gpus[0].processes = [100]
    rig.turn(2)
    assert pods.of_gpu(rig.fake.gpus[0].uuid) == UIDS[0]


def test_pods_without_a_proc_are_unknown(tmp_path):
    pods = WorkingPods(tmp_path)
    pods.saw({"u": [1, 2]})
    assert (pods.of_gpu("u"), pods.of_gpu("v"), pods.of_process(1)) == ("", "", "")
