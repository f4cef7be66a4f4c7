"""The sweep over the dial: what it degrades, restores and measures, and that it goes on where it stopped."""

import csv
from functools import partial
from hashlib import sha256

import pytest
import torch
from monai.data import MetaTensor
from small_sweep import DIAL, FUSIONS, INTERPOLATIONS, SETTINGS, SIZE, keys, load, small_sweep

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.transforms.thick_slices import measurement_for, thick_slice
from research.metrics.suite import volume_metrics
from research.realism.realism import patch_realism
from research.studies.sweep import KEYS
from research.studies.tables import append_row, read_table, weights_mark

ONE = [{"label": "x", "case": "sub-1"}]
BOX_SETTING = {"x2 pooled": SETTINGS["x2 pooled"]}


@pytest.fixture
def sweep(tiny_ensembler, tmp_path):
    return partial(small_sweep, tiny_ensembler, tmp_path)


def test_every_method_is_measured_on_every_case_and_setting(sweep, tmp_path):
    small, runs = sweep()
    table = small.run()
    assert table == tmp_path / "results" / "val" / "sweep.csv"
    expected = [
        (setting, case, *method)
        for case in ("sub-1", "sub-2")
        for setting in SETTINGS
        for method in [
            *((name, "0", "", "1") for name in INTERPOLATIONS),
            *(
                (f, str(steps), str(restart or ""), str(gain[0]) if gain else "1")
                for steps, restart, *gain in DIAL
                for f in FUSIONS
            ),
        ]
    ]
    assert keys(read_table(table)) == expected
    assert runs.count("mean") == runs.count("calibrated") == 2 * 2 * (1 + 2 + 2)  # a gain needs no passes


def test_rows_are_what_a_hand_computes(sweep):
    small, _ = sweep(items=ONE)
    rows = {key: row for row in read_table(small.run()) for key in keys([row])}
    for setting, options in SETTINGS.items():
        truth = load({"case": "sub-1", "label": "x"})["label"].as_tensor()
        profile = options.get("profile", "box")
        measurement = measurement_for(SIZE, options["factors"], profile)
        condition = thick_slice(MetaTensor(truth, meta={"case": "sub-1"}), options["factors"], profile)
        inferer = DiffEnsemblerInferer.of(
            TrailingDDIMScheduler(), num_steps=2, restart=0.5, fusion="mean", progress=False, amp=False
        )
        sharper = inferer.changed(residual_gain=1.5)
        by_hand = {
            ("cubic", "0", "", "1"): measurement.interpolate(measurement(truth)),
            ("restored spline", "0", "", "1"): condition.as_tensor(),
            ("mean", "2", "0.5", "1"): inferer(condition[None], small.network)[0].as_tensor(),
            ("mean", "2", "0.5", "1.5"): sharper(condition[None], small.network)[0].as_tensor(),
        }
        for method, volume in by_hand.items():
            volume = volume.clamp(min=0)
            expected = volume_metrics(volume[0], truth[0], truth[0] > 0, data_range=1.0)
            expected["consistency"] = float((measurement(volume) - measurement(truth)).abs().mean())
            row = rows[(setting, "sub-1", *method)]
            assert list(row) == [*KEYS, *expected, "seconds"]
            for name, value in expected.items():
                assert float(row[name]) == pytest.approx(value, rel=1e-3, abs=1e-6), (method, name)
            assert float(row["seconds"]) > 0


def test_nothing_is_computed_twice(sweep):
    first, runs = sweep(items=ONE)
    rows = read_table(first.run())
    again, more = sweep(items=ONE)
    again.run()
    assert more == [] and read_table(again.table) == rows

    # one row lost, as when it was stopped before
    lost = next(i for i, key in enumerate(keys(rows)) if key[2:] == ("calibrated", "2", "0.5", "1"))
    again.table.unlink()
    for row in rows[:lost] + rows[lost + 1 :]:
        append_row(again.table, row)
    third, runs = sweep(items=ONE)
    renewed = read_table(third.run())
    assert runs == ["calibrated"] * 2
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in (rows[lost], renewed[-1])]
    assert strip[0] == strip[1] and len(renewed) == len(rows)


def test_new_points_of_the_dial_are_added(sweep):
    few = {"items": ONE, "settings": BOX_SETTING}
    sweep(**few)[0].run()
    more, runs = sweep(**few, dial=[*DIAL, (3, None)], fusions=(*FUSIONS, "axial"))
    rows = read_table(more.run())
    assert len(rows) == 2 + 5 * 3
    assert runs.count("mean") == 3 and runs.count("axial") == 1 + 2 + 2 + 3


def test_region_is_the_central_box(sweep):
    small, _ = sweep(region=(12, 14, 16), fusions=(), settings={"x2": {"factors": [2, 2, 2]}})
    names, truth = next(small.cases())
    expected = load({"case": "sub-1", "label": "x"})["label"][:, 3:15, 3:17, 3:19]
    assert names == {"case": "sub-1"} and torch.equal(torch.as_tensor(truth), expected)


def test_the_swept_inferer_is_left_as_it_was(sweep):
    inferer = DiffEnsemblerInferer.of(TrailingDDIMScheduler(), num_steps=7, progress=False, amp=False)
    small, _ = sweep(inferer=inferer, items=ONE, settings=BOX_SETTING, dial=[(2, None)])
    small.run()
    assert (inferer.sampling.num_steps, inferer.sampling.fusion, inferer.sampling.restart) == (
        7,
        "calibrated",
        0.5,
    )


def test_unknown_fusion_is_named_before_anything_runs(sweep):
    with pytest.raises(ValueError, match="unknown fusion 'best'"):
        sweep(fusions=("mean", "best"))


def test_table_is_plain_csv_with_one_header(tmp_path):
    path = tmp_path / "t.csv"
    assert read_table(path) == []
    for number in (1, 2):
        append_row(path, {"setting": "a, b", "psnr": 31.2345678 * number, "num_steps": number})
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["setting", "psnr", "num_steps"],
            ["a, b", "31.235", "1"],
            ["a, b", "62.469", "2"],
        ]


def test_rows_of_other_weights_are_not_used(sweep, tmp_path):
    files = [tmp_path / "model.pt", tmp_path / "encoder.pt"]
    for file in files:
        file.write_bytes(file.name.encode())
    (tmp_path / "model.pt.sha256").write_text("0123456789abcdef  model.pt\n")
    options = {"weights_files": [*files, None], "settings": {"x2": {"factors": [2, 2, 2]}}, "dial": DIAL[:1]}
    rows = read_table(sweep(**options)[0].run())
    mark = f"0123456789ab+{sha256(b'encoder.pt').hexdigest()[:12]}"
    assert {row["weights"] for row in rows} == {mark}
    again, runs = sweep(**options)
    assert read_table(again.run()) == rows and runs == []
    files[1].write_bytes(b"another")
    renewed, runs = sweep(**options)
    rows = read_table(renewed.run())
    assert len(runs) == 4 and {row["weights"] for row in rows} == {weights_mark(files)} != {mark}

    # neither is a table from before there were marks
    renewed.table.unlink()
    for row in rows:
        append_row(renewed.table, {key: value for key, value in row.items() if key != "weights"})
    old, runs = sweep(**options)
    old.run()
    assert len(runs) == 4


def test_realism_is_a_column(sweep, tmp_path):
    grid = torch.meshgrid(*[torch.linspace(-1, 1, 64)] * 3, indexing="ij")
    texture = 0.3 + 0.6 * torch.rand(64, 64, 64, generator=torch.Generator().manual_seed(0))
    truth = MetaTensor(((sum(axis**2 for axis in grid) < 1) * texture)[None])
    options = {
        "items": [{"label": "x", "case": "sub-1"}],
        "preprocessing": lambda item: {**item, "label": truth},
        "settings": {"4 mm": {"factors": [1, 1, 4]}},
        "fusions": (),
        "realism": patch_realism(),
    }
    rows = read_table(sweep(**options)[0].run())
    assert [row["method"] for row in rows] == list(INTERPOLATIONS)
    realism = patch_realism()
    measurement = measurement_for((64, 64, 64), [1, 1, 4])
    cubic = measurement.interpolate(measurement(truth.as_tensor())).clamp(min=0)
    expected = realism(cubic[0], truth.as_tensor()[0], truth.as_tensor()[0] > 0)
    assert {name: float(rows[0][name]) for name in expected} == pytest.approx(expected, rel=1e-3)
    assert set(expected) == {"fid", "mmd"} and expected["fid"] > 1
