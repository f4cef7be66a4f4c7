"""Slices with gaps between them, and slices that overlap: what it is worth to tell their thickness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_diffens.transforms.registration import Scan
from research.clinic.in_plane import psnr, restore
from research.clinic.trials import Row, central_box, read, thick
from research.data_pack import contrast_path

SLICES = ((5, 5), (4, 5), (2.5, 5), (6, 4), (5, 2.5))  # thickness, spacing in mm
CONTRAST = "ce-gadolinium_T1w"  # the sharpest of most subjects
BOX = (112, 128, 120)  # voxels of 1 mm: whole slices of every spacing


def trials(dataset_dir: Path, subjects: Sequence[str]) -> Iterator[Row]:
    """The middle of subjects in axial slices of each kind, restored with and without knowing their kind."""
    for subject in subjects:
        truth = central_box(read(contrast_path(dataset_dir, subject, CONTRAST)), BOX)
        brain = truth.values > 0
        for thickness, spacing in SLICES:
            low = thick(truth, (1, 1, spacing), thickness)
            for told in dict.fromkeys((spacing, thickness)):
                result = restore(low, slice_thickness=float(told))
                there = result.on(truth.affine, truth.values.shape, order=3, mode="nearest")
                again = thick(Scan(there.astype(np.float32), truth.affine), (1, 1, spacing), thickness).values
                seen = low.values > 0
                yield {
                    "subject": subject,
                    "thickness_mm": thickness,
                    "spacing_mm": spacing,
                    "told_mm": told,
                    "psnr": psnr(there, truth.values, brain),
                    "agreement_percent": float(
                        100 * np.abs(again - low.values)[seen].mean() / np.percentile(low.values[seen], 99.5)
                    ),
                }


def summarise(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print means by kind of slices and what was told."""
    kinds = dict.fromkeys((row["thickness_mm"], row["spacing_mm"], row["told_mm"]) for row in rows)
    for thickness, spacing, told in kinds:
        here = [
            row
            for row in rows
            if (row["thickness_mm"], row["spacing_mm"], row["told_mm"]) == (thickness, spacing, told)
        ]
        decibel, differs = (np.mean([row[name] for row in here]) for name in ("psnr", "agreement_percent"))
        print(
            f"{thickness:g} mm every {spacing:g} mm, told {told:g} mm: {len(here)} subjects, "
            f"{decibel:.2f} dB, differs from the scan by {differs:.3f} % of its range when sliced again"
        )
