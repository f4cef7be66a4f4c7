"""Lists of training and test volumes from a BIDS folder with a participants.tsv."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_diffens.transforms.plane_slices import SHARP_PLANE_KEY

THICK_KEY = "thick"  # of a case: the contrasts that were acquired in thick axial slices
CONTRASTS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")


def participants(dataset_dir: str | Path) -> list[dict[str, str]]:
    """Rows of ``participants.tsv``.

    Raises:
        FileNotFoundError: when the folder has no participants.tsv.
    """
    table = Path(dataset_dir) / "participants.tsv"
    if not table.is_file():
        raise FileNotFoundError(
            f"{table} is missing: dataset_dir must be a BIDS folder with a participants.tsv"
        )
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def contrast_path(dataset_dir: str | Path, subject: str, contrast: str) -> Path:
    """Path of one contrast of one subject."""
    return Path(dataset_dir) / subject / "anat" / f"{subject}_{contrast}.nii.gz"


def label_path(dataset_dir: str | Path, subject: str) -> Path | None:
    """Path of a subject's lesion or tumour label map; None where it has none."""
    folder = Path(dataset_dir) / "derivatives" / "labels" / subject / "anat"
    return next(iter(sorted(folder.glob(f"{subject}_desc-*_dseg.nii.gz"))), None)


def labelled_volumes(items: Sequence[dict[str, str]], dataset_dir: str | Path) -> list[dict[str, str]]:
    """The items of :func:`sharp_volumes` whose subject has a label map, with its path at ``lesion``."""
    found = ((item, label_path(dataset_dir, item["subject"])) for item in items)
    return [item | {"lesion": str(path)} for item, path in found if path is not None]


def sharp_volumes(
    dataset_dir: str | Path,
    split: str,
    contrasts: Sequence[str] = CONTRASTS,
    min_sharpness: float = 0.5,
) -> list[dict[str, str]]:
    """Volumes that are ground truth for super-resolution along every axis.

    A scan acquired in thick slices and interpolated to 1 mm teaches a network to leave blur in place;
    column ``throughplane_sharpness`` tells them apart (1: isotropic, below 0.3: thick slices).

    Args:
        dataset_dir: BIDS folder.
        split: value of column ``split``: train, val or test.
        contrasts: contrasts to list.
        min_sharpness: volumes below it are left out.

    Returns:
        Items with ``label`` (path), ``case`` (name), ``subject`` and ``contrast``.

    Raises:
        ValueError: when nothing is left.
    """
    every = _volumes(dataset_dir, split, contrasts)
    items = [item for item, sharpness in every if sharpness >= min_sharpness]
    if not items:
        raise ValueError(
            f"{dataset_dir}: no {split} volume of {', '.join(contrasts)} reaches {min_sharpness}"
        )
    return items


def thick_volumes(dataset_dir: str | Path, split: str, min_sharpness: float = 0.5) -> list[dict[str, str]]:
    """Volumes that :func:`sharp_volumes` leaves out as blurred; their slices are axial, and sharp as slices.

    Args: those of :func:`sharp_volumes`.

    Returns:
        Items as there, with ``sharp_plane``.
    """
    every = _volumes(dataset_dir, split, CONTRASTS)
    return [item | {SHARP_PLANE_KEY: "axial"} for item, sharpness in every if 0 < sharpness < min_sharpness]


def _volumes(
    dataset_dir: str | Path, split: str, contrasts: Sequence[str]
) -> Iterator[tuple[dict[str, str], float]]:
    """A split's volumes, with their ``throughplane_sharpness``; 0 where it is not known."""
    for row in participants(dataset_dir):
        if row["split"] != split:
            continue
        sharpness = dict(re.findall(r"(\S+)=(\S+)", row["throughplane_sharpness"]))
        subject = row["participant_id"]
        for contrast in contrasts:
            path = contrast_path(dataset_dir, subject, contrast)
            if path.is_file():
                item = {"label": str(path), "case": f"{subject}_{contrast}", "subject": subject}
                yield item | {"contrast": contrast}, float(sharpness.get(contrast, 0))


def aligned_subjects(
    dataset_dir: str | Path,
    split: str,
    target: str | None = "FLAIR",
    max_shift_mm: float = 0.9,
    min_sharpness: float = 0.5,
) -> list[dict[str, str]]:
    """Subjects whose contrasts lie on each other voxel by voxel.

    Column ``residual_shift_mm`` tells how far a contrast is off the subject's T1w; one that is further off
    than ``max_shift_mm`` would teach a network to displace, and is left out.

    Args:
        dataset_dir: BIDS folder.
        split: value of column ``split``.
        target: contrast to synthesise; a subject without it is left out. Any contrast where None.
        max_shift_mm: largest shift, in mm.
        min_sharpness: contrasts below it were acquired in thick axial slices.

    Returns:
        Items with a path for each contrast, the target among them, ``case`` (the subject), ``thick``, the
        names of the contrasts acquired in thick slices, with blanks between, and ``lesions``, the path of its
        labels, where ``derivatives/labels`` has some.

    Raises:
        ValueError: when nothing is left.
    """
    items = []
    for row in participants(dataset_dir):
        subject = row["participant_id"]
        shifts = dict(re.findall(r"(\S+)=(\S+)", row["residual_shift_mm"]))
        paths = {
            contrast: contrast_path(dataset_dir, subject, contrast)
            for contrast in CONTRASTS
            if float(shifts.get(contrast, 0)) <= max_shift_mm
        }
        item = {contrast: str(path) for contrast, path in paths.items() if path.is_file()}
        labels = sorted(Path(dataset_dir).glob(f"derivatives/labels/{subject}/anat/*_dseg.nii.gz"))
        sharpness = dict(re.findall(r"(\S+)=(\S+)", row["throughplane_sharpness"]))
        thick = " ".join(name for name in item if float(sharpness.get(name, 0)) < min_sharpness)
        if row["split"] == split and (target is None or target in item) and len(item) > 1:
            item |= {"lesions": str(labels[0])} if labels else {}
            items.append(item | {"case": subject, THICK_KEY: thick})
    if not items:
        wanted = target or "contrasts"
        raise ValueError(f"{dataset_dir}: no {split} subject has {wanted} and a contrast aligned with it")
    return items
