"""Loading a scan, whether it is a NIfTI file or a DICOM series."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged
from monai.utils import ensure_tuple

from monai_diffens.data.dicom.gate import load_series
from monai_diffens.data.dicom.series import DicomSeries, is_dicom, only_series, series_of_files
from monai_diffens.data.output_folder import sha256_of_scan, sha256_of_thickness
from monai_diffens.messages import InputRejected, say
from monai_diffens.transforms.nifti_file import CHECKED, SHA256, NiftiFileReader, has_nifti_name
from monai_diffens.transforms.thick_slices import SLICE_THICKNESS, sidecar_thickness

DICOM_FILES = "dicom_files"


@contextmanager
def _no_decoder_warning() -> Iterator[None]:
    """MONAI 1.6 warns of an absent GPU decoder wherever pydicom is installed; nothing here needs it."""
    plugin = logging.getLogger("monai.data.nvimgcodec_pydicom_plugin")
    level = plugin.level
    plugin.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "NvImgCodecPydicomReader", UserWarning)
            yield
    finally:
        plugin.setLevel(level)


class LoadScan(LoadImage):
    """MONAI's ``LoadImage`` that takes a list of DICOM files for the slices of one volume.

    MONAI would make channels of them. A folder must hold one DICOM series. Either is read by
    :func:`~monai_diffens.data.dicom.gate.load_series`, in the order of positions, whatever order is given.

    In ``meta`` of a DICOM volume ``filename_or_obj`` is the series' name, so that no later message shows a
    patient's folder, ``dicom_files`` is a JSON list of the files, and ``slice_thickness`` tells how thick its
    slices are, where the header does (:mod:`monai_diffens.transforms.thick_slices`); so it does of a
    NIfTI file with a JSON sidecar.
    """

    def __init__(self) -> None:
        with _no_decoder_warning():
            super().__init__(ensure_channel_first=True, squeeze_non_spatial_dims=True)

    def __call__(self, filename: Sequence[PathLike] | PathLike, reader: Any = None) -> MetaTensor:
        """Load one scan: (1, X, Y, Z) float32, affine in mm (RAS+).

        Raises:
            InputRejected: a folder that does not hold one complete series.
        """
        files = [Path(str(file)) for file in ensure_tuple(filename)]
        if len(files) == 1 and files[0].is_dir():
            return _of_series(only_series(files[0]))
        if is_dicom(files[0]):
            return _of_series(series_of_files(files))
        one_nifti = len(files) == 1 and has_nifti_name(files[0])
        volume: MetaTensor = super().__call__(
            filename, NiftiFileReader() if one_nifti and reader is None else reader
        )
        if len(files) == 1 and (thickness := sidecar_thickness(files[0])) is not None:
            volume.meta[SLICE_THICKNESS] = np.array([thickness, 0.0, 0.0, 0.0])
        return volume


def _of_series(series: DicomSeries) -> MetaTensor:
    loaded = load_series(series)
    affine = loaded.stack.affine
    meta: dict[str, Any] = {
        "filename_or_obj": series.name,
        DICOM_FILES: json.dumps([str(file) for file in loaded.files]),
        SHA256: sha256_of_scan(loaded.files),
        "affine": torch.from_numpy(affine),
        "original_affine": affine.copy(),
        "spatial_shape": np.array(loaded.stack.shape),
        "space": "RAS",
        "original_channel_dim": 0,
    }
    if loaded.stack.thickness is not None:
        meta[SLICE_THICKNESS] = np.array([loaded.stack.thickness, *loaded.stack.normal])
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(loaded.voxels))[None], meta=meta)


class LoadScand(LoadImaged):
    """Dictionary form of :class:`LoadScan`; what it reads must be what the gate accepted.

    ``data["checked"]`` may hold the SHA-256 that each key's scan had when it was checked; a case waits for
    those before it, and a scan may be replaced meanwhile.
    """

    def __init__(self, keys: KeysCollection = "image", allow_missing_keys: bool = False) -> None:
        """Take the keys that hold a path, a folder or a list of DICOM files."""
        with _no_decoder_warning():
            super().__init__(keys, allow_missing_keys=allow_missing_keys)
        self._loader = LoadScan()

    def __call__(self, data: Mapping[Hashable, Any], reader: Any = None) -> dict[Hashable, Any]:
        """Load every key; raises InputRejected where a scan is not the one that was checked."""
        out: dict[Hashable, Any] = super().__call__(data, reader)
        checked = data.get(CHECKED) or {}
        for key in self.key_iterator(out):
            if key not in checked:
                continue
            thickness = out[key].meta.get(SLICE_THICKNESS)
            of_sidecar = thickness is not None and DICOM_FILES not in out[key].meta
            told = sha256_of_thickness(float(np.ravel(thickness)[0])) if of_sidecar else None
            if out[key].meta.get(SHA256) != checked[key] or told != checked.get(f"{key}.json"):
                name = Path(str(out[key].meta["filename_or_obj"])).name
                raise InputRejected(say("changed", name=name))
        return out
