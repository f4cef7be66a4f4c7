"""A DICOM study as a table of its series, and what is worked on of it.

Only structural series are worked on unasked; what is derived (maps, projections), a
localizer or another kind of scan is named and left alone.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import nibabel as nib
import numpy as np

from monai_diffens.contrasts import CONTRASTS
from monai_diffens.data.dicom.contrast import recognise
from monai_diffens.data.dicom.gate import Stack, check_headers
from monai_diffens.data.dicom.reader import numbers
from monai_diffens.data.dicom.series import HASH_DIGITS, DicomSeries, cleaned, find_series
from monai_diffens.messages import InputRejected, say

log = logging.getLogger("monai_diffens")

PLANES = ("sagittal", "coronal", "axial")  # by the axis (right, front, head) that their normal is nearest to
OBLIQUE = 0.97  # cosine, about 14 degrees: beyond it a plane is called oblique

# What the user may give to choose series: a number, a name, a description, or several of them.
Wanted = int | str | Sequence[int | str] | None


@dataclass(frozen=True)
class StudySeries:
    """One row of the table of a study.

    Attributes:
        study: first digits of a hash of the Study Instance UID: tells studies apart, names nobody.
        name: of its results.
        number: Series Number, None where there is none.
        description: Series Description without identifiers.
        contrast: T1w, ce-gadolinium_T1w, T2w, FLAIR, PDw, T2starw, or "" where it was not recognised.
        plane: axial, coronal or sagittal, with "oblique" behind it where it is; "" where none has a place.
        spacing: of columns, rows and slices, mm; None where the slices make no stack.
        thickness: of the slices, mm; None where the header does not tell.
        slices: number of images.
        verdict: "structural", "left alone: KIND" or "refused: LINE".
        warnings: one line each.
    """

    study: str
    name: str
    number: int | None
    description: str
    contrast: str
    plane: str
    spacing: tuple[float, float, float] | None
    thickness: float | None
    slices: int
    verdict: str
    warnings: tuple[str, ...] = ()


@dataclass
class StudyCase:
    """The contrasts of one study that a translation is made from.

    Attributes:
        case: its name: the study's description, cleaned, and a hash of its UID.
        files: contrast -> series.
        notes: one line for each contrast of which there were several, and for each that could not be taken.
        problem: why there is nothing to work on, one line, or "".
        left_out: one line for each series that is left alone, and for files that are none.
    """

    case: str
    files: dict[str, DicomSeries] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problem: str = ""
    left_out: list[str] = field(default_factory=list)


def study_table(path: str | Path) -> list[StudySeries]:
    """List the series in a folder and below, by their headers alone: no pixel is read.

    Raises:
        InputRejected: nothing is there, or no DICOM.
    """
    folder = Path(path)
    if not folder.exists():
        raise InputRejected(say("input_missing", name=folder.name))
    series, problems, notes = find_series(folder)
    if not series:
        raise InputRejected(problems[0] if problems else say("no_cases", name=folder.name))
    for line in (*problems, *notes):
        log.warning(line)
    return [_row(one) for one in series]


def table_text(rows: Sequence[StudySeries]) -> str:
    """The table as text, a study after the other."""
    head = ("number", "description", "contrast", "plane", "spacing (mm)", "thick", "slices", "verdict")
    cells = [
        (
            "-" if row.number is None else str(row.number),
            row.description or "-",
            row.contrast or "?",
            row.plane or "-",
            "-" if row.spacing is None else " x ".join(f"{side:.3g}" for side in row.spacing),
            "-" if row.thickness is None else f"{row.thickness:.3g}",
            str(row.slices),
            row.verdict,
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]

    def line(values: Iterable[str]) -> str:
        return "  ".join(value.ljust(width) for value, width in zip(values, widths, strict=True)).rstrip()

    lines: list[str] = []
    for index, row in enumerate(rows):
        if index == 0 or row.study != rows[index - 1].study:
            lines += [*([""] if lines else []), f"study {row.study}", line(head)]
        lines.append(line(cells[index]))
        lines += [f"    {warning}" for warning in row.warnings]
    return "\n".join(lines)


def find_structural(
    series: Sequence[DicomSeries], wanted: Wanted = None
) -> tuple[list[DicomSeries], list[tuple[DicomSeries, str]]]:
    """The series to work on, and those left alone, each with its kind.

    Args:
        series: of :func:`find_series`.
        wanted: as of :func:`choose`; what is named is worked on whatever it is.

    Raises:
        InputRejected: there is no series that is wanted.
    """
    if wanted is not None:
        return choose(series, wanted), []
    kinds = [recognise(one).left_alone for one in series]
    taken = [one for one, kind in zip(series, kinds, strict=True) if not kind]
    return taken, [(one, kind) for one, kind in zip(series, kinds, strict=True) if kind]


def kind_warnings(series: DicomSeries) -> list[str]:
    """Warnings on what a series that is worked on shows: not structural, or not known."""
    seen = recognise(series)
    if seen.left_alone:
        return [say("dicom_kept", name=series.name, kind=seen.left_alone)]
    return [] if seen.contrast else [say("dicom_unknown_contrast")]


def mixed_up(series: DicomSeries, contradiction: tuple[str, str]) -> str:
    """The line that name and sequence of a series tell two contrasts."""
    return say("study_mixed_up", name=series.name, told=contradiction[0], seen=contradiction[1])


def choose(series: Sequence[DicomSeries], wanted: Wanted) -> list[DicomSeries]:
    """Series by number, by name (as their results are called) or by description; commas between several.

    Raises:
        InputRejected: one that is named is not there.
    """
    if isinstance(wanted, str):
        each: list[int | str] = [part.strip() for part in wanted.split(",") if part.strip()]
    else:
        each = [wanted] if isinstance(wanted, int) else list(wanted or ())
    taken: list[DicomSeries] = []
    for value in each:
        told = str(value).casefold()
        found = [
            one
            for one in series
            if told in (str(one.number), one.name.casefold(), one.description.casefold()) and told
        ]
        if not found:
            known = ", ".join(str(one.number) if one.number else one.name for one in series) or "none"
            raise InputRejected(say("no_such_series", value=value, known=known))
        taken += [one for one in found if one not in taken]
    if not taken:
        raise InputRejected(say("no_such_series", value=repr(wanted), known="none asked for"))
    return taken


def study_cases(folder: Path, wanted: Wanted = None) -> list[StudyCase]:
    """A case of each study in a folder and below: of every contrast the finest series.

    Args:
        folder: where to look.
        wanted: as of :func:`choose`: no other series are taken.

    Returns:
        The cases, sorted by name; none where there is no DICOM.

    Raises:
        InputRejected: there is no series that is wanted, or files that may belong to one cannot be read.
    """
    series, problems, notes = find_series(folder)
    if problems:
        raise InputRejected(problems[0])
    studies: dict[str, list[DicomSeries]] = defaultdict(list)
    for one in choose(series, wanted) if wanted is not None and series else series:
        studies[one.study].append(one)
    cases = sorted((_case(uid, of) for uid, of in studies.items()), key=lambda case: case.case)
    if cases:
        cases[0].left_out += notes
    return cases


def _case(uid: str, series: Sequence[DicomSeries]) -> StudyCase:
    case = StudyCase("-".join(filter(None, [cleaned(series[0].headers[0], "StudyDescription"), _hash(uid)])))
    stacks: dict[str, list[tuple[DicomSeries, Stack]]] = defaultdict(list)
    for one in series:
        seen = recognise(one)
        if seen.left_alone or seen.contrast not in CONTRASTS:
            kind = seen.left_alone or seen.contrast or "no known contrast"
            case.left_out.append(say("dicom_left", name=one.name, kind=kind))
        elif seen.contradiction:
            case.notes.append(mixed_up(one, seen.contradiction))
        else:
            try:
                stacks[seen.contrast].append((one, check_headers(one)))
            except InputRejected as error:
                case.notes.append(str(error))
    for contrast in CONTRASTS:
        if found := sorted(stacks[contrast], key=_coarseness):
            best, stack = found[0]
            case.files[contrast] = best
            if len(found) > 1:
                told = {
                    "contrast": contrast,
                    "name": best.name,
                    "spacing": " x ".join(f"{side:.3g}" for side in nib.affines.voxel_sizes(stack.affine)),
                    "numbers": ", ".join(str(one.number or one.name) for one, _ in found),
                }
                case.notes.append(say("study_contrast", **told))
    if not case.files:
        known = "; ".join(case.notes) or ", ".join(one.name for one in series)
        case.problem = say("study_nothing", name=case.case, known=known)
    return case


def _coarseness(found: tuple[DicomSeries, Stack]) -> tuple[float, float, int]:
    zooms = nib.affines.voxel_sizes(found[1].affine)
    return round(float(zooms.max()), 2), float(zooms.prod()), found[0].number or 0


def _row(series: DicomSeries) -> StudySeries:
    seen = recognise(series)
    stack, warnings, verdict = None, [], f"left alone: {seen.left_alone}"
    try:
        stack = check_headers(series)
    except InputRejected as error:
        if not seen.left_alone:
            verdict = f"refused: {str(error).removeprefix(series.name + ': ')}"
    if stack is not None and not seen.left_alone:
        verdict, warnings = "structural", list(stack.notes)
        if seen.contradiction:
            warnings.append(mixed_up(series, seen.contradiction))
    thickness = numbers(series.headers[0], "SliceThickness")
    x, y, z = nib.affines.voxel_sizes(stack.affine) if stack else (0.0, 0.0, 0.0)
    return StudySeries(
        study=_hash(series.study),
        name=series.name,
        number=series.number,
        description=series.description,
        contrast=seen.contrast,
        plane=_plane(series),
        spacing=(float(x), float(y), float(z)) if stack else None,
        thickness=float(thickness[0]) if thickness.shape == (1,) else None,
        slices=len(series.files),
        verdict=verdict,
        warnings=tuple(warnings),
    )


def _plane(series: DicomSeries) -> str:
    directions = numbers(series.headers[0], "ImageOrientationPatient")
    if directions.shape != (6,):
        return ""
    normal = np.cross(directions[:3], directions[3:])
    length = float(np.linalg.norm(normal))
    if not 0.5 < length < 2:
        return ""
    nearest = int(np.argmax(np.abs(normal)))
    return PLANES[nearest] + ("" if abs(normal[nearest]) / length >= OBLIQUE else " oblique")


def _hash(uid: str) -> str:
    return sha256(uid.encode()).hexdigest()[:HASH_DIGITS]
