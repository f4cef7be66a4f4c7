"""The pictures and the table of README.md.

    python -m research.readme picture --dataset_dir BIDS_FOLDER
    python -m research.readme translation --dataset_dir BIDS_FOLDER
    python -m research.readme table

``picture`` slices the FLAIR of a test subject 5 mm thick, restores it with the shipped weights as
``diffens sr`` does, and draws both beside the truth and their errors. ``translation`` makes the FLAIR of that
subject from its other contrasts as ``diffens translate`` does. ``table`` copies means of test subjects from
``docs/results``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from monai_diffens import super_resolve, translate
from monai_diffens.contrasts import CONTRASTS
from monai_diffens.demo import measure, slice_affine
from monai_diffens.transforms.thick_slices import measurement_for
from research.data_pack import contrast_path
from research.studies.tables import read_table
from research.tables.markdown import markdown_table, replace_block
from research.tables.sweep_report import mean_rows

ROOT = Path(__file__).parents[1]
README, IMAGES = ROOT / "README.md", ROOT / "docs" / "images"
SWEEP = ROOT / "docs" / "results" / "super_resolution" / "sweep.csv"
# Ljubljana's database, CC BY: of the test subjects the one whose licence covers this very file
SUBJECT = "sub-lj19"
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


def write_picture(dataset: Path) -> None:
    """Draw scan, result, truth and both errors, one coronal slice.

    Args:
        dataset: the data pack.
    """
    image = nib.Nifti1Image.from_filename(contrast_path(dataset, SUBJECT, "FLAIR"))
    voxels = image.get_fdata(dtype=np.float32)
    truth = torch.from_numpy(voxels[..., : voxels.shape[2] // FACTOR * FACTOR].copy())
    measurement = measurement_for(truth.shape, (1, 1, FACTOR))
    low = measurement(truth)
    scan = nib.Nifti1Image(low.numpy(), slice_affine(image.affine, measurement))
    scan.header.set_xyzt_units("mm")
    restored = torch.from_numpy(super_resolve(scan).get_fdata(dtype=np.float32))
    cubic = measurement.interpolate(low).clamp(min=0)
    draw_errors(truth, low.repeat_interleave(FACTOR, dim=2), cubic, restored)


def write_translation(dataset: Path) -> None:
    """Draw two given contrasts, the FLAIR made of all three at one step and at four, and the true one.

    The axial slice is the one that shows most brain; every volume is shown relative to its brain's median.

    Args:
        dataset: the data pack.
    """
    paths = {name: contrast_path(dataset, SUBJECT, name) for name in CONTRASTS}
    scans = {name: nib.Nifti1Image.from_filename(path) for name, path in paths.items()}
    truth = scans.pop("FLAIR")
    made = {
        f"FLAIR made, {steps} step{'s'[: steps - 1]}": translate(scans, num_steps=steps) for steps in (1, 4)
    }
    panels = {"T1w": scans["T1w"], "T2w": scans["T2w"], **made, "true FLAIR": truth}
    volumes = [torch.from_numpy(image.get_fdata(dtype=np.float32)) for image in panels.values()]
    height = int((volumes[-1] > 0).sum(dim=(0, 1)).argmax())
    draw(
        [
            (title, volume[..., height] / volume[volume > 0].median(), 2.0, "gray")
            for title, volume in zip(panels, volumes, strict=True)
        ],
        IMAGES / "translation.jpg",
        4.0,
    )


def draw_errors(truth: Tensor, scan: Tensor, cubic: Tensor, restored: Tensor) -> None:
    """The five panels; the PSNR under an error is that of the brain."""
    bright = float(torch.quantile(truth[truth > 0], 0.995))
    row = int((truth > 0).sum(dim=(0, 2)).argmax())  # the coronal slice that shows most
    psnr = [measure(volume, truth, bright)["psnr_brain"] for volume in (cubic, restored)]
    shown = [("scan: 5 mm slices", scan), ("diffens sr", restored), ("truth: 1 mm", truth)]
    errors = {"cubic interpolation": cubic, "diffens sr": restored}
    panels = [(title, volume[:, row], bright, "gray") for title, volume in shown]
    for (name, volume), value in zip(errors.items(), psnr, strict=True):
        title = f"error of {name}\n{value:.2f} dB"
        panels.append((title, (volume - truth).abs()[:, row], 0.4 * bright, "inferno"))
    draw(panels, IMAGES / "before_after.jpg", 3.1)


def draw(panels: Sequence[tuple[str, Tensor, float, str]], path: Path, height: float) -> None:
    """Draw slices side by side.

    Args:
        panels: title, slice (to the right, upwards), what is white, and colours of each.
        path: a JPEG.
        height: of the picture, in inches.
    """
    figure = Figure(figsize=(12.5, height), facecolor="black")
    for place, (title, image, top, colours) in enumerate(panels):
        axes = figure.add_axes((place / len(panels), 0, 1 / len(panels), 0.84))
        axes.imshow(image.T.numpy(), origin="lower", cmap=colours, vmin=0, vmax=top)
        axes.set_title(title, color="white", fontsize=11)
        axes.set_axis_off()
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 85})


def main() -> None:
    """Write what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["picture", "translation", "table"])
    parser.add_argument("--dataset_dir", type=Path, default=ROOT.parent / "shared" / "data")
    asked = parser.parse_args()
    if asked.what == "picture":
        write_picture(asked.dataset_dir)
    elif asked.what == "translation":
        write_translation(asked.dataset_dir)
    else:
        page = replace_block(README.read_text(encoding="utf-8"), BLOCK, results_table())
        README.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
