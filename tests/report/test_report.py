"""Pages of cases: whole, self-contained, true to the facts, and of bounded size."""

import base64
import gzip
import io
import json
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from monai_diffens.report import page
from monai_diffens.report.case_report import StampStart, WriteReportd, seconds_since
from monai_diffens.report.figures import SCALES, duration, figures, percent
from monai_diffens.report.index import read_card
from monai_diffens.report.page import Colours, Column, Layer, pack, panels, picture, render
from monai_diffens.transforms.intensity import SCALE_KEY

MAPS = ["std", "weight-axial", "weight-coronal", "weight-sagittal"]
RANGE = SCALES["range"]


def write(data: dict, out: Path, maps=MAPS, **options) -> str:
    result = WriteReportd(output_dir=out, maps=maps, **options)(data)
    assert result.keys() == data.keys()
    return (out / f"{data['case']}_sr.html").read_text(encoding="utf-8")


def image_of(uri: str) -> np.ndarray:
    return imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format=uri.split("/")[1].split(";")[0])


def images(text: str) -> list[np.ndarray]:
    return [image_of(uri) for uri in re.findall(r'src="(data:image/png;base64,[^"]+)"', text)]


def stored(text: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Values and affine of a volume of a page, from its bytes."""
    (packed,) = re.findall(rf'<script type="text/plain" id="volume-{key}">([^<]+)</script>', text)
    return unpacked(packed)


def unpacked(packed: str) -> tuple[np.ndarray, np.ndarray]:
    content = gzip.decompress(base64.b64decode(packed))
    shape, (kind,) = struct.unpack("<3h", content[42:48]), struct.unpack("<h", content[70:72])
    offset, slope, inter = struct.unpack("<3f", content[108:120])
    affine = np.array(struct.unpack("<12f", content[280:328])).reshape(3, 4)
    values = np.frombuffer(content[int(offset) :], {2: np.uint8, 4: np.int16}[kind])
    return values.reshape(shape, order="F") * slope + inter, affine


def test_page_brings_everything_with_it(described, tmp_path):
    text = write(described, tmp_path)
    assert len(images(text)) == 3 * (3 + 3) + 2  # planes of scan, result, spread and weights; two scales
    assert re.findall(r'\b(?:src|href|srcset|action)="(?!data:|#)', text) == []
    assert "url(" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["scan_sr.html"]
    assert write(described, tmp_path / "again") == text


def test_only_the_page_s_own_scripts_may_run(described, tmp_path):
    text = write(described, tmp_path)
    (allowed,) = re.findall(r"script-src ([^;]+);", text)
    assert "unsafe" not in allowed and "default-src 'none'" in text and len(allowed.split()) == 3
    assert re.findall(r"\son\w+=", text.split("<body>")[1].split('<script type="application/json"')[0]) == []


def test_page_tells_the_facts(described, tmp_path):
    described["warnings"] = ["slices <7 mm> apart", "forced & told"]
    text = write(described, tmp_path)
    facts = described["facts"]
    for told in (
        "Synthetic - not for primary diagnosis",
        percent(facts["Consistency"]["MeanAbsoluteDifference"]),
        percent(facts["Spread"]["Mean"]),
        "axial\N{NO-BREAK SPACE}0.50, coronal\N{NO-BREAK SPACE}0.30, sagittal\N{NO-BREAK SPACE}0.20",
        '<th scope="row">num_steps</th><td>4</td>',
        '<th scope="row">torch</th>',
        "40 x 48 x 9",
        "40 x 48 x 36",
        "<li>slices &lt;7 mm&gt; apart</li>",
        "<li>forced &amp; told</li>",
    ):
        assert told in text, told
    assert "secret" not in text and 'class="fine"' not in text


def test_viewer_gets_the_volumes_in_the_input_s_units(described, tmp_path):
    text = write(described, tmp_path)
    unit = float(described["image"].meta[SCALE_KEY])
    for key, volume, error in (
        ("result", described["pred"] * unit, 0.51e-3 * unit),
        ("scan", described["scan"] * unit, 0.51e-3 * unit),
        ("std", described["pred_std"] * unit, 0.01 * float(described["pred_std"].max()) * unit),
    ):
        values, affine = stored(text, key)
        expected = volume.as_subclass(torch.Tensor)[0].numpy()
        inside = expected > 0
        np.testing.assert_allclose(values[inside], expected[inside], atol=error)
        np.testing.assert_allclose(affine, volume.affine.numpy()[:3], atol=1e-5)
    weight, _ = stored(text, "weight-axial")
    assert abs(weight[described["pred"][0] > 0] - 0.5).max() < 1e-3


def test_page_without_maps(described, tmp_path):
    text = write(described, tmp_path, maps=[])
    assert len(images(text)) == 6 and "Fusion weights" not in text and 'class="fine"' in text
    del described["scan"]  # several conditions and no slices, as in translation
    text = write(described, tmp_path, maps=[])
    assert len(images(text)) == 6 and "condition 1, axial" in text and '"measured": false' in text
    described["pred"] = described["pred"] * 0  # nothing above zero
    assert len(images(write(described, tmp_path, maps=[]))) == 6


def test_named_conditions_are_shown_beside_the_scan(described, tmp_path):
    described["image"] = torch.cat([described["image"], described["image"] * 0])
    names = [
        name for name, _ in WriteReportd(output_dir=tmp_path, conditions=["T1w", "T2w"]).sources(described)
    ]
    assert names == ["scan", "T1w"]  # the case has no T2w


def test_a_case_whose_name_is_markup_runs_nothing(described):
    text = render("case.html", ["theme.js", "viewer.js"], **page_values(described, "</script><script>x"))
    assert "<script>x" not in text and "<title>&lt;/script&gt;&lt;script&gt;x</title>" in text


def page_values(described, case):
    return WriteReportd(output_dir=".")\
        .content(case, f"{case}.nii.gz", described | {"warnings": [case]}, "pred")  # fmt: skip


def test_time_is_told_where_the_start_is_known(described, tmp_path):
    assert seconds_since(described) is None
    assert 0 <= seconds_since(StampStart()({})) < 60
    assert (
        read_card_of(write(described | {"started": time.time() - 100}, tmp_path), tmp_path)["Seconds"] >= 100
    )
    assert [duration(seconds) for seconds in (1.25, 61, 185)] == ["1.2 s", "61 s", "3 min 05 s"]


def read_card_of(text: str, folder: Path) -> dict:
    (folder / "card.html").write_text(text)
    return read_card(folder / "card.html")


def test_card_of_a_page(described, tmp_path):
    card = read_card_of(write(described, tmp_path), tmp_path)
    assert card["Before"].split() == ["1", "×", "1", "×", "4"] and card["After"].split()[-1] == "1"
    pixels = image_of(card["Picture"])
    assert pixels.shape[0] == 72 and pixels.shape[1] > 72
    assert pixels.std() > 30


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        '{"Picture": "javascript:alert(1)", "Seconds": "x", "Before": 3}',
        '{"Picture": "data:image/jpeg;base64,AA\\"onload=x", "Seconds": true}',
        '{"Picture": "data:text/html;base64,AAAA", "Seconds": NaN}',
        "[" * 100_000,
    ],
)
def test_a_card_that_is_not_ours_tells_nothing(tmp_path, content):
    card = f'<script type="application/json" id="card">{content}</script>'
    assert read_card_of(card, tmp_path) == {}
    assert read_card(tmp_path / "absent.html") == {} == read_card(tmp_path)


def test_large_pages_leave_out_voxels_of_maps_first(monkeypatch):
    noise = np.random.default_rng(0).random((40, 41, 42), dtype=np.float32)
    layers = [
        Layer("result", "result", noise, np.eye(4)),
        Layer("std", "spread", noise, np.eye(4), 1.0, Colours("inferno", 0, 1)),
    ]
    whole, step = pack(layers, 1.0)
    size = sum(len(each.text) for each in whole)
    shapes = []
    for share in (1.1, 0.8, 0.1):
        monkeypatch.setattr(page, "LARGEST", share * size)
        packed, step = pack(layers, 1.0)
        assert sum(len(each.text) for each in packed) <= share * size
        shapes.append([step, *(unpacked(each.text)[0].shape for each in packed)])
    assert shapes[0] == [1, (40, 41, 42), (40, 41, 42)] and shapes[1] == [1, (40, 41, 42), (20, 21, 21)]
    assert shapes[2][0] > 1
    values, affine = unpacked(packed[0].text)  # voxels lie where they lay
    np.testing.assert_allclose(values, noise[:: shapes[2][0], :: shapes[2][0], :: shapes[2][0]], atol=6e-4)
    np.testing.assert_allclose(np.diag(affine[:, :3]), shapes[2][0])


def test_a_map_has_no_colour_where_it_has_no_value():
    volume = np.array([[[np.nan, -0.5, 0.2, 1.5]]])
    (packed,), _ = pack([Layer("w", "w", volume, np.eye(4), 1.0, Colours("coolwarm", 0, 1))], 1.0)
    values, _ = unpacked(packed.text)
    np.testing.assert_allclose(values[0, 0, 1:], [-0.5, 0.2, 1.5], atol=0.02)
    table = np.array(packed.layer["colours"])
    assert table.shape == (4, 256) and table[3, 0] == 0 and table[3, 1:].min() == 255
    assert values[0, 0, 0] == pytest.approx(packed.layer["least"])  # whose colour is the clear one
    assert (table[:3, 1] == table[:3, 60]).all() and (table[:3, 255] != table[:3, 128]).any()


def test_planes_show_the_left_on_the_left_and_the_head_up():
    ramp = np.zeros((10, 12, 14))
    ramp[5:] += 0.25  # the right
    ramp[:, :, 7:] += 0.5  # the head
    rows = panels([Column("a", ramp, (1, 1, 2), (6, 6, 8), "gray", 0, 1)])
    axial, coronal, sagittal = (image_of(row[0].picture)[..., 0] for row in rows)
    assert axial.shape == (12, 10) and coronal.shape == (14, 10) and sagittal.shape == (14, 12)
    assert axial[0, 0] < axial[0, -1] and coronal[-1, 0] < coronal[0, 0] < coronal[0, -1]
    assert [row[0].width for row in rows] == pytest.approx([10 / 12, 10 / 12, 1])
    assert [row[0].ratio for row in rows] == pytest.approx([10 / 12, 10 / 28, 12 / 28])


def test_nan_is_black_and_colours_span_the_range():
    pixels = image_of(picture(np.array([[0, 1, np.nan, 9]]), "gray", 0, 1))
    np.testing.assert_allclose(pixels[0, :, 0], [0, 1, 0, 1])


def test_figures_of_nothing_say_so():
    values = {figure.name: figure.value for figure in figures({}, "", "1", None, RANGE)}
    assert values == {"Agreement with the scan": "not measured", "Voxels": "1", "Spread": "not measured"}
    assert percent(0.000123456) == "0.0123 %" and percent(0.123456) == "12.3 %" and percent(0) == "0 %"


def test_figures_of_twelve_experts_stay_short():
    weights = {f"{plane}-T{i}w": 1 / 12 for plane in ("axial", "coronal", "sagittal") for i in range(4)}
    (found,) = (f for f in figures({"PlaneWeights": weights}, "", "1", None, RANGE) if "weights" in f.name)
    assert found.value.count("0.33") == 3 and len(found.value) < 50


def test_facts_are_plain_json(described, tmp_path):
    text = write(described, tmp_path)
    (about,) = re.findall(r'<script type="application/json" id="about">([^<]+)</script>', text)
    about = json.loads(about)
    assert [layer["key"] for layer in about["layers"]] == ["scan", "result", *MAPS]
    assert about["measured"] and about["step"] == 1 and len(about["place"]) == 3
