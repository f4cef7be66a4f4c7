"""From what a user typed as input to the list of cases to work on, and to an honest exit status.

Nothing is read before :attr:`CaseFolder.items` is asked for. A bad case never stops the others: it is logged
as one line, listed again at the end, and the exit status is then 1. Paths only; no shapes, no units.
"""

from __future__ import annotations

import logging
import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from monai_diffens.data.dicom_gate import check_series
from monai_diffens.data.dicom_series import DicomSeries
from monai_diffens.data.inputs import find_inputs
from monai_diffens.data.output_folder import check_output_folder, check_room, remove_leftovers, stamp
from monai_diffens.data.writer import case_name, output_path
from monai_diffens.transforms.input_gate import CheckedVolume, InputRejected, check_volume
from monai_diffens.transforms.messages import say
from monai_diffens.transforms.target_grid import as_spacing, check_factors, is_fine, spacing_factors

__all__ = ["CaseFolder", "Rejected"]

log = logging.getLogger("monai_diffens")

Spacing = tuple[float, float, float]
VOXEL_BYTES = 4  # of a result, before compression


class Rejected(NamedTuple):
    """An input that was not worked on, and the line that says why."""

    path: Path
    reason: str


@dataclass
class _Scan:
    items: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    fine: list[Path] = field(default_factory=list)
    before: dict[str, tuple[int, int] | None] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)


class CaseFolder:
    """The cases of one run over a NIfTI file, a DICOM series or a folder, and what became of them.

    A folder gives every ``.nii`` and ``.nii.gz`` directly inside; hidden files are left out, and so are the
    run's own earlier results where it writes into its input folder. A BIDS folder (it holds
    ``dataset_description.json``, or it is itself named ``sub-*`` or ``ses-*`` and holds no NIfTI directly)
    gives the anatomical contrasts (``BIDS_CONTRASTS``) of every subject and session instead.
    Links that lead out of the folder are rejected.

    A folder without any of these gives every DICOM series in it and below, except this package's own results
    (so that automatic routing cannot run in a circle); a case is then named after a hash of the series' UID.

    A NIfTI case is named after its file; a result is ``<output_dir>/<case>_<suffix>.nii.gz``. Inputs that
    would share a result are all rejected, so that its name never depends on what else was in the folder.

    With a ``target_spacing``, scans whose slices are too far apart for it are rejected, and scans that
    already reach it are left alone: there is nothing to do for them, which is no failure.
    """

    def __init__(
        self,
        input: str | PathLike[str],
        output_dir: str | PathLike[str],
        suffix: str = "sr",
        force: bool = False,
        overwrite: bool = False,
        target_spacing: float | Sequence[float] | None = None,
        volume: int | None = None,
        fill_nan: bool = False,
        mask: str | PathLike[str] | None = None,
        maps: Sequence[str] = (),
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Remember what is asked for; nothing is read or written yet.

        Args:
            input: NIfTI file, or a folder of NIfTI files or of DICOM series.
            output_dir: where results go; need not exist.
            suffix: letters, digits, ``-`` and ``_``.
            force: accept values that do not look like MR.
            overwrite: work on cases again whose result is already there.
            target_spacing: of the results in mm, one number or one for the right, front and head axes each;
                spacings are not looked at when None.
            volume: which volume of a 4D file to take, counted from 0.
            fill_nan: accept NaN and infinite voxels, which are to be taken as 0.
            mask: a brain mask (NIfTI) for a single input, or a folder of masks named as the scans
                (``<case>.nii.gz`` for a DICOM series).
            maps: names of the maps that a finished case has beside its result, as ``std`` for
                ``<case>_<suffix>_std.nii.gz``; where one is missing, the case is worked on again.
            share: rank and number of processes that share the folder: this one takes every such file.
        """
        self.input, self.output_dir = input, Path(str(output_dir))
        self.suffix, self.force, self.overwrite = str(suffix), force, overwrite
        self.target_spacing = target_spacing
        self.volume, self.fill_nan, self.mask = volume, fill_nan, mask
        self.failures: dict[str, str] = {}
        self._series: dict[Path, DicomSeries] = {}  # by name, which stands for the path
        self._problems: list[str] = []
        self.maps = tuple(maps)
        self.share = share

    @property
    def items(self) -> list[dict[str, Any]]:
        """Cases to work on: ``{"image": path, "case": name, "warnings": [line, ...]}``; checked once.

        Of a DICOM series ``image`` is the list of its files, in the order of their positions. With a mask
        also ``"mask": path``.

        Raises:
            SystemExit: status 1, after one line on stderr: nothing at the input, its only file was rejected,
                or the output folder cannot be written.
        """
        return self._scan.items

    @property
    def rejected(self) -> list[Rejected]:
        """Inputs that were turned down; as :attr:`items`."""
        return self._scan.rejected

    @property
    def skipped(self) -> list[Path]:
        """Results that were already there; as :attr:`items`."""
        return self._scan.skipped

    @property
    def fine(self) -> list[Path]:
        """Inputs that already reach the target spacing; as :attr:`items`."""
        return self._scan.fine

    def fail(self, case: str, reason: str) -> None:
        """Note why a case has no result; ``reason`` is one line that starts with the case's name."""
        self.failures[case] = reason

    def finish(self) -> int:
        """Print what became of the cases; call it after the last one.

        Returns:
            0 when every case has its result.

        Raises:
            SystemExit: status 1, when a case was rejected or its result was not written in this run.
        """
        scan = self._scan
        failed = [
            case
            for case, before in scan.before.items()
            if case in self.failures or stamp(self._result(case)) in (None, before)
        ]
        done = len(scan.items) - len(failed)
        rank, world_size = self.share
        print(
            (f"process {rank + 1} of {world_size}: " if world_size > 1 else "")
            + f"{done} done, {len(scan.skipped)} skipped (result already there), "
            f"{len(scan.rejected)} rejected, {len(failed)} failed"
            + (f", {len(scan.fine)} with nothing to do (already at the target spacing)" if scan.fine else "")
        )
        for entry in scan.rejected:
            print(f"rejected: {entry.reason}")
        for case in failed:
            print(f"failed: {self.failures.get(case) or say('no_result', name=case)}")
        sys.stdout.flush()
        if scan.rejected or failed:
            raise SystemExit(1)
        return 0

    @cached_property
    def _scan(self) -> _Scan:
        scan = _Scan()
        try:
            self._result("probe")
            spacing = None if self.target_spacing is None else as_spacing(self.target_spacing)
            if self.volume is not None and (not isinstance(self.volume, int) or self.volume < 0):
                raise InputRejected(say("bad_volume", value=repr(self.volume)))
            paths = self._find()
            check_output_folder(self.output_dir)
            remove_leftovers(self.output_dir)
        except InputRejected as error:
            _stop(str(error))
        for line in self._problems:
            log.error("rejected: %s", line)
            scan.rejected.append(Rejected(Path(str(self.input)), line))
        single = self._is_single(paths)
        shared = defaultdict(list)
        for path in paths:
            shared[self._case_of(path).casefold()].append(path)
        rank, world_size = self.share  # by place in the folder, which finished cases do not change
        for path in paths[rank::world_size]:
            case = self._case_of(path)
            result = self._result(case)
            try:
                if not single:
                    self._check_place(path, len(shared[case.casefold()]), result)
                before = stamp(result)
                if before and not self.overwrite and all(map(Path.is_file, self._maps(case))):
                    scan.skipped.append(result)
                    continue
                item, voxels = self._examine(path, spacing)
            except InputRejected as error:
                if single:
                    _stop(str(error))
                log.error("rejected: %s", error)
                scan.rejected.append(Rejected(path, str(error)))
                continue
            if item is None:
                scan.fine.append(path)
                continue
            for warning in item["warnings"]:
                log.warning("%s: %s", case, warning)
            scan.before[case] = before
            scan.sizes.append(int(voxels * VOXEL_BYTES * (1 + len(self.maps))))
            scan.items.append(item)
        try:
            notes = check_room(self.output_dir, scan.sizes)
        except InputRejected as error:
            _stop(str(error))
        for line in notes:
            log.warning(line)
        return scan

    def _find(self) -> list[Path]:
        """Paths of the cases."""
        files, series, self._problems = find_inputs(self.input, self.output_dir, self.suffix)
        self._series = {Path(one.name): one for one in series}
        return [*files, *self._series]

    def _is_single(self, paths: Sequence[Path]) -> bool:
        """Whether one case was named, so that its rejection ends the run at once."""
        lone_series = len(self._series) == 1 and not self._problems
        return lone_series or not Path(str(self.input)).is_dir()

    def _case_of(self, path: Path) -> str:
        return case_name(path)

    def _examine(self, path: Path, spacing: Spacing | None) -> tuple[dict[str, Any] | None, float]:
        """Check one case.

        Returns:
            The item of :attr:`items` and the number of voxels of its result; None where nothing is to do.

        Raises:
            InputRejected: the case cannot be worked on.
        """
        image: str | list[str] = str(path)
        if path in self._series:
            files, checked = check_series(self._series[path], force=self.force)
            image = [str(file) for file in files]
        else:
            checked = check_volume(path, force=self.force, fill_nan=self.fill_nan, volume=self.volume)
        warnings = list(checked.warnings)
        mask = self._mask_of(path)
        finer = 1.0
        if spacing is not None:
            factors = spacing_factors(checked.affine, spacing)
            if is_fine(factors):
                log.info(_nothing_to_do(checked, spacing))
                return None, 0
            warnings += check_factors(factors, spacing, path.name)
            finer = float(np.maximum(factors, 1).prod())
        item: dict[str, Any] = {"image": image, "case": self._case_of(path), "warnings": warnings}
        return (item if mask is None else item | {"mask": str(mask)}), math.prod(checked.shape) * finer

    def _result(self, case: str) -> Path:
        return output_path(self.output_dir, case, self.suffix)

    def _mask_of(self, path: Path) -> Path | None:
        """Return the checked mask of an input; None where no masks were given."""
        if self.mask is None:
            return None
        mask = Path(str(self.mask))
        if mask.is_dir():
            mask = mask / (f"{path.name}.nii.gz" if path in self._series else path.name)
        if not mask.is_file() or not (self._is_single([path]) or Path(str(self.mask)).is_dir()):
            raise InputRejected(say("no_mask", name=path.name))
        check_volume(mask, mask=True)
        return mask

    def _maps(self, case: str) -> list[Path]:
        return [output_path(self.output_dir, case, f"{self.suffix}_{name}") for name in self.maps]

    def _check_place(self, path: Path, sharing: int, result: Path) -> None:
        if path in self._series:  # named after their UIDs, and checked where they were found
            return
        if not path.resolve().is_relative_to(Path(str(self.input)).resolve()):
            raise InputRejected(say("outside", name=path.name))
        if sharing > 1:
            raise InputRejected(say("same_name", name=path.name, count=sharing, result=result.name))


def _nothing_to_do(checked: CheckedVolume, target: Sequence[float]) -> str:
    spacing, wanted = (" x ".join(f"{value:.3g}" for value in values) for values in (checked.zooms, target))
    return say("nothing_to_do", name=checked.path.name, spacing=spacing, target=wanted)


def _stop(line: str) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    raise SystemExit(1)
