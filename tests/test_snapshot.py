"""Snapshots of a machine's files: links that stay inside, tarballs that mean harm, and what is no snapshot."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sysfs_machines import SysfsTree, dgx_a100
from test_sysfs import two_nodes

from fairlead.discovery import sysfs
from fairlead.discovery.snapshot import read_directory, read_tarball
from fairlead.errors import UnreadableInput


def tarball(root: Path, **how: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=how.get("mode", "w:gz")) as tar:
        tar.add(root, arcname="machine")
    return out.getvalue()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tarball_is_the_machine_that_was_packed(tmp_path: Path, mode: str) -> None:
    dgx_a100(tmp_path)
    from_folder, _ = sysfs.read(tmp_path, name="dgx")
    assert sysfs.parse_tarball(tarball(tmp_path, mode=mode), name="dgx")[0] == from_folder
    (tmp_path / "x.tar").write_bytes(tarball(tmp_path, mode=mode))
    assert sysfs.read(tmp_path / "x.tar", name="dgx")[0] == from_folder


def member(name: str, data: bytes = b"", **how: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in how.items():
        setattr(info, key, value)
    return info, data


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_links_never_lead_out_of_the_tree(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden")
    root = tmp_path / "root"
    tree = SysfsTree(root)
    tree.write("sys/inside", "seen")
    for name, target in {"up": "../../../../../../../secret", "absolute": str(secret), "loop": "loop",
                         "inside2": "/sys/inside"}.items():  # fmt: skip
        (root / "sys" / name).symlink_to(target)
    os.mkfifo(root / "sys/pipe")
    targets = {"up": "../../../../secret", "absolute": str(secret), "loop": "loop", "inside2": "/sys/inside"}
    links = [member(f"m/sys/{name}", type=tarfile.SYMTYPE, linkname=target) for name, target in targets.items()]
    links.append(member("m/sys/inside", b"seen\n"))
    for files in (read_directory(root), read_tarball(packed(*links), name="t")):
        assert files.text("sys/inside") == "seen"
        assert files.text("sys/inside2") == "seen"
        for name in ("up", "absolute", "loop", "pipe", "../../secret", "../secret"):
            assert files.text(f"sys/{name}") == "", name
        assert files.resolve("sys/loop") == ()


def test_members_that_climb_or_hide_below_links_are_no_entries() -> None:
    files = read_tarball(
        packed(
            member("../sys/evil", b"1"),
            member("/etc/../sys/evil", b"1"),
            member("m/sys/good", b"2"),
            member("m/sys/link", type=tarfile.SYMTYPE, linkname="/etc"),
            member("m/sys/link/evil", b"3"),
            member("m/sys/good/evil", b"4"),
            member("m/sys/hard", type=tarfile.LNKTYPE, linkname="m/sys/good"),
            member("m/sys/device", type=tarfile.CHRTYPE),
        ),
        name="t",
    )
    assert files.names("sys") == ["good", "hard", "link"]
    assert files.text("sys/hard") == "2"


def bomb() -> bytes:
    """Some kilobytes that unpack to 300 MiB."""
    head = tarfile.TarInfo("m/sys/zeros")
    head.size = 300 << 20
    return gzip.compress(head.tobuf() + bytes(head.size), compresslevel=1)


@pytest.mark.parametrize(
    ("what", "data", "says"),
    [
        ("empty", lambda: b"", "no readable tarball"),
        ("text", lambda: b"not a tarball at all, just words" * 100, "no readable tarball"),
        ("cut", lambda: bz2.compress(packed(member("m/sys/a", b"x" * 9000)))[:-30], "no readable tarball"),
        ("nothing of a machine", lambda: packed(member("m/etc/passwd", b"x")), "no sys or proc"),
        ("an empty machine", lambda: packed(member("m/sys/a", b"x")), "neither CPUs nor NUMA nodes"),
        ("a bomb", bomb, "more than 256 MiB"),
    ],
)
def test_what_is_no_snapshot_is_refused(what: str, data: Callable[[], bytes], says: str) -> None:
    with pytest.raises(UnreadableInput, match=f"^{what}: .*{says}"):
        sysfs.parse_tarball(data(), name=what)


def test_too_many_devices_are_refused(tmp_path: Path) -> None:
    tree = two_nodes(tmp_path)
    for at in range(257):
        tree.gpu(f"pci{at:04x}:00/{at:04x}:00:00.0", numa=0)
    with pytest.raises(UnreadableInput, match="more than 256"):
        sysfs.read(tmp_path)


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_what_is_not_there_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UnreadableInput, match=path):
        sysfs.read(tmp_path / path)
