"""Registration: known motions of test subjects, and the error in mm that is left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from monai_diffens.transforms.registration import RegistrationFailed, Scan, align, register_rigid
from research.clinic.trials import Row, read, thick
from research.data_pack import contrast_path

MOVES = {0: 0.0, 2: 3.0, 5: 8.0, 10: 15.0}  # degrees -> mm
SLICES = 4.0  # mm
PAD = 20  # voxels around a moved head


def rigid(degrees: float, mm: float, centre: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """(4, 4) turn by an angle about a random axis through a centre, and a shift in a random direction."""
    draw = np.random.default_rng(seed)
    axis, way = (vector / np.linalg.norm(vector) for vector in draw.normal(size=(2, 3)))
    cross = np.cross(np.eye(3), axis)
    angle = np.radians(degrees)
    turn = np.eye(3) + np.sin(angle) * -cross.T + (1 - np.cos(angle)) * cross @ cross
    return nib.affines.from_matvec(turn, centre - turn @ centre + mm * way)


def move(scan: Scan, motion: NDArray[np.floating]) -> Scan:
    """The scan of a head that moved: what lies at ``motion`` of a point is now seen at the point."""
    shape = tuple(size + 2 * PAD for size in scan.values.shape)
    affine = scan.affine @ nib.affines.from_matvec(np.eye(3), [-PAD] * 3)
    if np.array_equal(motion, np.eye(4)):
        return scan
    values = scan.on(affine, shape, motion, order=3)
    inside = Scan((scan.values > 0).astype(np.float32), scan.affine).on(affine, shape, motion)
    return Scan(np.clip(values, 0, None) * (inside > 0.5), affine)


def trials(dataset_dir: Path, subjects: Sequence[str], moves: Sequence[int] = tuple(MOVES)) -> Iterator[Row]:
    """Each contrast of subjects, moved and cut into slices, against FLAIR: the error left in mm.

    Args:
        dataset_dir: BIDS folder.
        subjects: names; they have all contrasts.
        moves: in degrees, of :data:`MOVES`.
    """
    for number, subject in enumerate(subjects):
        flair = read(contrast_path(dataset_dir, subject, "FLAIR"))
        brain = flair.values > 0
        points = nib.affines.apply_affine(flair.affine, np.argwhere(brain)[::50])
        for kind, contrast in enumerate(("T1w", "ce-gadolinium_T1w", "T2w")):
            other = read(contrast_path(dataset_dir, subject, contrast))
            for degrees in moves:
                mm = MOVES[degrees]
                motion = rigid(degrees, mm, points.mean(axis=0), 100 * number + 10 * kind + degrees)
                moved, truth = move(other, motion), np.linalg.inv(motion)
                for setting, target, moving in (
                    ("thick contrast", flair, thick(moved, slices(kind))),
                    ("thick target", thick(flair, slices(kind)), moved),
                ):
                    where = brain if target is flair else target.values > 0
                    yield {
                        "subject": subject,
                        "contrast": contrast,
                        "setting": setting,
                        "degrees": degrees,
                        "mm": mm,
                        **trial(target, moving, where, points, truth),
                    }


def slices(axis: int) -> list[float]:
    """Spacing in mm with thick slices along one axis."""
    return [SLICES if other == 2 - axis else 1.0 for other in range(3)]


def trial(
    target: Scan, moving: Scan, brain: NDArray[np.bool_], points: NDArray[np.floating], truth: NDArray[Any]
) -> Row:
    """Register one pair; errors are means over points of the brain.

    "offered_mm" is how far the registration would have moved the brain where the header's pose was kept.
    """
    begin = time.process_time()
    row: Row = {"outcome": "", "start_mm": _apart(np.eye(4), truth, points), "offered_mm": np.nan}
    try:
        found = align(target, moving, brain)
    except RegistrationFailed as error:
        row |= {"outcome": f"refused: {error.why}", "error_mm": np.nan}
        row |= {"before": error.numbers.get("before"), "after": error.numbers.get("after")}
    else:
        row["outcome"] = "registered" if found.moved else "header"
        row["error_mm"] = _apart(found.motion.matrix, truth, points)
        row |= {"before": found.before, "after": found.after}
    row["cpu_s"] = time.process_time() - begin
    if row["outcome"] == "header":
        row["offered_mm"] = _apart(np.eye(4), register_rigid(target, moving), points)
    return row


def _apart(one: NDArray[Any], other: NDArray[Any], points: NDArray[np.floating]) -> float:
    there = [nib.affines.apply_affine(matrix, points) for matrix in (one, other)]
    return float(np.linalg.norm(there[0] - there[1], axis=1).mean())


def summarise(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print mean and largest error by setting and move."""
    for setting in ("thick contrast", "thick target"):
        for degrees in MOVES:
            here = [row for row in rows if (row["setting"], row["degrees"]) == (setting, degrees)]
            if not here:
                continue
            errors = np.array([row["error_mm"] for row in here], dtype=float)
            seconds = np.array([row["cpu_s"] for row in here])
            refused = int(np.isnan(errors).sum())
            print(
                f"{setting}, {degrees} degrees, {MOVES[degrees]:g} mm: {len(here)} pairs, {refused} refused, "
                f"error {np.nanmean(errors):.2f} mm on average, {np.nanmax(errors):.2f} at most; "
                f"{seconds.mean():.1f} s, {seconds.max():.1f} at most"
            )
