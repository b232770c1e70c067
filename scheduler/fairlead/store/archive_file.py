"""Archives as files: gzip over JSON lines, written beside their place and moved there when they are whole."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fairlead.errors import BooksDoNotVerify, NotFound, Unreachable
from fairlead.ledger import archive
from fairlead.ledger.archive import Heading
from fairlead.ledger.chain import Sealed


def write(path: Path, heading: Heading, entries: Iterable[Sealed]) -> tuple[int, str]:
    """Write an archive and wait until the disk has it; return how many entries, and the SHA-256 of what was compressed.

    Raises
    ------
    Unreachable
        The disk does not take it, or there is a file of this name.
    """
    part = path.with_name(path.name + ".part")
    found, count = hashlib.sha256(), -1
    try:
        with part.open("xb") as raw:
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                for line in archive.lines(heading, entries):
                    found.update(line)
                    packed.write(line)
                    count += 1
            raw.flush()
            os.fsync(raw.fileno())
        os.link(part, path)  # unlike a rename this refuses to replace a file
    except OSError as error:
        raise Unreachable(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return count, found.hexdigest()


@contextmanager
def opened(path: Path) -> Generator[tuple[Heading, Iterator[Sealed]]]:
    """Open an archive: what it says of itself, and its entries, read one by one.

    Raises
    ------
    NotFound
        There is no such file.
    BooksDoNotVerify
        It is no archive, or damaged.
    """
    try:
        with gzip.open(path, "rb") as packed:
            yield archive.read_heading(packed.readline(), name=str(path)), archive.read_entries(packed, name=str(path))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BooksDoNotVerify(f"{path}: the archive is damaged: {error}") from error


def digest(path: Path) -> str:
    """Return the SHA-256 of an archive's uncompressed content. Raises as `opened` does."""
    found = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as packed:
            while block := packed.read(1 << 20):
                found.update(block)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BooksDoNotVerify(f"{path}: the archive is damaged: {error}") from error
    return found.hexdigest()
