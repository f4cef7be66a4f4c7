"""The cases of one run, whatever a case consists of: found, checked one by one, named after their results.

Nothing is read before :attr:`CaseList.items` is asked for. A bad case never stops the others: it is logged
as one line, listed again at the end, and the exit status is then 1.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from monai_diffens.data.dicom.gate import check_series
from monai_diffens.data.dicom.series import DicomSeries
from monai_diffens.data.dicom.study import Wanted
from monai_diffens.data.output_folder import (
    Earlier,
    Recipe,
    Verdict,
    check_output_folder,
    check_room,
    earlier_result,
    remove_leftovers,
    sha256_of_scan,
    sha256_of_thickness,
    stamp,
)
from monai_diffens.data.writer import output_path
from monai_diffens.messages import InputRejected, say, tell
from monai_diffens.transforms.input_gate import CheckedVolume, check_volume
from monai_diffens.transforms.target_grid import as_spacing
from monai_diffens.transforms.thick_slices import sidecar_thickness

log = logging.getLogger("monai_diffens")

Spacing = tuple[float, float, float]
VOXEL_BYTES = 4  # of a result, before compression


@dataclass(frozen=True)
class Reading:
    """What is read of an input, and what is accepted.

    Attributes:
        series: which DICOM series to take, by number, name or description; see
            :func:`~monai_diffens.data.dicom.study.choose`.
        volume: which volume of a 4D file to take, counted from 0.
        mask: a brain mask (NIfTI) for a single case, or a folder with one for every case.
        fill_nan: accept NaN and infinite voxels, which are to be taken as 0.
        force: accept values that do not look like MR.
    """

    series: Wanted = None
    volume: int | None = None
    mask: str | PathLike[str] | None = None
    fill_nan: bool = False
    force: bool = False


@dataclass(frozen=True)
class Results:
    """What a run leaves in its folder.

    Attributes:
        suffix: of the results' names: letters, digits, ``-`` and ``_``.
        maps: names of the maps that a finished case has beside its result, as ``std`` for
            ``<case>_<suffix>_std.nii.gz``; where one is missing, the case is worked on again.
        recipe: what results are made with: one of an earlier run with another is kept, and its case told and
            turned down.
        overwrite: work on cases again whose result is already there.
    """

    suffix: str = "sr"
    maps: Sequence[str] = ()
    recipe: Recipe | None = None
    overwrite: bool = False


class Rejected(NamedTuple):
    """An input that was not worked on, and the line that says why."""

    path: Path
    reason: str


@dataclass
class RunOutcome:
    """What became of the cases of a run.

    Attributes:
        items: cases to work on.
        rejected: inputs that were turned down.
        skipped: results that were already there.
        fine: inputs for which nothing is to do.
        left_out: lines on what was not looked at.
        results: result of each item, in their order.
        before: which writing of these was there before the run.
    """

    items: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    fine: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    before: list[tuple[int, int] | None] = field(default_factory=list)

    def reject(self, path: Path, reason: str) -> None:
        """Turn an input down."""
        log.error("rejected: %s", reason)
        self.rejected.append(Rejected(path, reason))

    def finish(self, failures: dict[str, str], share: tuple[int, int]) -> int:
        """Print what became of the cases.

        Args:
            failures: case -> why it has no result.
            share: rank and number of processes of the run.

        Returns:
            0 when every case has its result; 1 when one was rejected or failed.
        """
        failed = [item["case"] for item in self.items if item["case"] in failures]
        rank, world_size = share
        tell(
            (f"process {rank + 1} of {world_size}: " if world_size > 1 else "")
            + f"{len(self.items) - len(failed)} done, {len(self.skipped)} skipped (result already there), "
            f"{len(self.rejected)} rejected, {len(failed)} failed"
            + (f", {len(self.fine)} with nothing to do (already at the target spacing)" if self.fine else "")
        )
        for entry in self.rejected:
            tell(f"rejected: {entry.reason}")
        for case in failed:
            tell(f"failed: {failures[case]}")
        for line in self.left_out:
            tell(line)
        return int(bool(self.rejected or failed))


class CaseList(ABC):
    """The cases of one run and what became of them; a subclass says what a case is and how it is checked.

    A case is known by a path and has a name; its result is ``<output_dir>/<case>_<suffix>.nii.gz``. Inputs
    that would share a result are all rejected, so that its name never depends on what else was given.

    Args:
        input: what the user gave; the subclass says what it may be.
        output_dir: where results go; need not exist.
        target_spacing: of the results in mm, one number or one for the right, front and head axes each;
            spacings are not looked at when None.
        reading: what is read of the input, and accepted.
        results: what the run leaves in the folder.
        share: rank and number of processes that share the cases: this one takes every such case.
    """

    def __init__(
        self,
        input: str | PathLike[str],
        output_dir: str | PathLike[str],
        target_spacing: float | Sequence[float] | None = None,
        reading: Reading | None = None,
        results: Results | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.input, self.output_dir, self.target_spacing = input, Path(str(output_dir)), target_spacing
        self.reading, self.results, self.share = reading or Reading(), results or Results(), share
        self.suffix = str(self.results.suffix)
        self.problems: list[str] = []  # what could not even become a case
        self.left_out: list[str] = []  # what lies at the input and is not looked at
        self.failures: dict[str, str] = {}

    @abstractmethod
    def find(self) -> list[Path]:
        """Paths of the cases, in a fixed order; raises InputRejected where there is none."""

    @abstractmethod
    def is_single(self, paths: Sequence[Path]) -> bool:
        """Whether one case was named, so that its rejection ends the run at once."""

    @abstractmethod
    def names(self, path: Path) -> tuple[str, str]:
        """Name of a case, and what a message calls its input."""

    @abstractmethod
    def check_place(self, path: Path) -> None:
        """Raise InputRejected for a case of a folder that a link leads out of it."""

    @abstractmethod
    def inputs(self, path: Path) -> dict[str, list[Path]]:
        """Files of a case by the key that its item has for them, the mask's among them, not yet checked."""

    @abstractmethod
    def examine(self, path: Path, spacing: Spacing | None) -> tuple[dict[str, Any], float] | None:
        """Check one case.

        Returns:
            Its item, with ``case``, ``warnings`` and ``checked``, the SHA-256 of each scan, and the number of
            voxels of its result; None where nothing is to do.

        Raises:
            InputRejected: the case cannot be worked on.
        """

    @property
    def items(self) -> list[dict[str, Any]]:
        """Cases to work on, as :meth:`examine` describes them; checked once.

        Raises:
            InputRejected: nothing at the input, its only case was rejected, or the output folder cannot be
                written.
        """
        return self._outcome.items

    @property
    def rejected(self) -> list[Rejected]:
        """Inputs that were turned down; as :attr:`items`."""
        return self._outcome.rejected

    @property
    def skipped(self) -> list[Path]:
        """Results that were already there; as :attr:`items`."""
        return self._outcome.skipped

    @property
    def fine(self) -> list[Path]:
        """Inputs for which nothing is to do; as :attr:`items`."""
        return self._outcome.fine

    def fail(self, case: str, reason: str) -> None:
        """Note why a case has no result; ``reason`` is one line that starts with the case's name."""
        self.failures[case] = reason

    def settle(self) -> None:
        """Note every case without a result of this run as failed: a run that ends early begins not all."""
        found = self._outcome
        for item, result, before in zip(found.items, found.results, found.before, strict=True):
            if stamp(result) in (None, before):
                self.failures.setdefault(item["case"], say("no_result", name=item["case"]))

    def finish(self) -> int:
        """Print what became of the cases, after the last one; returns :meth:`RunOutcome.finish`'s status."""
        self.settle()
        return self._outcome.finish(self.failures, self.share)

    def check_scan(self, scan: Path | DicomSeries) -> tuple[str | list[str], CheckedVolume]:
        """Check one scan with the run's options.

        Returns:
            What a loader is given, the path or a series' files in the order of their positions, and what the
            gate found.

        Raises:
            InputRejected: it cannot be worked on.
        """
        read = self.reading
        if isinstance(scan, DicomSeries):
            files, checked = check_series(scan, force=read.force)
            return [str(file) for file in files], replace(checked, sha256=sha256_of_scan(files))
        return str(scan), check_volume(scan, force=read.force, fill_nan=read.fill_nan, volume=read.volume)

    def mask_of(self, name: str, masked: str, single: bool) -> Path | None:
        """Return the mask of a case, which is there; None where no masks were given.

        Args:
            name: of its file in a folder of masks.
            masked: what it is the mask of, for the message.
            single: whether one mask does, since the run has one case.

        Raises:
            InputRejected: there is none.
        """
        if self.reading.mask is None:
            return None
        given = Path(str(self.reading.mask))
        mask = given / name if given.is_dir() else given
        if not mask.is_file() or not (single or given.is_dir()):
            raise InputRejected(say("no_mask", name=masked))
        return mask

    def sidecars(self, path: Path) -> dict[str, str]:
        """SHA-256 of what the JSON sidecars of a case's scans tell, by the scan's key and ``.json``."""
        alone = {key: files[0] for key, files in self.inputs(path).items() if len(files) == 1}
        told = {key: sidecar_thickness(file) for key, file in alone.items() if key != "mask"}
        return {f"{key}.json": sha256_of_thickness(mm) for key, mm in told.items() if mm is not None}

    def earlier(self, path: Path, case: str) -> Earlier:
        """What an earlier run's result of a case is worth."""
        result = self._result(case)
        if self.results.overwrite or not result.is_file():
            return Earlier(Verdict.ABSENT)
        try:
            hashes = {key: sha256_of_scan(files) for key, files in self.inputs(path).items()}
            hashes |= self.sidecars(path)
        except (OSError, InputRejected):  # what is wrong with the input is told where it is checked
            return Earlier(Verdict.ABSENT)
        maps = [output_path(self.output_dir, case, f"{self.suffix}_{name}") for name in self.results.maps]
        return earlier_result(result, maps, hashes, self.results.recipe)

    @cached_property
    def _outcome(self) -> RunOutcome:
        self._result("probe")
        spacing = None if self.target_spacing is None else as_spacing(self.target_spacing)
        volume = self.reading.volume
        if volume is not None and (not isinstance(volume, int) or volume < 0):
            raise InputRejected(say("bad_volume", value=repr(volume)))
        paths = self.find()
        check_output_folder(self.output_dir)
        remove_leftovers(self.output_dir)
        outcome = RunOutcome(left_out=self.left_out)
        for line in self.left_out:
            log.warning(line)
        for line in self.problems:
            outcome.reject(Path(str(self.input)), line)
        single = self.is_single(paths)
        sharing = Counter(self.names(path)[0].casefold() for path in paths)
        sizes: list[int] = []
        rank, world_size = self.share  # by place in the list, which finished cases do not change
        for path in paths[rank::world_size]:
            try:
                if not single:
                    self.check_place(path)
                    self._check_name(path, sharing)
                sizes += self._take(path, spacing, outcome)
            except InputRejected as error:
                if single:
                    raise
                outcome.reject(path, str(error))
        for line in check_room(self.output_dir, sizes):
            log.warning(line)
        return outcome

    def _check_name(self, path: Path, sharing: Counter[str]) -> None:
        case, told = self.names(path)
        if (count := sharing[case.casefold()]) > 1:
            raise InputRejected(say("same_name", name=told, count=count, result=self._result(case).name))

    def _take(self, path: Path, spacing: Spacing | None, outcome: RunOutcome) -> list[int]:
        """Take in a case; the size of its result in bytes, where it is to be made."""
        case, told = self.names(path)
        result, earlier = self._result(case), self.earlier(path, case)
        if earlier.verdict is Verdict.SAME:
            outcome.skipped.append(result)
            return []
        if earlier.verdict is Verdict.FOREIGN:
            raise InputRejected(say("foreign_result", name=told, result=result.name))
        if earlier.verdict is Verdict.DIFFERS:
            what = "; ".join(earlier.differences)
            raise InputRejected(say("settings_differ", name=told, result=result.name, what=what))
        if earlier.verdict is Verdict.DAMAGED:
            log.warning(say("damaged_result", name=result.name))
        found = self.examine(path, spacing)
        if found is None:
            outcome.fine.append(path)
            return []
        item, voxels = found
        for warning in item["warnings"]:
            log.warning("%s: %s", case, warning)
        outcome.items.append(item)
        outcome.results.append(result)
        outcome.before.append(stamp(result))
        return [int(voxels * VOXEL_BYTES * (1 + len(self.results.maps)))]

    def _result(self, case: str) -> Path:
        return output_path(self.output_dir, case, self.suffix)
