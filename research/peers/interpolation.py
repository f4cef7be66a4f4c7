"""Interpolate a thick-sliced scan to 1 mm.

python -m research.peers.interpolation cubic|lanczos SCAN RESULT
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_diffens.transforms.registration import Scan, finer_grid
from research.clinic.trials import read

LANCZOS_RADIUS = 3  # slices on each side


def main() -> None:
    """Write the interpolated scan."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kind", choices=["cubic", "lanczos"])
    parser.add_argument("scan", type=Path)
    parser.add_argument("result", type=Path)
    asked = parser.parse_args()
    scan = read(asked.scan)
    affine, shape = finer_grid(scan, np.minimum(scan.spacing, 1.0))
    values = cubic(scan, affine, shape) if asked.kind == "cubic" else lanczos(scan, affine, shape)
    nib.Nifti1Image(values.clip(min=0).astype(np.float32), affine).to_filename(asked.result)


def cubic(scan: Scan, affine: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.floating]:
    """Cubic spline of scipy; beyond the outer slices their values are held."""
    return scan.on(affine, shape, order=3, mode="nearest")


def lanczos(scan: Scan, affine: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.floating]:
    """Lanczos-windowed sinc of ITK; beyond the outer slices their values are held.

    In voxels of the scan: where it lies in space does not matter here.
    """
    import itk

    step = np.linalg.inv(scan.affine) @ affine  # finer voxels to the scan's
    held = np.pad(np.asarray(scan.values, dtype=np.float32), LANCZOS_RADIUS + 1, mode="edge")
    image = itk.GetImageFromArray(np.ascontiguousarray(held.T))
    image.SetOrigin([-float(LANCZOS_RADIUS + 1)] * 3)
    kind = type(image)
    window = itk.LanczosWindowFunction[LANCZOS_RADIUS]
    interpolator: Any = itk.WindowedSincInterpolateImageFunction[kind, LANCZOS_RADIUS, window].New()
    fine = itk.resample_image_filter(
        image,
        interpolator=interpolator,
        size=[int(side) for side in shape],
        output_origin=[float(value) for value in step[:3, 3]],
        output_spacing=[float(value) for value in np.diag(step)[:3]],
    )
    return np.asarray(itk.GetArrayFromImage(fine), dtype=np.float32).T


if __name__ == "__main__":
    main()
