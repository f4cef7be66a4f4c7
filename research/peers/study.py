"""The peers on the same thick-sliced scans, measured against the truth inside the brain."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from monai_diffens.transforms.registration import Scan
from research.clinic.trials import central_box, read, thick
from research.metrics.suite import volume_metrics
from research.peers.programs import FUSED, MEAN, Program, run
from research.studies.study import Measure, Names, Study
from research.studies.tables import MARK, MethodMarks

logger = logging.getLogger(__name__)

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}  # slicing axis in RAS order
FIGURES = ("psnr_brain", "ssim_brain", "hfen", "inter_slice", "sharpness")
WHITE = 99.5  # percentile of the brain that is 1 when figures are taken


def slice_settings(spacings: Sequence[float], planes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Settings of a study: slices of so many mm, in a plane."""
    return {f"{mm:g} mm {plane}": {"mm": mm, "plane": plane} for plane in planes for mm in spacings}


class PeerStudy(Study):
    """Every program on every thick-sliced volume: figures inside the brain, seconds, memory.

    Args:
        items: volumes with ``label`` (path) and ``case``, of 1 mm, RAS.
        programs: that are run; one that is not installed is left out, and named in the log.
        settings: of :func:`slice_settings`.
        output_dir: receives ``peers.csv``; rows already in it are not computed again.
        weights_file: of our bundle, for the mark of our rows.
        limit_s: seconds that a program may take for a scan.
        region: side lengths of the central box that scans are cut to, in voxels; whole volumes when None.
    """

    keys = ("setting", "case", "method")

    def __init__(
        self,
        items: Sequence[Mapping[str, Any]],
        programs: Sequence[Program],
        settings: Mapping[str, Mapping[str, Any]],
        output_dir: str | Path,
        weights_file: str | Path,
        limit_s: float = 3600,
        region: Sequence[int] | None = None,
    ) -> None:
        marks = MethodMarks([], {name: [weights_file] for name in (FUSED, MEAN)})
        super().__init__(Path(output_dir) / "peers.csv", settings, marks)
        self.items, self.limit_s, self.region = items, limit_s, region
        for program in programs:
            if program.why_not:
                logger.warning("%s is left out: %s", program.name, program.why_not)
        self.programs = [program for program in programs if not program.why_not]

    def cases(self) -> Iterator[tuple[Names, Scan]]:
        """Every item."""
        for item in self.items:
            yield {"case": str(item["case"])}, central_box(read(Path(item["label"])), self.region)

    def methods(
        self, place: Names, loaded: Scan, setting: Mapping[str, Any]
    ) -> Iterator[tuple[Names, Measure]]:
        """Every program on one scan."""
        for program in self.programs:
            yield {"method": program.name}, partial(self.measure, program, loaded, setting)

    def measure(self, program: Program, whole: Scan, setting: Mapping[str, Any]) -> dict[str, Any]:
        """Slice a volume thick, run a program on it, and compare what it writes with the volume."""
        truth = whole_slices(whole, PLANES[setting["plane"]], setting["mm"])
        spacing = [1.0] * 3
        spacing[PLANES[setting["plane"]]] = setting["mm"]
        with tempfile.TemporaryDirectory() as folder:
            scan = Path(folder) / "scan_T1w.nii.gz"
            low = thick(truth, spacing)
            image = nib.Nifti1Image(low.values.astype(np.float32), low.affine)
            image.header.set_xyzt_units("mm")
            image.to_filename(scan)
            cost = run(program, scan, Path(folder) / "out", self.limit_s)
            row: dict[str, Any] = dict.fromkeys(FIGURES, "")
            if cost.outcome == "done":
                row |= figures(read(program.result(scan, Path(folder) / "out")), truth)
            else:
                logger.warning("%s: %s", program.name, cost.outcome)
        return {MARK: self.marks.of(program.name), **row, **cost._asdict()}


def figures(result: Scan, truth: Scan) -> dict[str, float]:
    """Figures inside the brain; what has other voxels than the truth is brought onto them by a spline."""
    same = result.values.shape == truth.values.shape and np.allclose(result.affine, truth.affine, atol=1e-3)
    values = result.values if same else result.on(truth.affine, truth.values.shape, order=3, mode="nearest")
    brain = truth.values > 0
    unit = float(np.percentile(truth.values[brain], WHITE))
    made, real = (torch.from_numpy(np.asarray(v, dtype=np.float32) / unit) for v in (values, truth.values))
    measured = volume_metrics(made.clamp(min=0), real, torch.from_numpy(brain), 1.0)
    return {name: measured[name] for name in FIGURES}


def whole_slices(scan: Scan, axis: int, spacing: float) -> Scan:
    """A scan without the outer voxels that make no whole slice: all programs then have one fine grid."""
    size = scan.values.shape[axis]
    return central_box(
        scan, [int(size // spacing * spacing) if i == axis else n for i, n in enumerate(scan.values.shape)]
    )
