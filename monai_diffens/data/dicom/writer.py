"""Writing a result as a derived DICOM series beside the NIfTI file: whole or absent, marked as synthetic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_diffens.data.dicom.derived import derived_headers
from monai_diffens.data.dicom.headers import quiet_pydicom, read_header
from monai_diffens.data.load_scan import DICOM_FILES
from monai_diffens.data.output_folder import folder_whole_or_absent
from monai_diffens.data.writer import output_path

__all__ = ["SaveDicomSeriesd", "save_series", "to_stored"]

LARGEST = 2**16 - 1
COARSEST = 255  # with fewer grey values than this, one source unit is too coarse a step
FULL = 2**15 - 1  # the greatest value where the source's own unit does not serve
WINDOW_PERCENTILES = (1.0, 99.5)


def to_stored(volume: np.ndarray, unit: float) -> tuple[np.ndarray, float]:
    """Round a volume to 16-bit integers, so that no rescale slope is needed to show it.

    MR images have no rescale slope in DICOM, and many viewers do not apply one.

    Args:
        volume: (X, Y, Z), any unit.
        unit: the preferred step: the source's rescale slope, so that equal brightness is stored alike.

    Returns:
        (X, Y, Z) uint16, int16 where a value is below 0, and the step taken: ``unit``, unless values would be
        clipped or hardly differ; then the value furthest from 0 becomes 32767.
    """
    signed = bool((np.rint(volume / unit) < 0).any())
    furthest = float(np.abs(volume).max()) if signed else float(volume.max())
    if not COARSEST <= furthest / unit <= (FULL if signed else LARGEST):
        unit = furthest / FULL if furthest > 0 else 1.0
    stored = np.rint(volume / unit)
    return stored.astype(np.int16) if signed else stored.clip(min=0).astype(np.uint16), unit


def save_series(
    volume: np.ndarray,
    affine: np.ndarray,
    sources: Sequence[Path],
    folder: Path,
    *,
    model: str,
    new_contrast: bool = False,
) -> Path:
    """Write a derived MR series, one slice of the last axis a file.

    The folder appears in one step, whole, and only its owner may read it.

    Args:
        volume: (X, Y, Z) in the source's rescaled units.
        affine: (4, 4), voxel index to RAS+ mm.
        sources: files of the source series, all of them.
        folder: made by this function; one that is there is replaced.
        model: name of the model, for the descriptions.
        new_contrast: the result shows another contrast than the source: its echo and repetition times are
            not taken over.

    Returns:
        ``folder``.

    Raises:
        ValueError: values are not finite.
        OSError: a file could not be written; ``folder`` is as it was.
    """
    if not np.isfinite(volume).all():
        raise ValueError(f"{folder.name}: the result holds NaN or infinite values, nothing was written")
    headers = [read_header(source) for source in sources]
    slopes = {float(header.get("RescaleSlope") or 1) for header in headers}
    stored, unit = to_stored(volume, slopes.pop() if len(slopes) == 1 else 1.0)
    foreground = stored[stored > 0]
    window = np.percentile(foreground, WINDOW_PERCENTILES).tolist() if foreground.size else [0.0, 1.0]
    with folder_whole_or_absent(folder) as part, quiet_pydicom():
        derived = derived_headers(
            headers, affine, stored.shape, unit=unit, window=window, model=model, new_contrast=new_contrast
        )
        for number, header in enumerate(derived, 1):
            # Fortran's order puts columns (X) next to each other and then rows (Y), as DICOM does
            header.PixelRepresentation = int(stored.dtype == np.int16)
            header.PixelData = (
                stored[..., number - 1].astype(stored.dtype.newbyteorder("<")).tobytes(order="F")
            )
            header.save_as(part / f"{number:05d}.dcm", enforce_file_format=True)
    return folder


class SaveDicomSeriesd(MapTransform):
    """Write ``pred`` as a derived DICOM series where its source is one; other cases pass.

    ``data[key]`` is a ``MetaTensor`` (1, X, Y, Z) in the source's units and axes. The series is a folder
    ``<output_dir>/<case>_<suffix>/``; ``case`` is ``data["case"]``, else the source's name in the metadata.
    Put it before :class:`~monai_diffens.data.writer.SaveVolumed`, so that a NIfTI result under its final name
    tells that the DICOM series is there too.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        *,
        output_dir: str | PathLike[str],
        model: str,
        source_key: str = "image",
        suffix: str = "sr",
        new_contrast: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        """Remember where and how to write.

        Args:
            keys: one result; each key's would take the same folder.
            output_dir: where the folders go.
            model: name of the model, for the descriptions.
            source_key: the volume that was loaded from the source series.
            suffix: of the folders' names.
            new_contrast: as of :func:`save_series`.
            allow_missing_keys: skip absent keys.
        """
        super().__init__(keys, allow_missing_keys)
        if len(self.keys) != 1:
            raise ValueError(f"one key is needed, got {self.keys}")
        self.output_dir, self.suffix, self.model = Path(str(output_dir)), str(suffix), model
        self.source_key, self.new_contrast = source_key, new_contrast

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        """Write one case; ``data`` is returned unchanged.

        Raises:
            ValueError: an item has not exactly one channel, or as :func:`save_series`.
            InputRejected: the case name could lead out of the output folder.
        """
        out = dict(data)
        for key in self.key_iterator(out):
            meta = out[self.source_key].meta
            if not meta.get(DICOM_FILES):
                continue
            volume: MetaTensor = out[key]
            if volume.ndim != 4 or volume.shape[0] != 1:
                raise ValueError(f"{key}: shape (1, X, Y, Z) is needed, got {tuple(volume.shape)}")
            case = str(out.get("case") or meta["filename_or_obj"])
            target = output_path(self.output_dir, case, self.suffix)
            save_series(
                volume.as_tensor()[0].detach().cpu().float().numpy(),
                np.asarray(volume.affine, dtype=float),
                [Path(file) for file in json.loads(meta[DICOM_FILES])],
                target.with_name(target.name.removesuffix(".nii.gz")),
                model=self.model,
                new_contrast=self.new_contrast,
            )
        return out
