"""Markdown that several reports write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import DataRow, TableFormat, tabulate

_ROW = DataRow("| ", " | ", " |")
# Markdown whose columns are not filled up with blanks: a change of one figure changes one line
UNPADDED = TableFormat(
    lineabove=None,
    linebelowheader=lambda widths, _: "| " + " | ".join("---" for _ in widths) + " |",
    linebetweenrows=None,
    linebelow=None,
    headerrow=_ROW,
    datarow=_ROW,
    padding=0,
    with_header_hide=None,
)


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table whose cells are as given."""
    plain: dict[str, Any] = {"disable_numparse": True, "stralign": None, "numalign": None}
    return tabulate(list(rows), list(heads), tablefmt=UNPADDED, **plain).splitlines()


def block_marks(name: str) -> tuple[str, str]:
    """The two lines of a page between which a program writes."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def replace_block(text: str, name: str, lines: Sequence[str]) -> str:
    """Put lines between the two marks of a page; what else it says is kept.

    Raises:
        ValueError: when the page lacks a mark.
    """
    begin, end = block_marks(name)
    if begin not in text or end not in text:
        raise ValueError(f"the page lacks the lines {begin} and {end}")
    return "\n".join([text.split(begin)[0] + begin, *lines, end + text.split(end)[1]])
