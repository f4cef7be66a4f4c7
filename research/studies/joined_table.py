"""Evaluation by several processes: one table each, joined at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist

from research.studies.sweep import row_key
from research.studies.tables import MethodMarks, append_row, read_table


def own_share(items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The items of this process: every n-th of n processes."""
    return list(items[idist.get_rank() :: idist.get_world_size()])


def own_folder(output_dir: str | Path) -> str:
    """Where this process keeps its table."""
    return str(Path(output_dir) / f"process_{idist.get_rank()}")


def join_tables(
    output_dir: str | Path,
    items: Sequence[Mapping[str, Any]],
    weights_files: Sequence[str | Path | None] = (),
    method_weights: Mapping[str, Sequence[str | Path | None]] | None = None,
) -> Path | None:
    """Wait for all processes; the first one joins their tables, in the order of the items.

    Args:
        output_dir: holds the folders of :func:`own_folder`; receives ``sweep.csv``.
        items: all items, with ``case``.
        weights_files: as of :class:`~research.studies.sweep.DialSweep`; rows of others are left out.
        method_weights: likewise.

    Returns:
        The joined table, None in the other processes.
    """
    idist.barrier()
    if idist.get_rank() > 0:
        return None
    order = [str(item["case"]) for item in items]
    shards = sorted(Path(output_dir).glob("process_*/sweep.csv"))
    marks = MethodMarks(weights_files, method_weights)
    rows = [row for shard in shards for row in read_table(shard) if row["case"] in order]
    rows = [row for row in rows if marks.has(row)]  # an earlier run had other weights
    unique = {row_key(row): row for row in rows}  # an earlier run had other shares
    table = Path(output_dir) / "sweep.csv"
    table.unlink(missing_ok=True)
    for row in sorted(unique.values(), key=lambda row: order.index(row["case"])):
        append_row(table, row)
    return table
