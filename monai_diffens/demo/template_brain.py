"""The ICBM 152 (2009) T1w template at 1 mm, skull-stripped, and its thick slices; see icbm152_license.txt."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monai_diffens.acquisition.measurement import Measurement
from monai_diffens.report.picture import foreground_box
from monai_diffens.transforms.thick_slices import measurement_for

__all__ = ["FACTOR", "load_truth", "save", "slice_affine", "thick_scan"]

TEMPLATE = Path(__file__).with_name("icbm152_t1w.nii.gz")
FACTOR = 5  # 1 mm voxels, 5 mm slices
MNI_SPACE = 4  # NIfTI code: coordinates are MNI152's


def load_truth(crop: int | None = None) -> tuple[Tensor, NDArray[np.float64]]:
    """The template, cropped to its foreground, with a whole number of thick slices.

    Args:
        crop: side of a central box to keep, in voxels; the whole foreground when None.

    Returns:
        (X, Y, Z) volume, RAS, 0 to 1, and its affine in mm.
    """
    template = nib.Nifti1Image.from_filename(TEMPLATE)
    volume = np.asarray(template.get_fdata(dtype=np.float32))
    low, high = foreground_box(volume)
    sides = high + 1 - low
    if crop is not None:
        low = low + np.maximum(sides - crop, 0) // 2
        sides = np.minimum(sides, crop)
        sides[2] -= sides[2] % FACTOR
    sides[2] += -sides[2] % FACTOR  # the file has empty space above the head
    box = tuple(slice(int(start), int(start + side)) for start, side in zip(low, sides, strict=True))
    truth = torch.from_numpy(np.ascontiguousarray(volume[box]))
    return truth, np.asarray(template.affine @ nib.affines.from_matvec(np.eye(3), low))


def thick_scan(crop: int | None = None) -> nib.Nifti1Image:
    """The template as a scan of 5 mm axial slices, for examples; ``crop`` as of :func:`load_truth`."""
    truth, affine = load_truth(crop)
    measurement = measurement_for(truth.shape, (1, 1, FACTOR))
    image = nib.Nifti1Image(measurement(truth).numpy(), slice_affine(affine, measurement))
    image.header.set_xyzt_units("mm")
    return image


def slice_affine(affine: NDArray[np.float64], measurement: Measurement) -> NDArray[np.float64]:
    """Affine of the thick slices: slice k lies where the mean of the voxels that it covers lies."""
    to_fine = np.eye(4)
    for index, axis in enumerate(measurement.axes):
        if axis is not None:
            to_fine[index, index], to_fine[index, 3] = axis.factor, axis.slice_centres[0]
    return affine @ to_fine


def save(volume: Tensor, affine: NDArray[np.float64], path: Path, description: str) -> None:
    """Write a volume (X, Y, Z) in MNI space."""
    image = nib.Nifti1Image(volume.numpy(), affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode()[:79]
    image.set_sform(affine, MNI_SPACE)
    image.set_qform(affine, MNI_SPACE)
    nib.save(image, path)
