"""Reports: whole, self-contained, true to the facts, and readable in a real browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from monai_diffens.data.cases import CaseFolder
from monai_diffens.data.writer import SaveVolumed
from monai_diffens.report.case_report import WriteReportd, figure_rows
from monai_diffens.report.index import write_index
from monai_diffens.report.page import Column, page, picture, planes_grid, table

MAPS = ["std", "weight-axial", "weight-coronal", "weight-sagittal"]
CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def write(data: dict, out: Path, maps=MAPS) -> str:
    result = WriteReportd(output_dir=out, maps=maps)(data)
    assert result.keys() == data.keys()
    return (out / f"{data['case']}_sr.html").read_text(encoding="utf-8")


def images(text: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    return [imread(io.BytesIO(base64.b64decode(each))) for each in found]


def test_page_brings_everything_with_it(described, tmp_path):
    text = write(described, tmp_path)
    assert len(images(text)) == 3 * (3 + 3) + 2  # planes of scan, result, spread and weights; two scales
    assert re.findall(r'\b(?:src|href|srcset|action)="(?!data:)', text) == []
    assert "<script" not in text and "://" not in text and "url(" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["scan_sr.html"]
    assert write(described, tmp_path / "again") == text


def test_page_tells_the_facts(described, tmp_path):
    described["warnings"] = ["slices <7 mm> apart", "forced & told"]
    text = write(described, tmp_path)
    facts = described["facts"]
    for told in (
        "Synthetic - not for primary diagnosis",
        f"{facts['Consistency']['MeanAbsoluteDifference']:.4%} of the range",
        f"{facts['Spread']['Mean']:.3%} of the range",
        "axial 0.500, coronal 0.300, sagittal 0.200",
        "<th>num_steps</th><td>4</td>",
        "<th>torch</th>",
        "40 x 48 x 9",
        "40 x 48 x 36",
        "slices &lt;7 mm&gt; apart<br>forced &amp; told",
    ):
        assert told in text, told
    assert "secret" not in text and "No warnings" not in text


def test_page_without_maps(described, tmp_path):
    text = write(described, tmp_path, maps=[])
    assert len(images(text)) == 6 and "<h2>Weights" not in text and "No warnings" in text
    del described["scan"]  # several conditions and no slices, as in translation
    text = write(described, tmp_path, maps=[])
    assert len(images(text)) == 6 and "condition 1, axial" in text
    described["pred"] = described["pred"] * 0  # nothing above zero
    assert len(images(write(described, tmp_path, maps=[]))) == 6


def test_planes_show_the_left_on_the_left_and_the_head_up():
    ramp = np.zeros((10, 12, 14))
    ramp[5:] += 0.25  # the right
    ramp[:, :, 7:] += 0.5  # the head
    text = planes_grid([Column("a", ramp, (1, 1, 2), (6, 6, 8), "gray", 0, 1)])
    axial, coronal, sagittal = (image[..., 0] for image in images(text))
    assert axial.shape == (12, 10) and coronal.shape == (14, 10) and sagittal.shape == (14, 12)
    assert axial[0, 0] < axial[0, -1] and coronal[-1, 0] < coronal[0, 0] < coronal[0, -1]
    # a 28 mm high panel is the largest, 250 pixels
    assert re.findall(r"width:(\d+)px;height:(\d+)px", text) == [("89", "107"), ("89", "250"), ("107", "250")]


def test_nan_is_black_and_colours_span_the_range():
    pixels = imread(io.BytesIO(base64.b64decode(picture(np.array([[0, 1, np.nan, 9]]), "gray", 0, 1)[22:])))
    np.testing.assert_allclose(pixels[0, :, 0], [0, 1, 0, 1])


def test_text_is_escaped():
    assert "<b>" not in table([("<b>", "x")], ("<b>", "y")) and "&lt;b&gt;" in table([("<b>", "x")])
    assert "<title>a&lt;b</title>" in page("a<b", [], "n")
    assert figure_rows({}) == [("measured", "nothing")]


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
            write(data, out)
        SaveVolumed("pred", output_dir=out)(data)
    (out / "half_sr.json").write_text("{}")
    cases.fail("d", "d: out of memory")
    return cases


def test_index_lists_results_and_what_has_none(folder):
    path = write_index(folder)
    facts = json.loads((path.parent / "index.json").read_text())
    assert [entry["Case"] for entry in facts["Cases"]] == ["a", "b", "c"]
    assert [entry["Report"] for entry in facts["Cases"]] == ["a_sr.html", "b_sr.html", None]
    assert facts["Cases"][1]["Warnings"] == ["thick"] and facts["Cases"][0]["Spread"]["Mean"] > 0
    assert len(facts["Rejected"]) == 1 and facts["Failed"] == ["d: out of memory"]
    text = path.read_text()
    assert re.findall(r'href="([^"]+)"', text) == ["a_sr.html", "b_sr.html"]
    for told in ("3 results", "thick", "cut.nii.gz: truncated", "d: out of memory", "axial 0.50"):
        assert told in text, told


def test_no_index_without_results(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cut.nii.gz").write_bytes(b"\x1f\x8bnothing")
    assert write_index(CaseFolder(tmp_path / "in", tmp_path / "out")) is None
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_in_a_real_browser_without_a_network(described, tmp_path):
    write(described, tmp_path)
    page = tmp_path / "scan_sr.html"
    shot = tmp_path / "shot.png"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--window-size=1280,1500"]
    command += [f"--screenshot={shot}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert shot.is_file(), done.stderr
    pixels = np.round(imread(shot)[..., :3] * 255).astype(int)
    assert pixels.shape == (1500, 1280, 3)
    red = (pixels == (0x7A, 0x1F, 0x1F)).all(axis=-1)  # the notice, across the page
    assert red.any(axis=0).mean() > 0.9
    # the pictures were decoded and drawn: greys of the scan, and the hot colours of the spread
    rows = pixels[np.flatnonzero(red.any(axis=1)).max() + 1 :]
    grey = (rows[..., 0] == rows[..., 1]) & (rows[..., 1] == rows[..., 2])
    assert len(np.unique(rows[..., 0][grey & (rows[..., 0] > 30) & (rows[..., 0] < 220)])) > 60
    assert ((rows[..., 0] - rows[..., 2]) > 120).sum() > 2000
    assert "refused" not in done.stderr.lower()  # its content security policy let everything pass
