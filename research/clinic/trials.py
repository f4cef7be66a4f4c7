"""Scans and tables that the trials share."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch

from monai_diffens.acquisition.measurement import AxisSampling, Measurement
from monai_diffens.transforms.registration import Scan

Row = dict[str, Any]


def read(path: Path) -> Scan:
    """A NIfTI file as (X, Y, Z) float32."""
    image = cast(nib.Nifti1Image, nib.load(path))
    return Scan(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=float))


def central_box(scan: Scan, sides: Sequence[int] | None) -> Scan:
    """The middle of a scan, side lengths in voxels; all of it when None."""
    if sides is None:
        return scan
    start = [max(0, (n - side) // 2) for n, side in zip(scan.values.shape, sides, strict=True)]
    box = tuple(slice(s, s + side) for s, side in zip(start, sides, strict=True))
    return Scan(scan.values[box], scan.affine @ nib.affines.from_matvec(np.eye(3), start))


def thick(scan: Scan, spacing: Sequence[float], thickness: float | None = None) -> Scan:
    """A scan in thick slices.

    Args:
        scan: a fine one.
        spacing: of the slices, in voxels by axis; 1 leaves an axis as it is.
        thickness: of the slices, in voxels; the spacing when None.
    """
    axes = [
        None if factor == 1 else AxisSampling.from_factor(size, factor, thickness)
        for size, factor in zip(scan.values.shape, spacing, strict=True)
    ]
    values = Measurement(axes)(torch.from_numpy(scan.values)).numpy()
    step = np.eye(4)
    for axis, sampling in enumerate(axes):
        if sampling is not None:
            step[axis, axis], step[axis, 3] = sampling.factor, sampling.slice_centres[0]
    return Scan(values, scan.affine @ step)


def write(rows: Iterable[Row], path: Path) -> list[Row]:
    """Write rows as they come, numbers to three digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept: list[Row] = []
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in rows:
            kept.append(row)
            plain = {k: round(float(v), 3) if isinstance(v, float) else v for k, v in row.items()}
            if len(kept) == 1:
                table = csv.DictWriter(file, plain, lineterminator="\n")
                table.writeheader()
            table.writerow(plain)
            file.flush()
            print(*plain.values(), flush=True)
    return kept
