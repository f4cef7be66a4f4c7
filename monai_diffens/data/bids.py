"""What a BIDS folder tells of its subjects."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

CONTRASTS = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR")
VALIDATION_SHARE = 5  # every fifth subject, where no splits are given


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


def subject_splits(dataset_dir: str | Path, subjects: Sequence[str]) -> dict[str, str]:
    """Split of each subject: of column ``split`` of participants.tsv, else every fifth is for validation.

    A user who marks subjects as "test" there has them left alone.
    """
    if (Path(dataset_dir) / "participants.tsv").is_file():
        rows = participants(dataset_dir)
        if all("split" in row for row in rows):
            return {row["participant_id"]: row["split"] for row in rows}
    chosen = set(subjects[VALIDATION_SHARE - 1 :: VALIDATION_SHARE]) or set(subjects[1:][-1:])
    return {subject: "val" if subject in chosen else "train" for subject in subjects}
