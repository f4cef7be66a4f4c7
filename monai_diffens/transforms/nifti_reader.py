"""MONAI's reader of a NIfTI file: the one that was checked, with the geometry that the gate reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple
from numpy.typing import NDArray

from monai_diffens.transforms.nifti_file import OpenNifti, has_nifti_name, open_nifti

__all__ = ["CHECKED", "IN_MILLIMETERS", "SHA256", "NiftiFileReader"]

CHECKED = "checked"  # in a case's item: key -> SHA-256 of the scan that the gate accepted
SHA256 = "sha256"  # in a scan's meta: of the bytes that it was read from
IN_MILLIMETERS = "affine_in_mm"  # in a scan's meta: its affine is the gate's already


class NiftiFileReader(ImageReader):
    """Reads one NIfTI file by way of :func:`~monai_diffens.transforms.nifti_file.open_nifti`.

    MONAI's own takes a file by nibabel's rules on names, takes micrometres for millimetres, and replaces an
    sform by the qform where only the qform agrees with the header's spacing. No text of a header, which may
    name a patient, goes into the metadata.
    """

    def verify_suffix(self, filename: Sequence[PathLike] | PathLike) -> bool:
        """Whether the file is named as a NIfTI volume."""
        return all(has_nifti_name(Path(str(name))) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike] | PathLike, **_: Any) -> tuple[OpenNifti, NDArray[Any]]:
        """Read header and voxels; raises InputRejected as ``open_nifti``."""
        (name,) = ensure_tuple(data)
        with open_nifti(Path(str(name)), 0) as file:
            return file, file.voxels()

    def get_data(self, img: tuple[OpenNifti, NDArray[Any]]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Voxels (X, Y, Z) or (X, Y, Z, N), and the metadata that MONAI's transforms ask for."""
        file, voxels = img
        meta = {
            MetaKeys.AFFINE: file.geometry.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: file.geometry.affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.array(file.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if voxels.ndim == 3 else -1,
            "sform_code": file.geometry.sform_code,
            "qform_code": file.geometry.qform_code,
            SHA256: file.sha256,
            IN_MILLIMETERS: True,
        }
        return np.ascontiguousarray(voxels), {str(key): value for key, value in meta.items()}
