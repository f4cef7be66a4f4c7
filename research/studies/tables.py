"""Tables of measurements: CSV that grows row by row; rows of other weights are dropped."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_diffens.files import sha256_of

logger = logging.getLogger(__name__)

MARK = "weights"  # column: what the row's figures were made with


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a sweep's table; empty when there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row, with a header when the file is new; columns that an old file lacks are added to it."""
    rounded = {key: f"{value:.5g}" if isinstance(value, float) else value for key, value in row.items()}
    rows, mode = read_table(path), "a"
    header = list(rows[0]) if rows else list(row)
    if not rows or not set(row) <= set(header):
        header, mode = [*row, *(key for key in header if key not in row)], "w"
    with path.open(mode, newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=header)
        if mode == "w":
            writer.writeheader()
            writer.writerows(rows)
        writer.writerow(rounded)


def weights_mark(files: str | Path | Sequence[str | Path | None]) -> str:
    """What marks the rows of weight files: 12 digits of each one's SHA-256, joined by "+".

    Args:
        files: weight files; None or False among them is left out. The hash is read from ``<file>.sha256``
            where that is, else computed.
    """
    marks = []
    for file in [files] if isinstance(files, (str, Path)) else files:
        if file:
            record = Path(f"{file}.sha256")
            marks.append((record.read_text(encoding="utf-8") if record.is_file() else sha256_of(file))[:12])
    return "+".join(marks)


class MethodMarks:
    """Which mark the rows of a method have (:func:`weights_mark`).

    Args:
        files: weights that the figures of all methods depend on.
        methods: the files of those methods that depend on others instead: a new baseline so leaves the rows
            of the model as they are.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path | None],
        methods: Mapping[str, Sequence[str | Path | None]] | None = None,
    ) -> None:
        self.common = weights_mark(files)
        self.methods = {name: weights_mark(each) for name, each in (methods or {}).items()}

    def of(self, method: str) -> str:
        """The mark of a method's rows."""
        return self.methods.get(method, self.common)

    def has(self, row: Mapping[str, str]) -> bool:
        """Whether a row was made with these weights."""
        return (row.get(MARK) or "") == self.of(row.get("method") or "")


def start_table(
    table: Path, weights: str | Path | Sequence[str | Path | None] | MethodMarks, column: str = MARK
) -> str:
    """Make the folder, drop the rows of other weights, and return the mark of these (:func:`weights_mark`).

    Args:
        table: CSV.
        weights: files of all weights; a :class:`MethodMarks` where methods depend on different ones. Where
            no file is given, rows have no mark.
        column: a table without it, of an earlier version, is dropped too.
    """
    marks = weights if isinstance(weights, MethodMarks) else MethodMarks(weights)
    table.parent.mkdir(parents=True, exist_ok=True)
    wanted = {column} if marks.common else set()
    rows = read_table(table)
    kept = [row for row in rows if marks.has(row) and wanted <= set(row)]
    if len(kept) < len(rows):
        logger.warning("%s holds other figures or those of other weights: begun anew there", table.name)
        table.unlink()
        for row in kept:
            append_row(table, row)
    return marks.common
