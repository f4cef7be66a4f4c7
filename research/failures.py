"""Write docs/failures.md anew below its introduction: each line that users may read, and what to do about it.

    python -m research.failures

The lines are those of ``monai_diffens/messages.json``; a test compares them.
"""

from __future__ import annotations

from pathlib import Path

from monai_diffens.messages import SECTIONS

DOCUMENT = Path(__file__).parents[1] / "docs" / "failures.md"


def document() -> str:
    """Return the text of docs/failures.md.

    Raises:
        KeyError: an explanation in messages.json belongs to no line.
    """
    parts = [DOCUMENT.read_text(encoding="utf-8").partition("\n## ")[0]]
    for section in SECTIONS.values():
        more, lines = section["more"], section["lines"]
        if gone := more.keys() - lines.keys():
            raise KeyError(f"explanations of lines that are gone: {sorted(gone)}")
        parts.append(f"\n## {section['title']}\n\n{section['about']}\n\n")
        parts += [
            f"- `{line}`\n" + (f"  {more[key]}\n" if key in more else "") for key, line in lines.items()
        ]
    return "".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(document(), encoding="utf-8")
