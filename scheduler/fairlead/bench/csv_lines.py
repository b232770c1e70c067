"""The lines of a published CSV file, its head checked before anything runs."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fairlead.errors import UnreadableInput


def csv_lines(path: Path, columns: Sequence[str], *, of: str = "lines") -> list[tuple[int, dict[str, str]]]:
    """Return (number in the file, cells by column) of every line that is not empty; `of` is what they are, for people.

    Raises
    ------
    UnreadableInput
        The file can't be read, lacks one of `columns`, or has no such lines; the text names the file and the line.
    """
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except OSError as problem:
        raise UnreadableInput(f"cannot read {path}: {problem.strerror}") from problem
    except (UnicodeDecodeError, csv.Error) as problem:
        raise UnreadableInput(f"{path} is not a CSV file in UTF-8: {problem}") from problem
    head = [cell.strip() for cell in rows[0]] if rows else []
    missing = [column for column in columns if column not in head]
    if missing:
        raise UnreadableInput(f"{path}, line 1: no column {', '.join(missing)}; its columns are {', '.join(head)}")
    lines: list[tuple[int, dict[str, str]]] = []
    for number, cells in enumerate(rows[1:], start=2):
        if not cells:
            continue
        if len(cells) != len(head):
            raise UnreadableInput(f"{path}, line {number}: {len(cells)} cells for {len(head)} columns")
        lines.append((number, dict(zip(head, cells, strict=True))))
    if not lines:
        raise UnreadableInput(f"{path} has no {of} below its head")
    return lines
