"""The sweep over subsets of conditions: what it gives the model, and what it measures."""

import pytest
import torch
from small_sweep import grouped

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget
from monai_diffens.transforms.thick_slices import measurement_for
from research.baselines.regression_inferer import RegressionInferer
from research.baselines.regression_unet import RegressionUNet
from research.realism.realism import patch_realism
from research.studies.subset_calibration import SubsetSpreadCalibration
from research.studies.subset_sweep import SubsetSweep, all_subsets, translation_metrics
from research.studies.tables import read_table
from research.tables.sweep_report import write_report
from research.tables.trust_report import write_spread_report

CONTRASTS = ("T1w", "FLAIR")
SIZE = (18, 20, 22)


def load(item) -> dict:
    """Preprocessing: two contrasts of one ball, the first case with a lesion."""
    grid = torch.meshgrid(*(torch.linspace(-1.1, 1.1, n) for n in SIZE), indexing="ij")
    ball = sum(axis**2 for axis in grid) < 1
    generator = torch.Generator().manual_seed(int(item["case"][-1]))
    data = {key: (ball * (0.5 + torch.rand(SIZE, generator=generator)))[None] for key in CONTRASTS}
    if item["case"] == "sub-1":
        data["lesions"] = torch.zeros(1, *SIZE)
        data["lesions"][:, 6:12, 6:12, 6:12] = 2
    return data


@pytest.fixture
def sweep(tiny_ensembler, tmp_path):
    def build(**options) -> SubsetSweep:
        small = {
            "contrasts": CONTRASTS,
            "factors": (2, 2, 2),
            "items": [{"case": "sub-1"}, {"case": "sub-2"}],
            "preprocessing": load,
            "network": tiny_ensembler(conditions=CONTRASTS),
            "inferer": DiffEnsemblerInferer.of(
                TrailingDDIMScheduler(),
                progress=False,
                amp=False,
                target=ResidualTarget("brain", 0.3, 1),
            ),
            "settings": all_subsets(CONTRASTS),
            "fusions": ("calibrated", "mean"),
            "dial": [[1, None]],
            "output_dir": tmp_path,
        }
        return SubsetSweep(**grouped(small | options))

    return build


def test_the_spread_is_calibrated_for_every_subset(sweep, tmp_path):
    (tmp_path / "model.pt.sha256").write_text("0123456789abcdef  model.pt\n")
    cases = [{"case": "sub-1"}], [{"case": "sub-2"}]
    calibration = SubsetSpreadCalibration(
        sweep(), *cases, [[1, None]], num_samples=3, weights_file=tmp_path / "model.pt", output_dir=tmp_path
    )
    rows = read_table(calibration.run())
    names = ["T1w", "FLAIR", "T1w + FLAIR"]
    assert [(row["split"], row["case"], row["setting"]) for row in rows] == [
        (split, case, name) for split, case in (("val", "sub-2"), ("test", "sub-1")) for name in names
    ]
    for val, test in zip(rows[:3], rows[3:], strict=True):
        assert float(val["within_1"]) == pytest.approx(0.683, abs=0.01)
        assert float(test["floor"]) == float(val["own_floor"]) > 0
    assert "Weights 0123456789ab. Test volumes: sub-1;" in write_spread_report(calibration.table).read_text()

    # errors are those of the sweep's own figure, in its units
    truth = calibration.load({"case": "sub-2"})["FLAIR"]
    error, spread, detail = calibration.sample(
        "sub-2", calibration.load({"case": "sub-2"}), {"contrasts": ["T1w"]}, 1, None
    )
    assert error.shape == spread.shape == detail.shape == (int((truth > 0).sum()),)
    assert float(rows[0]["rmse"]) == pytest.approx(float((error**2).mean() ** 0.5), rel=1e-4)


def test_all_subsets():
    names = list(all_subsets(("a", "b", "c", "d")))
    assert len(names) == 15 and names[:5] == ["a", "b", "c", "d", "a + b"] and names[-1] == "a + b + c + d"
    assert all_subsets(("a", "b"))["a + b"] == {"contrasts": ["a", "b"]}


def test_rows_and_report(sweep):
    table = sweep().run()
    rows = read_table(table)
    assert [(row["case"], row["setting"], row["method"]) for row in rows] == [
        (case, setting, method)
        for case in ("sub-1", "sub-2")
        for setting in ("T1w", "FLAIR", "T1w + FLAIR")
        for method in (*(["restored spline"] if "FLAIR" in setting else []), "calibrated", "mean")
    ]
    for row in rows:
        assert bool(row["consistency"]) == ("FLAIR" in row["setting"])
        assert bool(row["psnr_label"]) == bool(row["ssim_label"]) == (row["case"] == "sub-1")
        assert float(row["psnr_matched"]) >= float(row["psnr_brain"]) - 1e-3
    report = write_report(table, "Title", pictured=["FLAIR"]).read_text()
    assert "| setting | calibrated 1 | mean 1 | restored spline |" in report
    line = next(each for each in report.splitlines() if each.startswith("| T1w | "))
    assert line.endswith("| - |")  # no interpolation without a scan of the contrast


@pytest.mark.slow
def test_the_regression_is_one_more_method(sweep):
    network = RegressionUNet(2, (8, 8, 8, 8, 8, 8), prior_std=0.4, measured=1)
    inferer = RegressionInferer(window=16, target=ResidualTarget("brain", 0.3, 1))
    without = read_table(sweep(fusions=("mean",)).run())
    small = sweep(fusions=("mean",), regression=network, regression_inferer=inferer)
    rows = read_table(small.run())
    assert rows[: len(without)] == without  # what was there is not computed again
    added = {row["setting"]: row for row in rows[len(without) :] if row["case"] == "sub-1"}
    assert list(added) == ["T1w", "FLAIR", "T1w + FLAIR"]
    assert {(row["method"], row["num_steps"]) for row in added.values()} == {("3D U-Net regression", "0")}
    spline = next(r for r in rows if (r["setting"], r["method"]) == ("T1w + FLAIR", "restored spline"))
    # untrained it is the low-resolution scan inside of the brain, which the other contrast shows
    assert float(added["T1w + FLAIR"]["psnr_brain"]) > float(spline["psnr_brain"])
    assert float(added["T1w + FLAIR"]["consistency"]) < 0.01 and not added["T1w"]["consistency"]
    assert "3D U-Net regression |" in write_report(small.table, "Title").read_text()


def test_the_model_is_given_the_subset_alone(sweep):
    small = sweep()
    volumes = small.load({"case": "sub-1"})
    for name, channels in (("T1w", [True, False]), ("FLAIR", [False, True]), ("T1w + FLAIR", [True, True])):
        trial = small.trial("sub-1", volumes, small.settings[name])
        assert trial.inputs.shape == (1, 2, *SIZE) and trial.inputs.meta["case"] == "sub-1"
        assert [bool(channel.any()) for channel in trial.inputs[0]] == channels
        assert trial.scale == pytest.approx(1, abs=0.4) and (trial.scale != 1) == channels[1]


def test_a_low_resolution_scan_is_agreed_with(sweep):
    small = sweep(items=[{"case": "sub-1"}], settings={"both": {"contrasts": list(CONTRASTS)}})
    truth = load({"case": "sub-1"})["FLAIR"]
    seen = {row["method"]: float(row["consistency"]) for row in read_table(small.run())}
    loose = sweep(items=small.items, settings=small.settings, output_dir=small.table.parent / "loose")
    loose.inferer = loose.inferer.changed(with_scan=False)
    apart = {row["method"]: float(row["consistency"]) for row in read_table(loose.run())}
    measured = measurement_for(SIZE, (2, 2, 2))(truth)
    for method in ("calibrated", "mean"):
        # what is left is the edge of the brain, where the result is cut to 0
        assert seen[method] < 0.3 * apart[method] and seen[method] < 0.05 * float(measured.max())


def test_figures_by_hand():
    truth = torch.rand(14, 14, 14) + 0.5
    truth[:3] = 0
    assert translation_metrics(truth.clone(), truth)["psnr_matched"] > 100
    bright = translation_metrics(1.5 * truth, truth, (truth > 1)[None])
    assert bright["psnr_matched"] > 100 > bright["psnr_brain"]
    peak = truth[truth > 0].quantile(0.995)
    inside = truth > 1
    error = (0.5 * truth[inside] / peak).square().mean()
    assert bright["psnr_label"] == pytest.approx(float(-10 * error.log10()), abs=0.05)
    assert translation_metrics(truth, truth)["psnr_label"] == ""


def test_realism_and_the_weights_are_columns(sweep, tmp_path):
    (tmp_path / "model.pt.sha256").write_text("0123456789abcdef  model.pt\n")
    generator = torch.Generator().manual_seed(0)
    data = {key: torch.rand(1, 64, 64, 64, generator=generator) + 0.5 for key in CONTRASTS}
    realism = patch_realism()
    small = sweep(
        items=[{"case": "sub-1"}],
        preprocessing=lambda item: data,
        settings={"FLAIR": {"contrasts": ["FLAIR"]}},
        fusions=(),
        realism=realism,
        weights_files=[tmp_path / "model.pt"],
    )
    (row,) = read_table(small.run())
    assert row["weights"] == "0123456789ab" and row["method"] == "restored spline"
    assert float(row["fid"]) > 1 and float(row["mmd"]) > 0.01
    assert "| FID | MMD |" in write_report(small.table, "Title").read_text()


def test_a_subject_has_rows_of_the_subsets_that_it_has(sweep):
    def lacking(item) -> dict:
        return {key: value for key, value in load(item).items() if key != "T1w" or item["case"] == "sub-2"}

    rows = read_table(sweep(preprocessing=lacking).run())
    settings = {case: {row["setting"] for row in rows if row["case"] == case} for case in ("sub-1", "sub-2")}
    assert settings == {"sub-1": {"FLAIR"}, "sub-2": {"T1w", "FLAIR", "T1w + FLAIR"}}
