"""docs/failures.md holds every line that a user may read."""

import re

from monai_diffens.messages import LINES, SECTIONS
from research.failures import DOCUMENT, document


def test_document_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: python -m research.failures"


def test_every_line_is_there_once():
    text = document()
    assert len(LINES) == sum(len(section["lines"]) for section in SECTIONS.values()) == text.count("\n- `")
    assert all(f"- `{line}`\n" in text for line in LINES.values())
    assert sum(len(section["more"]) for section in SECTIONS.values()) > 20


def test_every_rejection_says_what_to_do():
    for key, line in SECTIONS["reject"]["lines"].items():
        assert re.search(r"[;:] .{6,}|, expected ", line.removeprefix("{name}: ")), key
