"""Read a file or directory of any kind that discovery knows; what kind it is, its content says.

A directory with ``sys`` or ``proc`` in it is one machine; of any other directory all files are read, and files of one
machine are joined: a machine is called what its source calls it, else what the file is called without its endings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fairlead.discovery import (
    hwloc_xml,
    nccl_xml,
    node_labels,
    node_topology,
    nvidia_smi_topo,
    resource_slices,
    sysfs,
    topograph,
)
from fairlead.discovery.documents import read_documents
from fairlead.discovery.merge import merge
from fairlead.errors import UnreadableInput
from fairlead.model.fabric import Inventory, NamedMachine, Warned
from fairlead.model.hardware import Machine

LARGEST = 256 << 20
_MOST_FILES = 10_000
_ENDINGS = (
    ".txt", ".xml", ".json", ".yaml", ".yml", ".tar", ".gz", ".bz2", ".xz", ".tgz", ".tbz2", ".txz",
    ".topo", ".nccl", ".hwloc", ".lstopo", ".nvidia-smi", ".smi", ".slices", ".labels", ".node",
)  # fmt: skip
_DOCUMENT = re.compile(r"^(?:- +)?\"?(?:kind|apiVersion|switches|blocks|capacity_blocks)\"? *:", re.MULTILINE)
_TARBALLS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of source: how its files are read, and what they are, for help and errors."""

    read: Callable[[bytes, str, str], Inventory]
    what: str


def read_path(path: Path, *, kind: str = "") -> Inventory:
    """Return the inventory in a file or directory; `kind` (of `KINDS`) says what it is where it does not itself.

    Raises
    ------
    UnreadableInput
        Nothing is there, it is of no known kind, or it is damaged beyond what can be kept; the text names file, line
        and field.
    """
    shown = str(path)
    if kind and kind not in KINDS and kind != "sysfs":
        raise UnreadableInput(f"kind {kind!r} is not known; give one of: {', '.join(sorted((*KINDS, 'sysfs')))}")
    if path.is_dir():
        if kind == "sysfs" or (not kind and _is_root(path)):
            return read_root(path)
        return _directory(path, kind)
    return read_bytes(_bytes_of(path), name=shown, machine=machine_name(path), kind=kind)


def read_root(path: Path) -> Inventory:
    """Return the machine in a directory or tarball of ``sys`` and ``proc``.

    Raises
    ------
    UnreadableInput
        There is no machine in it.
    """
    machine, warnings = sysfs.read(path)
    own = path / "proc/sys/kernel/hostname" if path.is_dir() and not path.resolve().name else None
    host = _bytes_of(own).decode("utf-8", "replace").strip() if own is not None and own.is_file() else ""
    return _one(machine, warnings, "sysfs", str(path), host or machine_name(path))


def read_bytes(data: bytes, *, name: str, machine: str, kind: str = "") -> Inventory:
    """Return the inventory in the bytes of one file; a machine whose source has no name for it is called `machine`.

    Raises
    ------
    UnreadableInput
        As `read_path`.
    """
    found = kind or kind_of(data)
    if found == "sysfs":
        described, warnings = sysfs.parse_tarball(data, name=name)
        return _one(described, warnings, "sysfs", name, machine)
    if found not in KINDS:
        known = "; ".join(source.what for source in KINDS.values())
        raise UnreadableInput(f"{name}: of no kind that is read here ({known}; a tarball of sys and proc)")
    return KINDS[found].read(data, name, machine)


def kind_of(data: bytes) -> str:
    """Return the kind of a file by its content, "" for an unknown one."""
    if data.startswith(_TARBALLS) or data[257:262] == b"ustar":
        return "sysfs"
    head = data[: 1 << 16].lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"<"):
        roots = [(head.find(mark), kind) for mark, kind in ((b"<topology", "hwloc-xml"), (b"<system", "nccl-xml"))]
        present = [(at, kind) for at, kind in roots if at >= 0]
        return min(present)[1] if present else ""
    text = head.decode("utf-8", "replace")
    if head[:1] in (b"{", b"[") or _DOCUMENT.search(text):
        return "documents"
    return "nvidia-smi-topo" if "GPU0" in text or "CPU Affinity" in text else ""


def machine_name(path: Path) -> str:
    """Return what the machine of a file is called: the file's name without the endings that are known here."""
    name = path.resolve().name if path.name in ("", "..") else path.name
    while True:
        ending = next((e for e in _ENDINGS if name.lower().endswith(e) and len(name) > len(e)), "")
        if not ending:
            return name or "machine"
        name = name[: -len(ending)]


def _bytes_of(path: Path) -> bytes:
    try:
        if not path.is_file():
            problem = "no file of data" if path.exists() else "no such file or directory"
            raise UnreadableInput(f"{path}: {problem}")
        if path.stat().st_size > LARGEST:
            raise UnreadableInput(f"{path}: larger than {LARGEST >> 20} MiB; no source is as large")
        return path.read_bytes()
    except (OSError, ValueError) as failed:
        raise UnreadableInput(f"{path}: {getattr(failed, 'strerror', None) or failed}") from None


def _is_root(path: Path) -> bool:
    return (path / "sys").is_dir() or (path / "proc").is_dir()


def _directory(path: Path, kind: str) -> Inventory:
    """Read all files below a directory, and the snapshots in it; those of no known kind are warnings."""
    found: list[Inventory] = []
    skipped: list[Warned] = []
    todo, files = [path], 0
    while todo:
        here = todo.pop(0)
        for entry in sorted(here.iterdir(), key=lambda entry: entry.name):
            shown = str(entry)
            if entry.name.startswith(".") or (entry.is_dir() and entry.is_symlink()):
                continue
            if entry.is_dir() and not _is_root(entry):
                todo.append(entry)
                continue
            files += 1
            if files > _MOST_FILES:
                raise UnreadableInput(f"{path}: more than {_MOST_FILES} files; give the directory that holds sources")
            try:
                found.append(read_root(entry) if entry.is_dir() else _file(entry, kind))
            except UnreadableInput as problem:
                where, _, what = str(problem).partition(": ")
                skipped.append(Warned(where=where or shown, what=f"left out: {what}"))
    if not found:
        first = f" ({skipped[0].where}: {skipped[0].what})" if skipped else ""
        raise UnreadableInput(f"{path}: nothing in it can be read{first}")
    return merge([*found, Inventory(source=str(path), warnings=tuple(skipped))], source=str(path))


def _file(entry: Path, kind: str) -> Inventory:
    return read_bytes(_bytes_of(entry), name=str(entry), machine=machine_name(entry), kind=kind)


def _one(machine: Machine, warnings: tuple[str, ...], kind: str, name: str, called: str) -> Inventory:
    named = NamedMachine(name=called, machine=machine, sources=((kind, name),))
    return merge(
        [Inventory(source=name, machines=(named,), warnings=tuple(warned(name, text) for text in warnings))],
        source=name,
    )


def warned(name: str, sentence: str) -> Warned:
    """Split a parser's warning ``name:line: what`` or ``name: where: what`` into where and what."""
    head, _, rest = sentence.partition(": ")
    if head == name and ": " in rest:
        where, _, rest = rest.partition(": ")
        head = f"{head}: {where}"
    return Warned(where=head if rest else name, what=rest or sentence)


def _text(data: bytes, name: str, machine: str) -> Inventory:
    found, warnings = nvidia_smi_topo.parse(data.decode("utf-8-sig", "replace"), name=name)
    return _one(found, warnings, "nvidia-smi-topo", name, machine)


def _nccl(data: bytes, name: str, machine: str) -> Inventory:
    found, warnings = nccl_xml.parse(data, name=name)
    return _one(found, warnings, "nccl-xml", name, machine)


def _hwloc(data: bytes, name: str, machine: str) -> Inventory:
    found, warnings = hwloc_xml.parse(data, name=name)
    return _one(found, warnings, "hwloc-xml", name, machine)


def _documents(data: bytes, name: str, machine: str) -> Inventory:
    """Read Nodes, ResourceSlices, NodeTopologies and a fabric model, all of which may be in one file."""
    by_kind: dict[str, list[dict[str, object]]] = {}
    parts: list[Inventory] = []
    other: dict[str, int] = {}
    for document in read_documents(data, name=name):
        kind = document.get("kind")
        if topograph.looks_like(document):
            parts.append(topograph.parse(document, name=name))
        elif isinstance(kind, str) and kind in ("Node", "ResourceSlice", "NodeTopology"):
            by_kind.setdefault(kind, []).append(document)
        else:
            other[str(kind or "document without kind")[:60]] = other.get(str(kind), 0) + 1
    readers = (("NodeTopology", node_topology), ("ResourceSlice", resource_slices), ("Node", node_labels))
    for kind, reader in readers:
        if kind in by_kind:
            parts.append(reader.parse(by_kind[kind], name=name))
    if not parts:
        seen = ", ".join(other) or "nothing"
        raise UnreadableInput(f"{name}: no Node, ResourceSlice, NodeTopology or fabric model in it, but {seen}")
    skipped = tuple(Warned(where=name, what=f"{kind} is not read here") for kind in other)
    return merge([*parts, Inventory(source=name, warnings=skipped)], source=name)


KINDS: dict[str, Source] = {
    "nvidia-smi-topo": Source(_text, "the output of nvidia-smi topo -m"),
    "nccl-xml": Source(_nccl, "NCCL topology XML"),
    "hwloc-xml": Source(_hwloc, "hwloc XML"),
    "documents": Source(_documents, "Nodes, ResourceSlices, NodeTopologies or a topograph model as JSON or YAML"),
}
"""Kinds of files; a tarball or directory of ``sys`` and ``proc`` is ``sysfs``."""
