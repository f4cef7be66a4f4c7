"""From what a user typed as input to the list of scans to work on, one scan a case."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_diffens.data.case_list import CaseList, Spacing
from monai_diffens.data.dicom.series import DicomSeries
from monai_diffens.data.dicom.study import kind_warnings
from monai_diffens.data.inputs import find_inputs
from monai_diffens.data.writer import case_name
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import CheckedVolume, InputRejected, check_volume
from monai_diffens.transforms.nifti_reader import CHECKED
from monai_diffens.transforms.target_grid import check_factors, is_fine, spacing_factors

__all__ = ["CaseFolder"]

log = logging.getLogger("monai_diffens")


class CaseFolder(CaseList):
    """The cases of one run over a NIfTI file, a DICOM series or a folder, and what became of them.

    A folder gives every ``.nii`` and ``.nii.gz`` directly inside; hidden files are left out, and so are the
    run's own earlier results where it writes into its input folder. A BIDS folder (it holds
    ``dataset_description.json``, or it is itself named ``sub-*`` or ``ses-*`` and holds no NIfTI directly)
    gives the anatomical contrasts (``BIDS_CONTRASTS``) of every subject and session instead.
    Links that lead out of the folder are rejected.

    A folder without any of these gives every structural DICOM series in it and below, except this package's
    own results (so that automatic routing cannot run in a circle); ``series`` names others, or some of them.
    A case is then named after the series' number, its cleaned description and a hash of its UID.

    A NIfTI case is named after its file. A mask in a folder of masks has the name of its scan,
    ``<case>.nii.gz`` for a DICOM series.

    ``input`` is a NIfTI file, or a folder of NIfTI files or of DICOM series; the other arguments are those of
    :class:`CaseList`. With a ``target_spacing``, scans whose slices are too far apart are rejected, and
    scans that already reach it are left alone: there is nothing to do for them, which is no failure.
    """

    _series: dict[Path, DicomSeries]  # by name, which stands for the path; filled by find

    def find(self) -> list[Path]:
        """Files, or names of series."""
        files, series, self.problems, self.left_out = find_inputs(
            self.input, self.output_dir, self.suffix, self.series
        )
        self._series = {Path(one.name): one for one in series}
        return [*files, *self._series]

    def is_single(self, paths: Sequence[Path]) -> bool:
        """A file, or a folder of one series and nothing that could not be taken."""
        lone_series = len(self._series) == 1 and not self.problems
        return lone_series or not Path(str(self.input)).is_dir()

    def names(self, path: Path) -> tuple[str, str]:
        """Name of a case, and that of its file."""
        return case_name(path), path.name

    def check_place(self, path: Path) -> None:
        """Raise InputRejected for a link out of the folder; of series that was checked as they were found."""
        folder = Path(str(self.input)).resolve()
        if path not in self._series and not path.resolve().is_relative_to(folder):
            raise InputRejected(say("outside", name=path.name))

    def inputs(self, path: Path) -> dict[str, list[Path]]:
        """The scan's files, and its mask."""
        series = self._series.get(path)
        found = {"image": [path] if series is None else list(series.paths)}
        mask = self._mask(path)
        return found if mask is None else found | {"mask": [mask]}

    def _mask(self, path: Path) -> Path | None:
        case, told = self.names(path)
        return self.mask_of(
            f"{case}.nii.gz" if path in self._series else path.name, told, self.is_single([path])
        )

    def examine(self, path: Path, spacing: Spacing | None) -> tuple[dict[str, Any], float] | None:
        """Check one scan: ``{"image": path, "case": name, "warnings": [line, ...], "checked": hashes}``.

        Of a DICOM series ``image`` is the list of its files, in the order of their positions. With a mask
        also ``"mask": path``.
        """
        series = self._series.get(path)
        image, checked = self.check_scan(series or path)
        warnings = [*checked.warnings, *(() if series is None else kind_warnings(series))]
        case, _ = self.names(path)
        hashes, mask = {"image": checked.sha256}, self._mask(path)
        if mask is not None:
            hashes["mask"] = check_volume(mask, mask=True).sha256
        finer = 1.0
        if spacing is not None:
            factors = spacing_factors(checked.affine, spacing)
            if is_fine(factors):
                log.info(_nothing_to_do(checked, spacing))
                return None
            warnings += check_factors(factors, spacing, path.name)
            finer = float(np.maximum(factors, 1).prod())
        item: dict[str, Any] = {"image": image, "case": case, "warnings": warnings, CHECKED: hashes}
        return (item if mask is None else item | {"mask": str(mask)}), math.prod(checked.shape) * finer


def _nothing_to_do(checked: CheckedVolume, target: Sequence[float]) -> str:
    spacing, wanted = (" x ".join(f"{value:.3g}" for value in values) for values in (checked.zooms, target))
    return say("nothing_to_do", name=checked.path.name, spacing=spacing, target=wanted)
