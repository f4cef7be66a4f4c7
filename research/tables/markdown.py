"""Markdown that several reports write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_row(cells: Iterable[str]) -> str:
    """One row of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


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
