"""The downstream segmentation of a sweep: figures that are known by hand, rows, report, kept volumes."""

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from small_sweep import grouped
from torch import nn

from monai_diffens.inferers.inferer import DiffEnsemblerInferer
from monai_diffens.schedulers.few_steps import TrailingDDIMScheduler
from monai_diffens.target import ResidualTarget
from research.studies.segmentation_sweep import SegmentationSweep, repeated
from research.studies.subset_sweep import all_subsets
from research.studies.tables import read_table
from research.tables.segmentation_report import segmented_rows, write_segmentation_report

CONTRASTS = ("T1w", "FLAIR")
SIZE = (24, 24, 28)


class Thresholds(nn.Module):
    """Two "folds" that call bright what is above 2, and all that the second contrast, the T1w, shows."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image[:, :1] - 2, image[:, 1:] - 0.01], dim=1)


def load(item) -> dict:
    """Preprocessing: a block of brain, voxels of 2 mm, and in it a lesion of 4 x 4 x 4 voxels, level 3."""
    brain = torch.zeros(1, *SIZE)
    brain[:, 2:22, 2:22, 2:26] = 1
    lesions = torch.zeros(1, *SIZE)
    lesions[:, 4:8, 8:12, 20:24] = 1
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    flair = brain + 2 * lesions
    return {
        "T1w": MetaTensor(brain, affine=affine),
        "FLAIR": MetaTensor(flair, affine=affine),
        "lesions": MetaTensor(4 * lesions, affine=affine),
    }


@pytest.fixture
def sweep(tiny_ensembler, tmp_path):
    (tmp_path / "model.pt.sha256").write_text("0123456789abcdef  model.pt\n")
    (tmp_path / "segmentation.pt.sha256").write_text("fedcba9876543210  segmentation.pt\n")

    def build(**options) -> SegmentationSweep:
        inferer = DiffEnsemblerInferer.of(
            TrailingDDIMScheduler(),
            progress=False,
            amp=False,
            target=ResidualTarget("brain", 0.3, 1),
        )
        small = {
            "segmenter": Thresholds(),
            "windows": SlidingWindowInferer([16, 16, 16], overlap=0.25),
            "segmented": ("FLAIR", "T1w"),
            "contrasts": CONTRASTS,
            "factors": (4, 4, 4),
            "items": [{"case": "sub-1"}],
            "preprocessing": load,
            "network": tiny_ensembler(conditions=CONTRASTS),
            "inferer": inferer,
            "settings": all_subsets(CONTRASTS),
            "fusions": ("calibrated", "mean"),
            "dial": [[1, None]],
            "region": (12, 12, 12),
            "output_dir": tmp_path,
            "segmentation_weights": tmp_path / "segmentation.pt",
        }
        return SegmentationSweep(weights_files=[tmp_path / "model.pt"], **grouped(small | options))

    return build


def test_the_box_holds_the_lesions_and_their_spacing(sweep):
    volumes = sweep().load({"case": "sub-1"})
    assert {key: volume.shape for key, volume in volumes.items()} == dict.fromkeys(
        ("T1w", "FLAIR", "lesions"), (1, 12, 12, 12)
    )
    # centred on the lesion's middle (6, 10, 22) where the volume allows it
    assert [axis.unique().tolist() for axis in volumes["lesions"][0].nonzero().T] == [
        [4, 5, 6, 7],
        [4, 5, 6, 7],
        [4, 5, 6, 7],
    ]
    whole = sweep(region=None).load({"case": "sub-1"})
    assert whole["FLAIR"].shape == (1, *SIZE)


def test_figures_by_hand(sweep):
    small = sweep()
    volumes = small.load({"case": "sub-1"})
    truth = volumes["FLAIR"]
    figures = small.figures(volumes, truth)
    # the first network finds the lesion; the second takes all of the box's brain for one: 10 x 12 x 10 voxels
    brain = int((volumes["T1w"] > 0).sum())
    assert figures["dice_0"] == 1 and figures["ml_0"] == pytest.approx(64 * 0.008)
    assert figures["dice_1"] == pytest.approx(2 * 64 / (brain + 64))
    assert figures["ml_1"] == pytest.approx(brain * 0.008) and figures["ml_truth"] == pytest.approx(0.512)
    half = truth.clone()
    half[:, :6] = half[:, :6].clamp(max=1)  # 2 of 4 slices of the lesion are lost
    assert small.figures(volumes, half)["dice_0"] == pytest.approx(2 * 32 / (32 + 64))
    assert small.figures(volumes, truth.clamp(max=1))["dice_0"] == 0
    assert figures["hd95_0"] == 0 and figures["hd95_1"] > 10
    # slices 4 and 5 of 4 to 7 are lost: two voxels of 2 mm
    assert small.figures(volumes, half)["hd95_0"] == 4
    assert small.figures(volumes, truth.clamp(max=1))["hd95_0"] == ""


def test_thick_slices_are_repeated():
    low = torch.arange(4.0)[None, None, None]
    assert repeated(low, (1, 1, 1, 8)).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_rows_and_report(sweep, tmp_path):
    table = sweep().run()
    assert table.name == "segmentation.csv"
    rows = read_table(table)
    own, low = ["calibrated", "mean"], ["thick slices", "cubic", "restored spline"]
    assert [(row["setting"], row["method"]) for row in rows] == [
        (setting, method)
        for setting in ("T1w", "FLAIR", "T1w + FLAIR")
        for method in (["real", *(low if "FLAIR" in setting else []), *own])
    ]
    assert {row["weights"] for row in rows} == {"0123456789ab+fedcba987654"}
    assert {row["dice_0"] for row in rows if row["method"] == "real"} == {"1"}
    assert len({row["dice_1"] for row in rows}) == 1  # the T1w is real whatever the FLAIR is

    report = write_segmentation_report(table, "Note.").read_text()
    assert "Cases (1): sub-1. Note." in report and "labels of 0.5 ml" in report
    assert report.count("| real |") == 1 and table.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    found = {(row.setting, row.method): row for row in segmented_rows(table)}
    cubic = found["FLAIR", "cubic"]
    line = next(line for line in report.splitlines() if line.startswith("| FLAIR | cubic |"))
    less = cubic.dice - found["FLAIR", "real"].dice
    assert f"| {cubic.dice.mean():.3f} ± {cubic.dice.std(ddof=1):.3f} | {less.mean():+.3f} ±" in line
    assert "| T1w | 1 | mean | " in report and "| T1w | 1 | cubic |" not in report
    table.write_text("")
    with pytest.raises(ValueError, match="holds no rows"):
        write_segmentation_report(table)


def test_volumes_are_kept_for_other_segmentation_networks(sweep, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    first = read_table(sweep(predictions=kept).run())
    assert len(list(kept.iterdir())) == 6  # 3 settings, 2 fusions
    (tmp_path / "segmentation.pt.sha256").write_text("111111111111  segmentation.pt\n")
    second = sweep(predictions=kept)
    drawn: list[int] = []
    second.network.register_forward_hook(lambda *_: drawn.append(1))
    again = read_table(second.run())
    assert not drawn
    for row, other in zip(first, again, strict=True):
        for key in set(row) - {"weights", "seconds"}:
            assert row[key] == other[key], key
    assert {row["weights"] for row in again} == {"0123456789ab+111111111111"}
    (tmp_path / "model.pt.sha256").write_text("222222222222  model.pt\n")  # another model: sampled again
    third = sweep(predictions=kept, settings={"T1w": {"contrasts": ["T1w"]}}, fusions=("mean",))
    third.run()
    assert len(list(kept.iterdir())) == 7
