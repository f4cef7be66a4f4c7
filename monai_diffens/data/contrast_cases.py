"""The cases of a translation run: any subset of contrasts each, checked one by one and against each other."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from monai_diffens.data.bids import CONTRASTS
from monai_diffens.data.case_list import CaseList, Spacing
from monai_diffens.data.contrasts import ContrastFiles, find_contrasts
from monai_diffens.data.dicom.series import DicomSeries
from monai_diffens.data.earlier_result import Recipe
from monai_diffens.messages import say
from monai_diffens.transforms.input_gate import CheckedVolume, InputRejected, check_volume
from monai_diffens.transforms.nifti_reader import CHECKED
from monai_diffens.transforms.target_grid import check_factors, spacing_factors

__all__ = ["ContrastCases"]

SMALLEST_OVERLAP = 0.5


class ContrastCases(CaseList):
    """Cases with a file for each contrast they have, found by :func:`find_contrasts`.

    A missing contrast is simply absent. A case is rejected when it has none, when one of its files is bad,
    when its files do not lie on each other, or when it lacks the one that ``fusion`` names. A mask in a
    folder of masks is named ``<case>.nii.gz``; it serves all contrasts of the case.
    """

    def __init__(
        self,
        input: str | PathLike[str],
        output_dir: str | PathLike[str],
        suffix: str = "desc-synthetic_FLAIR",
        force: bool = False,
        overwrite: bool = False,
        target_spacing: float | Sequence[float] = 1.0,
        volume: int | None = None,
        fill_nan: bool = False,
        mask: str | PathLike[str] | None = None,
        fusion: str = "calibrated",
        condition_weights: Mapping[str, float] | None = None,
        maps: Sequence[str] = (),
        share: tuple[int, int] = (0, 1),
        recipe: Recipe | None = None,
        series: int | str | Sequence[int | str] | None = None,
    ) -> None:
        """Remember what is asked for; nothing is read or written yet.

        Args:
            input: folder of case folders, one case folder, or data list (JSON).
            output_dir: as of :class:`CaseList`, like all that follow but two.
            suffix: of the results' names.
            force: accept values that do not look like MR.
            overwrite: work on cases again whose result is already there.
            target_spacing: of the results in mm.
            volume: which volume of 4D files to take.
            fill_nan: accept voxels that are not finite.
            mask: a brain mask, or a folder of them.
            fusion: a case that lacks the contrast it names, if any, is rejected.
            condition_weights: contrasts of weight 0 are left out, as if absent.
            maps: names of further results of each case.
            share: rank and number of processes that share the cases.
            recipe: what results are made with.
            series: which DICOM series to make a case of, where no names tell contrasts.
        """
        super().__init__(
            input,
            output_dir,
            suffix,
            force=force,
            overwrite=overwrite,
            target_spacing=target_spacing,
            volume=volume,
            fill_nan=fill_nan,
            mask=mask,
            maps=maps,
            share=share,
            recipe=recipe,
            series=series,
        )
        self.target = CONTRASTS[-1]
        self.needed = [contrast for contrast in CONTRASTS if fusion.split("/")[-1] == contrast]
        self.ignored = [name for name, weight in (condition_weights or {}).items() if weight == 0]

    @cached_property
    def _contrasts(self) -> dict[Path, ContrastFiles]:
        # cases of one data list share a folder: their place in the list tells them apart
        found = find_contrasts(self.input, self.series)
        return {case.folder / f"{number}": case for number, case in enumerate(found, start=1)}

    def find(self) -> list[Path]:
        """A path for each case, which no file need have."""
        self.left_out = [line for case in self._contrasts.values() for line in case.left_out]
        return list(self._contrasts)

    def is_single(self, paths: Sequence[Path]) -> bool:
        """One case in the folder or list."""
        return len(paths) == 1

    def names(self, path: Path) -> tuple[str, str]:
        """Name of a case, twice."""
        case = self._contrasts[path].case
        return case, case

    def check_place(self, path: Path) -> None:
        """Raise InputRejected for a link out of the folder; a data list may name files anywhere."""
        if Path(str(self.input)).is_dir():
            root = Path(str(self.input)).resolve()
            for scan in self._contrasts[path].files.values():
                files = scan.files if isinstance(scan, DicomSeries) else [scan]
                if not all(file.resolve().is_relative_to(root) for file in files):
                    raise InputRejected(say("outside", name=scan.name))

    def inputs(self, path: Path) -> dict[str, list[Path]]:
        """Files of each contrast that is used, and the mask."""
        case = self._contrasts[path]
        found = {}
        for name in self._used(case):
            scan = case.files[name]
            found[name] = list(scan.paths) if isinstance(scan, DicomSeries) else [scan]
        mask = self._mask(case)
        return found if mask is None else found | {"mask": [mask]}

    def _used(self, case: ContrastFiles) -> list[str]:
        return [name for name in CONTRASTS if name in case.files and name not in self.ignored]

    def _mask(self, case: ContrastFiles) -> Path | None:
        return self.mask_of(f"{case.case}.nii.gz", case.case, len(self._contrasts) == 1)

    def examine(self, path: Path, spacing: Spacing | None) -> tuple[dict[str, Any], float]:
        """Check one case: a path for each contrast, ``sources`` (file names), and with a mask ``mask``."""
        case = self._contrasts[path]
        if case.problem:
            raise InputRejected(case.problem)
        names = self._used(case)
        lacking = [name for name in self.needed if name not in names]
        if not names or lacking:
            expected = ", ".join(lacking or [name for name in CONTRASTS if name not in self.ignored])
            raise InputRejected(
                say("no_contrast", name=case.case, found=", ".join(case.files), expected=expected)
            )
        warnings = [*case.notes, *(say("contrast_ignored", file=name) for name in case.unknown)]
        if (self.needed or names) == [self.target]:
            warnings.append(say("target_alone", target=self.target))
        images, checked = {}, {}
        for name in names:
            images[name], checked[name] = self.check_scan(case.files[name])
            told = list(checked[name].warnings)
            if spacing is not None:
                factors = spacing_factors(checked[name].affine, spacing)
                told += check_factors(factors, spacing, checked[name].path.name)
            warnings += [f"{name}: {line}" for line in told]
        first = checked[names[0]]
        for name in names[1:]:
            overlap = box_overlap(first, checked[name])
            if overlap < SMALLEST_OVERLAP:
                seen = {"one": names[0], "other": name, "percent": 100 * overlap}
                raise InputRejected(say("no_overlap", name=case.case, **seen))
        sources = [checked[name].path.name for name in names]
        hashes, mask = {name: checked[name].sha256 for name in names}, self._mask(case)
        item: dict[str, Any] = {**images, "case": case.case, "warnings": warnings, "sources": sources}
        item[CHECKED] = hashes
        if mask is not None:
            hashes["mask"] = check_volume(mask, mask=True).sha256
            item["mask"] = str(mask)
        finer = 1.0 if spacing is None else np.maximum(spacing_factors(first.affine, spacing), 1).prod()
        return item, math.prod(first.shape) * float(finer)


def box_overlap(one: CheckedVolume, other: CheckedVolume) -> float:
    """Volume shared by the boxes of two scans along the patient's axes, over the smaller box's: 0 to 1."""
    lows, highs = [], []
    for scan in (one, other):
        corners = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in scan.shape))))
        places = nib.affines.apply_affine(scan.affine, corners)
        lows.append(places.min(axis=0))
        highs.append(places.max(axis=0))
    shared = np.clip(np.minimum(*highs) - np.maximum(*lows), 0, None).prod()
    smaller = min((high - low).prod() for low, high in zip(lows, highs, strict=True))
    return float(shared / smaller)
