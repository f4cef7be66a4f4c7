"""Tables of measurements: CSV that grows row by row, and is begun anew for other weights."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_diffens.bundle.manifest import sha256_of

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
        files: weight files; None among them is left out. The hash is read from ``<file>.sha256`` where that
            is, else computed.
    """
    marks = []
    for file in [files] if isinstance(files, (str, Path)) else files:
        if file is not None:
            record = Path(f"{file}.sha256")
            marks.append((record.read_text(encoding="utf-8") if record.is_file() else sha256_of(file))[:12])
    return "+".join(marks)


def start_table(
    table: Path, weights_files: str | Path | Sequence[str | Path | None], column: str = MARK
) -> str:
    """Make the folder, drop a table of other weights, and return the mark of these (:func:`weights_mark`).

    A table without ``column``, of an earlier version, is dropped too. Where no weight file is given, rows
    have no mark.
    """
    mark = weights_mark(weights_files)
    table.parent.mkdir(parents=True, exist_ok=True)
    wanted = (column,) if mark else ()
    if any((row.get(MARK) or "") != mark or not set(wanted) <= set(row) for row in read_table(table)):
        logger.warning("%s holds other figures or those of other weights: begun anew", table.name)
        table.unlink()
    return mark
