"""Facts that wait for the database: in memory while it answers, and in a file as soon as it does not.

Theory of operation. Facts come in at one end and are taken at the other, a batch at a time; a batch stays here until
`done` says that it is committed. While commits succeed nothing touches the disk. When one fails, `keep` appends all
that is in memory only to the file and syncs it, and memory is empty again; so a long outage needs the memory of a
batch, and what was handed in survives the process. What a process finds in its file at the start goes out before
anything else. It may have been committed just before the earlier process died: the journal knows facts by their ids, so
twice is once.

A line of the file is ``since_ms crc32 record``. The last one may be torn, because the process or the room on the disk
ended in the middle of it: nobody was told that it is kept, and it is cut off. A damaged line before it stops the books.
"""

from __future__ import annotations

import fcntl
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from fairlead.errors import BooksDoNotVerify, Unreachable
from fairlead.model import codec
from fairlead.model.codec import Record


@dataclass(frozen=True, slots=True)
class Queued:
    """A record that waits; `since_ms` is when it came. `restored`: it came to an earlier process."""

    record: Record
    data: bytes
    since_ms: int
    restored: bool = False


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of the file that is not done: the offset after it, and when its record came."""

    end: int
    since_ms: int


class Outbox:
    """The queue. Not for several threads at once; the file belongs to one outbox at a time."""

    def __init__(self, path: Path | None) -> None:
        """Without a path everything is in memory only. Nothing is opened yet."""
        self.path = path
        self.bytes = 0
        self.restored = 0  # of what waits, came to an earlier process
        self._memory: deque[Queued] = deque()
        self._taken: list[Queued] = []
        self._file: int | None = None
        self._lines: deque[_Line] = deque()
        self._lines_taken = 0
        self._done_at = self._read_at = self._size = 0

    def __len__(self) -> int:
        """Return how many records wait, those that are taken included."""
        return len(self._lines) + len(self._memory) + (0 if self._lines_taken else len(self._taken))

    @property
    def oldest_ms(self) -> int | None:
        """Since when the oldest one waits, None where none does."""
        if self._lines:
            return self._lines[0].since_ms
        waiting = self._taken or self._memory
        return waiting[0].since_ms if waiting else None

    def open(self) -> None:
        """Take up what an earlier process left in the file. A second call does nothing.

        Raises
        ------
        Unreachable
            The file cannot be read, or another process has it.
        BooksDoNotVerify
            A line of it is damaged; the text has its number.
        """
        if self.path is None or self._file is not None or not self.path.exists():
            return
        assert not self._taken, "what an earlier process left goes first"
        file = self._acquire(self.path)
        try:
            found = list(_read(file, self.path))
            self._size = found[-1][0].end if found else 0
            os.ftruncate(file, self._size)
        except (OSError, BooksDoNotVerify):
            os.close(file)
            raise
        self._file = file
        self._lines.extend(line for line, _ in found)
        self.bytes += sum(size for _, size in found)
        self.restored = len(found)

    def put(self, record: Record, since_ms: int) -> None:
        """Hand in a record."""
        queued = Queued(record, codec.encode(record), since_ms)
        self._memory.append(queued)
        self.bytes += len(queued.data)

    def take(self, most: int) -> Sequence[Queued]:
        """Return the oldest, up to `most`: only such that an earlier process left, or only others.

        They wait here until `done`, or until `give_back`.
        """
        assert not self._taken, "one batch at a time"
        if not self._lines:
            self._taken = [self._memory.popleft() for _ in range(min(most, len(self._memory)))]
            return self._taken
        assert self._file is not None
        count = min(most, self.restored or len(self._lines))
        end = self._lines[count - 1].end
        taken: list[Queued] = []
        for line in os.pread(self._file, end - self._read_at, self._read_at).splitlines(keepends=True):
            since_ms, data = _parse(line, str(self.path))
            taken.append(Queued(codec.decode(data), data, since_ms, restored=self.restored > 0))
        self._taken, self._lines_taken, self._read_at = taken, count, end
        return taken

    def done(self) -> None:
        """Forget what was taken: it is committed. A file that has nothing else any more is removed."""
        self.bytes -= sum(len(queued.data) for queued in self._taken)
        self.restored = max(0, self.restored - self._lines_taken)
        for _ in range(self._lines_taken):
            self._lines.popleft()
        self._taken, self._lines_taken, self._done_at = [], 0, self._read_at
        if not self._lines and self._file is not None:
            self._remove()

    def give_back(self) -> None:
        """Let what was taken be taken once more."""
        if not self._lines_taken:
            self._memory.extendleft(reversed(self._taken))
        self._taken, self._lines_taken, self._read_at = [], 0, self._done_at

    def forget(self) -> None:
        """Drop what is in memory only: who handed it in is told that it was not written."""
        dropped = [*self._memory, *([] if self._lines_taken else self._taken)]
        self.bytes -= sum(len(queued.data) for queued in dropped)
        self._memory.clear()
        self.give_back()
        self._memory.clear()

    def keep(self) -> None:
        """Write what is in memory only to the file and sync it.

        Raises
        ------
        Unreachable
            It cannot be written; everything is still in memory.
        BooksDoNotVerify
            As `open` does.
        """
        only_taken = [] if self._lines_taken else self._taken
        waiting = [*only_taken, *self._memory]
        if self.path is None or not waiting:
            return
        if not self._taken:
            self.open()
        if self._file is None:
            self._file = self._acquire(self.path)
            os.ftruncate(self._file, 0)
        lines = [b"%d %08x %s\n" % (item.since_ms, crc32(item.data), item.data) for item in waiting]
        try:
            _write(self._file, b"".join(lines), self._size)
        except OSError as error:
            raise Unreachable(f"the outbox {self.path} cannot be written: {error.strerror}") from error
        for item, line in zip(waiting, lines, strict=True):
            self._size += len(line)
            self._lines.append(_Line(self._size, item.since_ms))
        self._memory.clear()
        if only_taken:
            self._lines_taken = len(only_taken)
            self._read_at = self._lines[self._lines_taken - 1].end

    def close(self) -> None:
        """Let go of the file; what is in it stays there for the next process."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _acquire(self, path: Path) -> int:
        """Open the file and lock it; another process may just have removed the one that was opened."""
        while True:
            try:
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise Unreachable(f"the outbox {path} cannot be opened: {error.strerror}") from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file), path.stat()):
                    return file
            except BlockingIOError:
                os.close(file)
                raise Unreachable(f"the outbox {path} is in use by another process") from None
            except FileNotFoundError:
                pass
            os.close(file)

    def _remove(self) -> None:
        assert self.path is not None
        self.path.unlink(missing_ok=True)
        self.close()
        self._done_at = self._read_at = self._size = 0


def _read(file: int, path: Path) -> Iterator[tuple[_Line, int]]:
    """Yield each whole line from the beginning, and how many bytes its record has."""
    end = 0
    with os.fdopen(os.dup(file), "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith(b"\n"):
                return
            since_ms, data = _parse(line, f"{path}, line {number}")
            end += len(line)
            yield _Line(end, since_ms), len(data)


def _parse(line: bytes, where: str) -> tuple[int, bytes]:
    since_ms, _, rest = line.rstrip(b"\n").partition(b" ")
    check, _, data = rest.partition(b" ")
    if not data or check != b"%08x" % crc32(data) or not since_ms.lstrip(b"-").isdigit():
        raise BooksDoNotVerify(f"the outbox {where}: damaged; restore the file, or move it away to do without it")
    return int(since_ms), data


def _write(file: int, data: bytes, at: int) -> None:
    """Write all of it at an offset and sync; a part that was written is taken back."""
    try:
        written = 0
        while written < len(data):
            written += os.pwrite(file, data[written:], at + written)
        os.fsync(file)
    except OSError:
        os.ftruncate(file, at)
        raise
