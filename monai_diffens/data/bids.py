"""Lists of training and test volumes from a BIDS folder with a participants.tsv."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

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
    items = []
    for row in participants(dataset_dir):
        if row["split"] != split:
            continue
        sharpness = dict(re.findall(r"(\S+)=(\S+)", row["throughplane_sharpness"]))
        for contrast in contrasts:
            path = contrast_path(dataset_dir, row["participant_id"], contrast)
            if float(sharpness.get(contrast, 0)) >= min_sharpness and path.is_file():
                subject = row["participant_id"]
                name = f"{subject}_{contrast}"
                items.append({"label": str(path), "case": name, "subject": subject, "contrast": contrast})
    if not items:
        raise ValueError(
            f"{dataset_dir}: no {split} volume of {', '.join(contrasts)} reaches {min_sharpness}"
        )
    return items
