"""The index of a run: what lies in the folder, with thumbnails, and what has no result."""

import html
import json
import re
from html.parser import HTMLParser

import pytest

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.writer import SaveVolumed
from monai_diffens.report.case_report import WriteReportd
from monai_diffens.report.index import Cell, Row, page, write_index

MAPS = ["std", "weight-axial", "weight-coronal", "weight-sagittal"]


class Table(HTMLParser):
    """Texts of the cells of a page's tables, a list a row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.inside = tag in ("td", "th") or (self.inside and tag not in ("p", "section"))

    def handle_data(self, data):
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def folder(described, tmp_path) -> CaseFolder:
    """Two results with reports, one without, a leftover sidecar, a rejected and a failed case."""
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "cut.nii.gz").write_bytes(b"\x1f\x8bnothing")
    cases = CaseFolder(source, out)
    for name in ("a", "b", "c"):
        data = described | {"case": name, "warnings": ["thick"] if name == "b" else []}
        if name != "c":
            WriteReportd(output_dir=out, maps=MAPS)(data)
        SaveVolumed("pred", output_dir=out)(data)
    (out / "half_sr.json").write_text("{}")
    cases.fail("d", "d: out of <memory>")
    return cases


def test_index_lists_results_and_what_has_none(folder):
    path = write_index(folder)
    facts = json.loads((path.parent / "index.json").read_text())
    assert [entry["Case"] for entry in facts["Cases"]] == ["a", "b", "c"]
    assert [entry["Report"] for entry in facts["Cases"]] == ["a_sr.html", "b_sr.html", None]
    assert facts["Cases"][1]["Warnings"] == ["thick"] and facts["Cases"][0]["Spread"]["Mean"] > 0
    assert len(facts["Rejected"]) == 1 and facts["Failed"] == ["d: out of <memory>"]
    text = path.read_text()
    assert set(re.findall(r'href="([^"#:]+)"', text)) == {"a_sr.html", "b_sr.html"}
    assert "<memory>" not in text and html.escape("d: out of <memory>") in text
    assert "cut.nii.gz: " in text and "Synthetic - not for primary diagnosis" in text


def test_index_shows_figures_and_thumbnails(folder):
    text = write_index(folder).read_text()
    head, *rows = Table(text).rows
    assert [name for name in head if name] == [
        *("result", "case", "agreement", "spread", "fusion weights", "voxels / mm", "steps"),
        *("warnings", "made with"),
    ]  # no time: nobody measured it
    assert [row[1] for row in rows] == ["a", "b", "c"] and rows[1][-2] == "thick"
    assert [each.split() for each in rows[0][4].split(",")] == [
        ["axial", "0.50"],
        ["coronal", "0.30"],
        ["sagittal", "0.20"],
    ]
    assert rows[0][6] == "4"
    assert "\N{RIGHTWARDS ARROW}" in rows[0][5] and rows[2][5] == "-"  # c has no page to tell it
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[\w+/=]+"[^>]* loading="lazy"', text)) == 2


def test_a_page_that_is_not_ours_gives_no_thumbnail(folder):
    (folder.output_dir / "a_sr.html").write_bytes(b"\xff\x00<script id=card>")
    (folder.output_dir / "b_sr.html").write_text(
        '<script type="application/json" id="card">{"Picture": 1}</script>'
    )
    text = write_index(folder).read_text()
    assert "<img" not in text and len(Table(text).rows) == 4


def test_no_index_without_results(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.nii.gz").write_bytes(b"\x1f\x8bnothing")
    assert write_index(CaseFolder(tmp_path / "in", tmp_path / "out")) is None
    assert not (tmp_path / "out").exists()


def test_names_of_files_stay_names():
    cells = [Cell("-", None)] * 6
    text = page([Row('a"><b>', 'a"#?.html', None, cells, ["<u>"], "1")], {})
    assert "<b>" not in text and "<u>" not in text and 'href="a%22%23%3F.html"' in text
