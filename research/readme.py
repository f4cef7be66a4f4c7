"""The picture and the table of README.md.

    python -m research.readme picture --dataset_dir BIDS_FOLDER
    python -m research.readme table

``picture`` slices the FLAIR of a test subject 5 mm thick, restores it with the shipped weights as
``diffens sr`` does, and draws both beside the truth and their errors. ``table`` copies means of test subjects
from ``docs/results``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from monai_diffens import super_resolve
from monai_diffens.demo import measure, slice_affine
from monai_diffens.transforms.thick_slices import measurement_for
from research.studies.tables import read_table
from research.tables.markdown import markdown_table, replace_block
from research.tables.sweep_report import mean_rows

ROOT = Path(__file__).parents[1]
README, PICTURE = ROOT / "README.md", ROOT / "docs" / "images" / "before_after.jpg"
SWEEP = ROOT / "docs" / "results" / "super_resolution" / "sweep.csv"
# Ljubljana's database, CC BY: of the test subjects the one whose licence covers this very file
SCAN = "sub-lj19/anat/sub-lj19_FLAIR.nii.gz"
FACTOR = 5  # 1 mm voxels, 5 mm slices
METHODS = {  # method and gain of the sweep -> its name here; 1.4 is the default gain
    ("cubic", "1"): "cubic interpolation",
    ("3D U-Net regression", "1.4"): "3D regression (U-Net)",
    ("mean", "1.4"): "three planes, plain mean",
    ("calibrated", "1.4"): "three planes, learned fusion: the default",
    ("calibrated", "1"): "the same with `--residual_gain 1`",
}
SETTINGS = {
    "x4 pooled": "4 mm voxels",
    "5 mm axial": "5 mm axial slices",
    "4 mm sagittal": "4 mm sagittal slices",
}
BLOCK = "results"


def results_table() -> list[str]:
    """Markdown of PSNR, SSIM and sharpness inside the brain, means of the test subjects at one step."""
    means = {
        (point.setting, point.method, point.gain): values
        for point, values in mean_rows(read_table(SWEEP)).items()
        if point.num_steps <= 1
    }

    def cell(setting: str, method: tuple[str, str]) -> str:
        values = means[(setting, *method)]
        return f"{values['psnr_brain']:.2f} / {values['ssim_brain']:.3f} / {values['sharpness']:.2f}"

    rows = [[name, *(cell(setting, method) for setting in SETTINGS)] for method, name in METHODS.items()]
    return markdown_table(["PSNR (dB) / SSIM / sharpness", *SETTINGS.values()], rows)


def write_picture(dataset: Path, path: Path = PICTURE) -> None:
    """Draw scan, result, truth and both errors, one coronal slice.

    Args:
        dataset: the data pack.
        path: a JPEG.
    """
    image = nib.Nifti1Image.from_filename(dataset / SCAN)
    voxels = image.get_fdata(dtype=np.float32)
    truth = torch.from_numpy(voxels[..., : voxels.shape[2] // FACTOR * FACTOR].copy())
    measurement = measurement_for(truth.shape, (1, 1, FACTOR))
    low = measurement(truth)
    scan = nib.Nifti1Image(low.numpy(), slice_affine(image.affine, measurement))
    scan.header.set_xyzt_units("mm")
    restored = torch.from_numpy(super_resolve(scan).get_fdata(dtype=np.float32))
    cubic = measurement.interpolate(low).clamp(min=0)
    draw(truth, low.repeat_interleave(FACTOR, dim=2), cubic, restored, path)


def draw(truth: Tensor, scan: Tensor, cubic: Tensor, restored: Tensor, path: Path) -> None:
    """The five panels; the PSNR under an error is that of the brain."""
    bright = float(torch.quantile(truth[truth > 0], 0.995))
    row = int((truth > 0).sum(dim=(0, 2)).argmax())  # the coronal slice that shows most
    psnr = [measure(volume, truth, bright)["psnr_brain"] for volume in (cubic, restored)]
    panels = [
        ("scan: 5 mm slices", scan, False),
        ("diffens sr", restored, False),
        ("truth: 1 mm", truth, False),
        (f"error of cubic interpolation\n{psnr[0]:.2f} dB", (cubic - truth).abs(), True),
        (f"error of diffens sr\n{psnr[1]:.2f} dB", (restored - truth).abs(), True),
    ]
    figure = Figure(figsize=(12.5, 3.1), facecolor="black")
    for place, (title, volume, is_error) in enumerate(panels):
        axes = figure.add_axes((place / len(panels), 0, 1 / len(panels), 0.84))
        top, colours = (0.4 * bright, "inferno") if is_error else (bright, "gray")
        axes.imshow(volume[:, row].T.numpy(), origin="lower", cmap=colours, vmin=0, vmax=top)
        axes.set_title(title, color="white", fontsize=11)
        axes.set_axis_off()
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 85})


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["picture", "table"])
    parser.add_argument("--dataset_dir", type=Path, default=ROOT.parent / "shared" / "data")
    asked = parser.parse_args()
    if asked.what == "picture":
        write_picture(asked.dataset_dir)
    else:
        page = replace_block(README.read_text(encoding="utf-8"), BLOCK, results_table())
        README.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
