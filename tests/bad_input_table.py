"""The table at the end of a test run: for every row of docs/bad_inputs.md, what is wanted and what came.

A test of a row runs the real command on real files, carries ``@pytest.mark.bad_input(NUMBER)`` and may note
what a user saw with ``got(line)``; tests of the functions behind it carry no mark.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "bad_inputs.md"
INPUT, WANTED, GOT = 30, 44, 76  # widths of columns


class Row(NamedTuple):
    """One row of the document."""

    number: int
    input: str
    wanted: str


def rows() -> list[Row]:
    """The rows of the document, in its order."""
    found = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    return [Row(int(number), given, wanted) for number, given, wanted in found]


def note_row(item: pytest.Item, report: pytest.TestReport) -> None:
    """Let a report carry the row's number to where the table is written."""
    for marker in item.iter_markers("bad_input"):
        report.user_properties.extend(("bad_input", number) for number in marker.args)


def table(reports: dict[str, list[pytest.TestReport]]) -> tuple[list[str], int]:
    """Lines of the table, and how many rows came out as wanted; () when no row was tested."""
    results: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in reports.get(outcome, []):
            noted = [value for name, value in getattr(report, "user_properties", ()) if name == "got"]
            for name, value in getattr(report, "user_properties", ()):
                if name == "bad_input":
                    results[int(str(value))].append((outcome, " / ".join(map(str, noted))))
    if not results:
        return [], 0
    lines, good = [f"{'#':>2}  {'input':{INPUT}}  {'wanted':{WANTED}}  {'got':{GOT}}  as wanted"], 0
    for row in rows():
        came = results[row.number]
        outcomes = {outcome for outcome, _ in came}
        equal = outcomes == {"passed"}
        good += equal
        got = next((text for _, text in came if text), "") or ("as tested" if equal else "no test ran")
        verdict = "yes" if equal else "NO" if outcomes & {"failed", "error"} else "not tested"
        cells = f"{row.input[:INPUT]:{INPUT}}  {row.wanted[:WANTED]:{WANTED}}  {got[:GOT]:{GOT}}"
        lines.append(f"{row.number:>2}  {cells}  {verdict}")
    return lines, good


def pytest_terminal_summary(terminalreporter) -> None:
    lines, good = table(terminalreporter.stats)
    if lines:
        terminalreporter.section(f"bad inputs: {good} of {len(rows())} rows as wanted")
        for line in lines:
            terminalreporter.write_line(line)
