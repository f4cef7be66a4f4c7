"""README.md of this folder names all forty lines, and tests that are there."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_line_and_every_test_it_names_is_there():
    rows = [
        row.split(" | ") for row in (HERE / "README.md").read_text().splitlines() if re.match(r"\| \d\d", row)
    ]
    lines = [int(number) for row in rows for number in re.findall(r"\d\d", row[0])]
    assert sorted(lines) == list(range(1, 41))
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", "".join(row[2] for row in rows))
    assert len(named) > 80
    for file, test in named:
        assert f"def {test}(" in (HERE.parent / file).read_text(encoding="utf-8"), test
