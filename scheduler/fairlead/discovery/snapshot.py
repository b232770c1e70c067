"""Files of one machine as a tree: a directory (``/`` of the node itself included) or a tarball of one.

Both look alike from here. Links are followed inside the tree alone: an absolute target starts at the tree's root,
``..`` stops there, and a chain of more than `_MOST_HOPS` leads nowhere. Nothing is ever unpacked to disk. Sizes and
counts are bounded.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from fairlead.errors import UnreadableInput

FILE_BYTES = 64 << 10
"""How much of one file is read; what the kernel writes about a device is far below it."""

_TARBALL_BYTES = 256 << 20  # unpacked
_MOST_MEMBERS = 200_000
_MOST_ENTRIES = 65_536  # of one directory
_MOST_HOPS = 40
_DEEPEST = 64
_MARKS = ("sys", "proc")
_BROKEN = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, RecursionError, OverflowError)


class Backing(Protocol):
    """Where a snapshot's entries are; paths are tuples of names below its root and never contain links."""

    def kind(self, path: tuple[str, ...]) -> str:
        """Return ``file``, ``directory``, ``link``, or "" for what is not there or is neither."""
        ...

    def target(self, path: tuple[str, ...]) -> str:
        """Return where a link points."""
        ...

    def names(self, path: tuple[str, ...]) -> list[str]:
        """Return the names in a directory, in no order."""
        ...

    def data(self, path: tuple[str, ...]) -> bytes:
        """Return the first `FILE_BYTES` of a file, b"" where it cannot be read."""
        ...


class Snapshot:
    """A machine's ``/sys`` and ``/proc``. Every question about what is not there has an empty answer."""

    __slots__ = ("_backing", "_kinds", "_root", "name")

    def __init__(self, backing: Backing, *, name: str) -> None:
        """Find ``sys`` or ``proc`` at the top or in the only directory of it.

        Raises
        ------
        UnreadableInput
            Neither is there.
        """
        self.name = name
        self._backing = backing
        self._root: tuple[str, ...] = ()
        self._kinds: dict[tuple[str, ...], str] = {}
        for _ in range(8):
            if any(self._kind((*self._root, mark)) == "directory" for mark in _MARKS):
                return
            below = [n for n in backing.names(self._root) if self._kind((*self._root, n)) == "directory"]
            if len(below) != 1:
                break
            self._root = (*self._root, below[0])
        raise UnreadableInput(f"{name}: no sys or proc in it; give the directory or tarball that holds them")

    def text(self, path: str) -> str:
        """Return a file's text without white space around it, "" where there is none."""
        return self.data(path).decode("utf-8", "replace").replace("\0", "").strip()

    def data(self, path: str) -> bytes:
        """Return the first `FILE_BYTES` of a file, b"" where there is none."""
        found = self._walk(path)
        return self._backing.data(found) if found is not None and self._kind(found) == "file" else b""

    def names(self, path: str) -> list[str]:
        """Return the sorted names in a directory, at most `_MOST_ENTRIES` of them."""
        found = self._walk(path)
        if found is None or self._kind(found) != "directory":
            return []
        return sorted(self._backing.names(found)[:_MOST_ENTRIES])

    def exists(self, path: str) -> bool:
        """Return whether the path leads to something."""
        return self._walk(path) is not None

    def resolve(self, path: str) -> tuple[str, ...]:
        """Return the names of the path with all links followed, () where it leads nowhere."""
        found = self._walk(path)
        return () if found is None else found[len(self._root) :]

    def target(self, path: str) -> str:
        """Return the last name of where a link points, whether or not that is there; "" where this is no link."""
        above = PurePosixPath(path)
        parent = self._walk(str(above.parent))
        if parent is None or self._kind((*parent, above.name)) != "link":
            return ""
        return PurePosixPath(self._backing.target((*parent, above.name))).name

    def _kind(self, path: tuple[str, ...]) -> str:
        known = self._kinds.get(path)
        if known is None:
            known = self._kinds[path] = self._backing.kind(path)
        return known

    def _walk(self, path: str) -> tuple[str, ...] | None:
        todo = list(reversed(_parts(path)))
        at, hops = self._root, 0
        while todo:
            name = todo.pop()
            if name == "..":
                at = at[:-1] if len(at) > len(self._root) else at
                continue
            here = (*at, name)
            kind = self._kind(here)
            if kind == "link":
                hops += 1
                target = self._backing.target(here)
                if hops > _MOST_HOPS or len(todo) > 4 * _DEEPEST:
                    return None
                if target.startswith("/"):
                    at = self._root
                todo += reversed(_parts(target))
            elif kind and (kind == "directory" or not todo) and len(here) <= _DEEPEST:
                at = here
            else:
                return None
        return at


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def read_directory(root: Path, *, name: str = "") -> Snapshot:
    """Return the snapshot that a directory is.

    Raises
    ------
    UnreadableInput
        It is no directory, or holds neither ``sys`` nor ``proc``.
    """
    shown = name or str(root)
    if not root.is_dir():
        raise UnreadableInput(f"{shown}: no directory; give the root of a machine's files or a tarball of them")
    return Snapshot(_Directory(root), name=shown)


def read_tarball(data: bytes, *, name: str) -> Snapshot:
    """Return the snapshot in a tarball (plain, gzip, bzip2 or xz), of which only ``sys`` and ``proc`` are kept.

    Raises
    ------
    UnreadableInput
        No tarball, a damaged one, one that unpacks to more than 256 MiB or has more than 200,000 members, or one
        without ``sys`` and ``proc``.
    """
    return Snapshot(_Tarball(data, name), name=name)


class _Directory:
    """Entries of a real directory. Links are read, never followed; only regular files are opened."""

    __slots__ = ("_root",)

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, path: tuple[str, ...]) -> str:
        return os.path.join(self._root, *path)

    def kind(self, path: tuple[str, ...]) -> str:
        try:
            mode = os.lstat(self._path(path)).st_mode
        except (OSError, ValueError):
            return ""
        kinds = ((stat.S_ISLNK, "link"), (stat.S_ISDIR, "directory"), (stat.S_ISREG, "file"))
        return next((kind for test, kind in kinds if test(mode)), "")

    def target(self, path: tuple[str, ...]) -> str:
        try:
            return os.readlink(self._path(path))
        except OSError:
            return ""

    def names(self, path: tuple[str, ...]) -> list[str]:
        try:
            return os.listdir(self._path(path))
        except OSError:
            return []

    def data(self, path: tuple[str, ...]) -> bytes:
        try:
            with Path(self._path(path)).open("rb", buffering=0) as file:
                return file.read(FILE_BYTES) or b""
        except OSError:
            return b""


class _Tarball:
    """Entries of a tarball in memory. What lies below a file or a link in it is no entry."""

    __slots__ = ("_files", "_links", "_tree")

    def __init__(self, data: bytes, name: str) -> None:
        self._tree: dict[tuple[str, ...], set[str]] = {(): set()}
        self._files: dict[tuple[str, ...], bytes] = {}
        self._links: dict[tuple[str, ...], str] = {}
        try:
            with _unpacked(data) as stream, tarfile.open(fileobj=_Bounded(stream), mode="r|") as tar:
                for count, member in enumerate(tar):
                    if count >= _MOST_MEMBERS:
                        raise UnreadableInput(
                            f"{name}: more than {_MOST_MEMBERS} members; no machine has as many files"
                        )
                    self._add(tar, member)
        except _BROKEN as broken:
            raise UnreadableInput(f"{name}: no readable tarball ({str(broken) or type(broken).__name__})") from None

    def _add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = tuple(_parts(member.name))
        wanted = any(mark in path[:8] for mark in _MARKS)
        if not path or ".." in path or len(path) > _DEEPEST or not wanted or not self._directories(path[:-1]):
            return
        if member.isdir():
            self._directories(path)
        elif path in self._tree:
            return
        elif member.issym():
            self._forget(path)
            self._links[path] = member.linkname
        elif member.isreg():
            file = tar.extractfile(member)
            self._forget(path)
            self._files[path] = file.read(FILE_BYTES) if file is not None else b""
        elif member.islnk() and (known := self._files.get(tuple(_parts(member.linkname)))) is not None:
            self._forget(path)
            self._files[path] = known
        else:
            return
        self._tree[path[:-1]].add(path[-1])

    def _forget(self, path: tuple[str, ...]) -> None:
        self._links.pop(path, None)
        self._files.pop(path, None)

    def _directories(self, path: tuple[str, ...]) -> bool:
        """Make a directory and all above it; False where a file or link stands in the way."""
        for at in range(1, len(path) + 1):
            here = path[:at]
            if here in self._files or here in self._links:
                return False
            if here not in self._tree:
                self._tree[here] = set()
                self._tree[here[:-1]].add(here[-1])
        return True

    def kind(self, path: tuple[str, ...]) -> str:
        if path in self._files:
            return "file"
        return "link" if path in self._links else "directory" if path in self._tree else ""

    def target(self, path: tuple[str, ...]) -> str:
        return self._links.get(path, "")

    def names(self, path: tuple[str, ...]) -> list[str]:
        return sorted(self._tree.get(path, ()))

    def data(self, path: tuple[str, ...]) -> bytes:
        return self._files.get(path, b"")


class _Bounded(io.RawIOBase):
    """A stream that fails once more than `_TARBALL_BYTES` were read from it, so that no bomb goes off."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._left = _TARBALL_BYTES

    def read(self, size: int = -1, /) -> bytes:
        wanted = self._left + 1 if size < 0 else min(size, self._left + 1)
        data = self._stream.read(wanted)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {_TARBALL_BYTES >> 20} MiB")
        return data


def _unpacked(data: bytes) -> io.BufferedIOBase:
    raw = io.BytesIO(data)
    if data[:3] == b"BZh":
        return bz2.open(raw)
    if data[:2] == b"\x1f\x8b":
        return gzip.open(raw)
    if data[:6] == b"\xfd7zXZ\0":
        return lzma.open(raw)
    return raw
