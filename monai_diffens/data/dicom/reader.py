"""Reading the voxels of a DICOM series with ITK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from monai.config import PathLike
from monai.data import ITKReader
from monai.utils import ensure_tuple, optional_import

__all__ = ["DicomStackReader"]

itk, _ = optional_import("itk", allow_namespace_pkg=True)


class DicomStackReader(ITKReader):
    """Read slices into one volume in the order in which their files are given.

    ITK applies each slice's rescale slope and intercept and decompresses. The files must be sorted along the
    slices' normal, as :func:`~monai_diffens.data.dicom.series.check_series` returns them: given the other way
    round, ITK still takes the normal as the third axis, and head and foot change places.

    Not MONAI's ``ITKReader`` on a folder: that one takes the first of several series, and joins any that have
    a date in common.
    """

    def read(self, data: Sequence[PathLike] | PathLike, **kwargs: Any) -> Any:
        """Read the files; returns an ITK image (X, Y, Z) of float32.

        Raises:
            RuntimeError: ITK cannot read them; its text names files.
        """
        if kwargs:
            raise TypeError(f"unknown options: {sorted(kwargs)}")
        reader = itk.ImageSeriesReader[itk.Image[itk.F, 3]].New(
            FileNames=[str(file) for file in ensure_tuple(data)], ImageIO=itk.GDCMImageIO.New()
        )
        reader.Update()
        return reader.GetOutput()

    @classmethod
    def voxels(cls, files: Sequence[PathLike]) -> np.ndarray:
        """(X, Y, Z) float32 of the files, rescaled; raises as :meth:`read`."""
        reader = cls()
        return reader.get_data(reader.read(files))[0]
