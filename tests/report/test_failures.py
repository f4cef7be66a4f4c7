"""docs/failures.md holds every line that a user may read."""

import re

from monai_diffens import messages
from monai_diffens.report.failures import DOCUMENT, MORE, SECTIONS, document


def test_document_is_up_to_date():
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: python -m monai_diffens.report.failures"


def test_every_line_is_there_once_and_has_its_section():
    groups = {n: v for n, v in vars(messages).items() if n.isupper() and isinstance(v, dict) and n[0] != "_"}
    lines = [line for group in groups.values() for line in group.values()]
    text = document()
    assert len(lines) == len(messages._ALL) == text.count("\n- `")
    assert all(f"- `{line}`\n" in text for line in lines)
    assert set(groups) <= set(SECTIONS), "give the new group a title in apps/failures.py"
    assert len(MORE) > 20


def test_every_rejection_says_what_to_do():
    for key, line in messages.REJECT.items():
        assert re.search(r"[;:] .{6,}|, expected ", line.removeprefix("{name}: ")), key
