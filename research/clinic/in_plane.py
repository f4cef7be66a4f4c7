"""In-plane detail of super-resolution: of thick scans with pixels finer than the network's 1 mm."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.bundle import ConfigWorkflow
from numpy.typing import NDArray

from monai_diffens.transforms.registration import Scan
from research.clinic.trials import Row, read, thick
from research.data_pack import contrast_path

BUNDLE = Path(__file__).parents[2] / "bundles" / "diffensembler_sr"
PIXEL, SLICES = 0.72, 4.0  # mm
CONTRAST = "ce-gadolinium_T1w"  # the sharpest of most subjects


def trials(dataset_dir: Path, subjects: Sequence[str]) -> Iterator[Row]:
    """Subjects whose 1 mm pixels are called 0.72 mm, in 4 mm slices, with and without what is put back.

    No scan of the pack is finer than 1 mm; calling its pixels finer keeps their detail, and the truth.
    """
    for subject in subjects:
        whole = read(contrast_path(dataset_dir, subject, CONTRAST))
        truth = Scan(whole.values, whole.affine @ np.diag([PIXEL, PIXEL, 1, 1]))
        low = thick(truth, (1, 1, SLICES))
        for asked in (None, 1.0):
            result = restore(low, target_spacing=asked)
            there = result.on(truth.affine, truth.values.shape, order=3, mode="nearest")
            again = thick(Scan(there.astype(np.float32), truth.affine), (1, 1, SLICES)).values
            brain, seen = truth.values > 0, low.values > 0
            yield {
                "subject": subject,
                "target_spacing": "auto" if asked is None else asked,
                "voxels": " x ".join(f"{size:.2f}" for size in result.spacing),
                "detail": fine_power(again) / fine_power(low.values),
                "detail_of_truth": fine_power(there * brain) / fine_power(truth.values),
                "psnr": psnr(there, truth.values, brain),
                "agreement_percent": float(
                    100 * np.abs(again - low.values)[seen].mean() / np.percentile(low.values[seen], 99.5)
                ),
            }


def restore(scan: Scan, **options: Any) -> Scan:
    """What the bundle gives for a scan, with options by id."""
    with tempfile.TemporaryDirectory() as folder:
        image = nib.Nifti1Image(scan.values, scan.affine)
        image.header.set_xyzt_units("mm")
        image.to_filename(Path(folder) / "scan.nii.gz")
        workflow = ConfigWorkflow(
            str(BUNDLE / "configs" / "inference.json"),
            workflow_type="inference",
            bundle_root=str(BUNDLE),
            input=str(Path(folder) / "scan.nii.gz"),
            output_dir=str(Path(folder) / "out"),
            report=False,
            **options,
        )
        workflow.initialize()
        try:
            workflow.run()
        except SystemExit as end:
            if end.code:
                raise RuntimeError("the run failed") from end
        return read(Path(folder) / "out" / "scan_sr.nii.gz")


def fine_power(volume: NDArray[np.floating]) -> float:
    """Power of axial slices above half of their pixels' Nyquist frequency."""
    power = np.abs(np.fft.fftn(volume, axes=(0, 1))) ** 2
    x, y = (np.abs(np.fft.fftfreq(size)) for size in volume.shape[:2])
    return float(power[(x[:, None] > 0.25) | (y > 0.25)].mean())


def psnr(one: NDArray[np.floating], other: NDArray[np.floating], inside: NDArray[np.bool_]) -> float:
    """In dB, inside of a mask, over the 99.5th percentile there."""
    error = np.square(one - other)[inside].mean()
    return float(20 * np.log10(np.percentile(other[inside], 99.5)) - 10 * np.log10(error))


def summarise(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print means by target spacing."""
    for asked in ("auto", 1.0):
        here = [row for row in rows if row["target_spacing"] == asked]
        means = {
            name: np.mean([row[name] for row in here]) for name in ("detail", "psnr", "agreement_percent")
        }
        print(
            f"target_spacing {asked}: {len(here)} subjects, {here[0]['voxels']} mm, in-plane detail "
            f"{means['detail']:.3f} of the scan's, {means['psnr']:.2f} dB, differs from the scan by "
            f"{means['agreement_percent']:.3f} % of its range when sliced again"
        )
